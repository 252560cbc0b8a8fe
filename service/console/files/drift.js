// Whether the pictures of a category are still like those of its calibration.

import { ANSWER_MS, asProblem, json } from "./api.js";
import { pathOf, repeat, section, wordsOf } from "./changing.js";
import { lines } from "./charts.js";
import { aside, count, dated, h, key } from "./dom.js";
import { lastSaid } from "./server.js";

const EVERY_MS = 60_000;
const NAMES = { score: "Score", brightness: "Brightness", contrast: "Contrast", sharpness: "Sharpness", aspect_ratio: "Width over height" };

/** The section of a category: {element, update, end}. */
export function drift(category) {
  const told = h("div", { className: "stack" });
  const measure = h("select", { id: "drift-measure", onchange: () => found && draw() }, Object.entries(NAMES).map(([value, name]) => h("option", { value }, name)));
  const per = h("select", { id: "drift-per", onchange: () => loop.now() }, h("option", { value: "day" }, "day"), h("option", { value: "hour" }, "hour"));
  const place = h("div", { className: "chart", role: "img" });
  const over = h("div", { className: "stack", hidden: true },
    h("div", { className: "choice" }, h("label", { htmlFor: "drift-measure" }, "Median of"), measure, h("label", { htmlFor: "drift-per" }, "per"), per),
    place, key(["stroke", "median of the last pictures, 200 at most"], ["stroke warn dashed", "median of the calibration"]));
  let found = null;
  let version = null;
  let chart = null;

  async function read() {
    if (lastSaid().kind === "unreachable") return;
    try {
      found = await json(pathOf(category, `drift?per=${per.value}`), { limit: ANSWER_MS });
      draw();
    } catch (error) {
      const { kind } = asProblem(error);
      if (kind === "unreachable") return;
      if (kind === "history-off") loop.end();
      over.hidden = true;
      told.replaceChildren(h("p", {}, wordsOf(error)));
    }
  }

  function draw() {
    told.replaceChildren(...describe(found));
    over.hidden = !found.series.length;
    if (over.hidden) return;
    place.ariaLabel = `Median of ${NAMES[measure.value].toLowerCase()} per ${per.value}, over ${count(found.series.length, per.value)}`;
    const usual = found.measures.find((one) => one.measure === measure.value)?.reference_median ?? null;
    const data = () => [found.series.map(({ since }) => Date.parse(since) / 1000), found.series.map((one) => one[measure.value]), found.series.map(() => usual)];
    chart?.end();
    chart = lines(place, 170, [["--accent"], ["--warn", "6 4"]], data);
  }

  /** Another version is compared with its own calibration. */
  function update({ card }) {
    const now = card?.model_version ?? null;
    if (version && now !== version) loop.now();
    version = now;
  }

  const loop = repeat(read, EVERY_MS);
  const end = () => (loop.end(), chart?.end());
  return { element: section("part-drift", "Drift", told, over), update, end };
}

function describe({ since, until, drifted, measures }) {
  if (!since) return [h("p", { className: "muted" }, "The version in force has not judged a picture yet.")];
  const most = Math.max(...measures.map(({ images }) => images));
  const none = measures.every(({ distance }) => distance == null);
  const what = none ? "There is too little to compare yet." : drifted ? "The pictures are unlike those of the calibration. Check light, lens and camera, or calibrate again." : "No measure is shown to have changed since the calibration.";
  return [
    h("p", {}, h("strong", {}, what)),
    aside(`Compared: ${count(most, "inspection")}, ${dated(since)} to ${dated(until)}.`),
    h("ul", { className: "stack" }, measures.map((one) =>
      h("li", {}, h("b", {}, NAMES[one.measure]), " ", one.drifted ? h("span", { className: "tag bad" }, "changed") : null, ` ${one.text}`))),
  ];
}
