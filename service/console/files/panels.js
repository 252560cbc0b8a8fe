// What is told of one answer: words, its score, where, and how long it took. The pages Inspect and History show them.

import { cardOf } from "./cards.js";
import { histogram } from "./charts.js";
import { announce, aside, count, h, heads, icon, key, milliseconds, panelOf, significant } from "./dom.js";
import { doubtOf, isUseless, ratio } from "./standing.js";
import { rejectingZones } from "./zones.js";

const WORDS = { pass: "PASS", review: "REVIEW", fail: "REJECT", normal: "PASS", anomalous: "REJECT" };
export const NO_WORD = "No verdict";

/** The verdict of an answer in the words of the line. */
export const wordOf = ({ verdict, decision }) => WORDS[verdict] ?? WORDS[decision] ?? NO_WORD;

// Words.

/** The score as a multiple of the threshold, short and as a sentence. */
export function timesOf(answer) {
  const times = ratio(answer);
  if (!Number.isFinite(times)) return [significant(answer.score), `Its score is ${significant(answer.score)}.`];
  const text = times.toFixed(times < 10 ? 2 : 0);
  return [`${text}×`, `Its score is ${text} times the threshold.`];
}

const PICTURES = { "too-dark": "too dark", "too-bright": "too bright", "too-little-contrast": "almost empty", blurred: "blurred", "wrong-shape": "of a wrong shape" };

/** What to do with a part that has this answer. */
export function adviceOf(answer) {
  if (doubtOf(answer)?.kind === "useless") return "Look at the part itself: this category cannot tell.";
  if (answer.verdict === "review") return "Look at this part yourself.";
  if (answer.decision === "normal") return "This part looks like the good ones.";
  const wrong = (answer.reasons ?? []).map((reason) => PICTURES[reason]).filter(Boolean);
  if (wrong.length) return `The picture is ${wrong.join(" and ")}. Check light, focus and position, and take it again.`;
  const cutOff = answer.alignment?.quality >= 0.5; // so it was found
  const lost = answer.reasons?.includes("not-aligned") && (cutOff ? "Part of it lies outside the picture (not aligned)." : "It was not found in the picture as the reference shows it (not aligned).");
  return ["Reject this part, or look at it.", lost, rejectingZones(answer)].filter(Boolean).join(" ");
}

export const warning = ({ kind, title, text }) =>
  h("div", { className: "warning", "data-kind": kind }, icon("failed"), h("p", {}, h("strong", {}, title), ` ${text}`));

// Its score.

export const scorePanel = (answer, chart) =>
  panelOf("Score",
    h("p", { className: "numbers" }, h("strong", {}, significant(answer.score)), h("span", { className: "muted" }, `threshold ${significant(answer.threshold)}`)),
    chart,
    key(["swatch good", "normal and"], ["swatch bad", "anomalous images of the calibration"]));

/** Draws the score on the histogram of the calibration scores; resolves to the chart, or null if the place is gone. */
export async function drawScale(place, item) {
  const { answer } = item;
  place.ariaLabel = `Score ${significant(answer.score)}, threshold ${significant(answer.threshold)}, on the histogram of the calibration scores`;
  const card = await cardOf(answer);
  if (!place.isConnected) return null; // another image is shown by now
  if (!card) {
    place.nextElementSibling.textContent = "The calibration scores of this version are not at hand any more.";
    place.ariaLabel = `Score ${significant(answer.score)}, threshold ${significant(answer.threshold)}`;
  }
  const bins = card?.calibration.histogram ?? { edges: [0, answer.threshold, 2 * answer.threshold], normal: [0, 0], anomalous: [0, 0] };
  return histogram(place, 150, bins, () => [
    [answer.threshold, "threshold", "--muted", true],
    [answer.score, "this part", isUseless(item) ? "--warn" : answer.decision === "anomalous" ? "--bad" : "--good", false],
  ], false);
}

// Where, and how long.

/** What the picture in the stage marks, as a table. */
export function regionsPanel(stage, { localization: { regions, peak }, answer }) {
  if (!regions.length) return noRegionPanel(answer, peak);
  const point = (index, on) => stage.querySelector(`[data-region="${index}"]`)?.classList.toggle("on", on);
  const rows = regions.map(({ box, area, peak: { value } }, index) =>
    h(
      "tr",
      { onmouseenter: () => point(index, true), onmouseleave: () => point(index, false) },
      h("th", { scope: "row" }, `${index + 1}`),
      h("td", {}, `${box.x}, ${box.y}`),
      h("td", {}, `${box.width} × ${box.height}`),
      h("td", {}, area.toLocaleString("en")),
      h("td", {}, `${value.toFixed(1)}×`),
    ),
  );
  return panelOf(
    count(regions.length, "region"),
    h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Regions, in pixels" },
      h("table", {}, heads("No.", "at x, y", "size", "pixels", "peak"), h("tbody", {}, rows))),
    aside("Peaks are multiples of what good parts show."),
  );
}

const ORIGINS = {
  global: "The score adds up the differences of the whole picture, so they can be small everywhere. Look at the whole part.",
  local: "The score is the largest difference at one place. The heat map is smoothed, so a small place can stay weak in it. Look closely at the whole part.",
  weighted: "The score is the mean of the largest differences at single places. The heat map is smoothed, so small places can stay weak in it. Look closely at the whole part.",
};

function noRegionPanel(answer, { x, y, value }) {
  const lines = [h("p", {}, "The heat map stays at the level of good parts.")];
  if (answer.decision === "anomalous") {
    const origin = h("p", {});
    cardOf(answer).then((card) => (origin.textContent = ORIGINS[card?.score] ?? "Look at the whole part."));
    const level = value < 0.01 ? "less than 0.01" : significant(value, 2);
    lines.push(h("p", {}, `It is strongest at ${x}, ${y}, with ${level} times that level: the ring in the picture.`), origin);
  }
  return panelOf("No region stands out", lines);
}

const STAGES = [["decode", "read"], ["queue", "wait"], ["inference", "score"], ["localization", "locate"]];

export function timesPanel(times) {
  const total = STAGES.reduce((sum, [stage]) => sum + times[stage], 0) || 1;
  const bar = h("div", { className: "stages", "aria-hidden": "true" });
  for (const [stage] of STAGES) {
    const part = h("i", { className: stage });
    part.style.flexGrow = times[stage] / total;
    bar.append(part);
  }
  const parts = STAGES.map(([stage, word]) => h("div", {}, h("dt", {}, h("span", { className: `swatch ${stage}` }), word), h("dd", {}, milliseconds(times[stage]))));
  return panelOf(`Time ${milliseconds(times.total)}`, bar, h("dl", { className: "parts" }, parts));
}

/** A request id, with a button that copies it where the browser can. */
export function requestId(id) {
  const code = h("code", {}, id);
  if (!navigator.clipboard) return code; // it is there on https and on this machine only
  const button = h("button", { className: "quiet tiny", "aria-label": "Copy the request id" }, "Copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(id);
    button.textContent = "Copied";
    announce("Request id copied");
  });
  return h("span", {}, code, " ", button);
}
