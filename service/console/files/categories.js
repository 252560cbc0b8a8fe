// The page Categories: what each has learned, and what another threshold would have cost.

import { json } from "./api.js";
import { calibration as calibrationPart } from "./calibration.js";
import { candidate } from "./candidate.js";
import { teller } from "./changing.js";
import { histogram, roc } from "./charts.js";
import { $, announce, aside, clock, count, focusOn, h, heads, key, panelOf, percent, record, significant } from "./dom.js";
import { drift } from "./drift.js";
import { sentences } from "./errors.js";
import { warning } from "./panels.js";
import { lastSaid, server, summaryOf } from "./server.js";
import { doubtOf, sameRule } from "./standing.js";
import { trainings } from "./trainings.js";
import { METHODS, versions } from "./versions.js";

const PARTS = [candidate, calibrationPart, trainings, versions, drift];
const SOME = { refused: [candidate, versions], new: [trainings, candidate] }; // parts, by status
const NEW = "?new"; // what the address names instead of a category, where one is to be made
const NAME = /^[A-Za-z0-9][\w-]{0,63}$/;

let parts = []; // sections that stay while versions come and go
let partsOf = null; // whether their category is ready, and its name
let charts = [];
let shown = 0; // which answer is wanted, so that a late one is not shown
let asked = ""; // the category that the address names
let drawn = null; // the category that is shown, and its list, to see whether they change

export async function show(name) {
  const turn = ++shown;
  asked = name;
  try {
    const { categories } = await json("v1/categories");
    const wanted = name || (categories.find((one) => one.status === "ready") ?? categories[0])?.category || NEW;
    const detail = await detailOf(wanted);
    if (turn !== shown) return;
    const before = drawn;
    drawn = { categories: JSON.stringify(categories), category: wanted, detail };
    if (before?.categories !== drawn.categories || before.category !== wanted) list(categories, wanted);
    if (!before || before.category !== wanted) draw(detail);
    else if (detail.status !== before.detail.status || !sameRule(detail, before.detail)) replace(detail);
  } catch (problem) {
    if (turn !== shown) return;
    end();
    place().replaceChildren(h("div", { className: "panel empty" }, h("h2", {}, sentences(problem)[0]), h("p", {}, sentences(problem)[1])));
  }
}

/** What the server says of a category; or that it can be made. */
async function detailOf(category) {
  if (category === NEW) return { category };
  try {
    return await json(`v1/categories/${encodeURIComponent(category)}`);
  } catch (error) {
    if (error.kind !== "unknown-category" || !NAME.test(category)) throw error;
    return { category, status: "new" };
  }
}

/** The page is left. What it shows is old from now on, so nothing there can be pressed until it is drawn again. */
export function end() {
  endCharts();
  endParts();
  $("category-detail").inert = true;
  drawn = null;
  shown += 1;
}

/** Where the category is drawn, anew. */
function place() {
  $("category-detail").inert = false;
  return $("category-detail");
}

function endParts() {
  parts.forEach((one) => one.end());
  parts = [];
  partsOf = null;
}

/** The sections of what can be changed, and what leads to them. */
function partsFor(detail) {
  const made = `${detail.status} ${detail.category}`;
  if (partsOf !== made) {
    endParts();
    parts = (SOME[detail.status] ?? PARTS).map((make) => make(detail.category, detail.status === "new"));
    partsOf = made;
  }
  parts.forEach((one) => one.update?.(detail));
  const heads = parts.map(({ element }) => element.querySelector("h3"));
  const go = (head) => (head.scrollIntoView({ block: "start" }), focusOn(head));
  const links = heads.map((head) => h("li", {}, h("button", { className: "quiet", onclick: () => go(head) }, head.textContent)));
  return [h("nav", { "aria-label": `Sections of ${detail.category}` }, h("ul", { className: "buttons" }, links)), parts.map(({ element }) => element)];
}

function endCharts() {
  charts.forEach((one) => one.end());
  charts = [];
}

/** The server has other categories, or another version of one: what is shown follows. */
server.addEventListener("change", () => {
  const { categories, kind } = lastSaid();
  if ($("page-categories").hidden || !categories || kind === "unreachable") return;
  if (drawn?.categories !== JSON.stringify(categories)) show(asked);
});

/** Another version, or another state, of the category that is shown already. */
function replace(detail) {
  const focused = document.activeElement;
  const heading = focused?.closest(".task")?.querySelector("h3");
  draw(detail);
  const text = { new: "The category is not there any more.", refused: "The category is refused now." }[detail.status] ?? `A new version came at ${clock(Date.now())}. What is shown here is of it.`;
  $("category-detail").querySelector("header").append(h("p", { className: "muted" }, text));
  announce(`${detail.category}: ${text}`);
  if (focused && focused !== document.activeElement) focusOn(focused.isConnected ? focused : ($(focused.id) ?? heading));
}

export const tagOf = (one) => {
  const doubt = doubtOf(one);
  if (one.status === "refused") return h("span", { className: "tag bad" }, "refused");
  return doubt ? h("span", { className: `tag ${doubt.kind === "useless" ? "bad" : "doubt"}` }, doubt.tag) : h("span", { className: "tag" }, "ready");
};

function list(categories, wanted) {
  $("category-list").replaceChildren(
    h("ul", {}, [...categories, { category: NEW }].map((one) =>
      h("li", {}, h("a", { href: `#/categories/${encodeURIComponent(one.category)}`, "aria-current": one.category === wanted ? "page" : null },
        one.category === NEW ? "New category" : [h("span", {}, one.category), tagOf(one)])))),
  );
}

function draw(detail) {
  endCharts();
  if (!detail.status) {
    endParts();
    place().replaceChildren(form());
    return;
  }
  const [links, sections] = partsFor(detail);
  const head = h("header", {}, h("h2", {}, detail.category), links);
  if (detail.status === "refused") {
    place().replaceChildren(head, h("div", { className: "panel problem" }, h("h3", {}, "This category is refused"), h("p", {}, "The server does not answer images for it, because:"), h("p", {}, h("code", {}, detail.reason))), ...sections);
    return;
  }
  if (detail.status === "new") {
    place().replaceChildren(head, h("p", {}, "No category of this name is in force. Upload photographs of good parts, train, look at the candidate, and put it in force."), ...sections);
    return;
  }
  const { card } = detail;
  const { calibration, training } = card;
  const curved = calibration.roc != null;
  const blocks = [head];
  const doubt = doubtOf(detail);
  if (doubt) blocks.push(warning(doubt));
  if (detail.warning) blocks.push(aside(`The server says: ${detail.warning}.`));
  const scores = h("div", { className: "chart", role: "img" });
  const curve = h("div", { className: "chart curve", role: "img" });
  const trial = thresholds(calibration);
  blocks.push(
    panelOf("Another threshold",
      h("p", { className: "muted" }, "What it would have cost on the calibration images. This changes nothing; “Calibrate from labels” below does."),
      trial.control, trial.table, h("p", {}, `Now: ${detail.error_rates.text}`), scores,
      key(["swatch good", `${count(calibration.normal_images, "normal image")} and`], ["swatch bad", `${count(calibration.anomalous_images, "anomalous image")} of the calibration`])),
    curved
      ? panelOf("ROC curve", h("p", { className: "numbers" }, h("strong", {}, significant(calibration.auroc, 4)), h("span", { className: "muted" }, "area under the curve")), curve,
          key(["dot", "current threshold"], ["dot trial", "threshold tried above"]))
      : panelOf("ROC curve", h("p", {}, "There is none: a curve needs photographs of defective parts, and the calibration had none.")),
    h("div", { className: "pair" },
      panelOf("Version", record([
        ["Version", card.model_version],
        ["Teacher", card.teacher.name],
        ["Score", card.score],
        ["Networks see", `${card.image_size} × ${card.image_size} pixels`],
        ["Region", regionOf(detail.category, card.preprocessing.region)],
        card.preprocessing.tiles && ["Tiles", tilesOf(card.preprocessing)],
        ["Student", h("code", { title: card.student_sha256 }, card.student_sha256.slice(0, 16))],
      ])),
      panelOf("Calibration", record([
        ["Method", METHODS[calibration.method]],
        ["Threshold", significant(calibration.threshold, 5)],
        ["Images", `${calibration.normal_images} normal, ${calibration.anomalous_images} anomalous`],
        calibration.youden_index != null && ["Youden index", significant(calibration.youden_index)],
        calibration.max_false_alarms != null && ["Asked for", `at most ${percent(calibration.max_false_alarms)} false alarms, ${calibration.with_confidence ? "with 95 % confidence" : "on average"}`],
        calibration.quantile != null && ["Quantile", significant(calibration.quantile)],
        ["Date", date(calibration.date)],
      ])),
      panelOf("Training", record([
        ["Images", `${training.images}, and ${training.held_out} held out`],
        ["Epochs", `${training.epochs} of batches of ${training.batch_size}`],
        ["Learning rate", `${significant(training.learning_rate)}, ${training.schedule}`],
        ["Final loss", significant(training.final_loss)],
        ["Seed", training.seed],
        ["Device", `${training.device}, torch ${training.torch}`],
        ["Took", training.seconds < 120 ? `${training.seconds.toFixed(0)} s` : `${(training.seconds / 60).toFixed(0)} min`],
        ["Date", date(training.date)],
      ]))),
  );
  place().replaceChildren(...blocks, ...sections);
  charts.push(histogram(scores, 220, calibration.histogram, () => [
    [calibration.threshold, "current", "--muted", true],
    ...(trial.point().threshold === calibration.threshold ? [] : [[trial.point().threshold, "tried", "--accent", false]]),
  ]));
  scores.ariaLabel = `Histogram of the calibration scores, from ${significant(calibration.histogram.edges[0])} to ${significant(calibration.histogram.edges.at(-1))}`;
  if (curved) {
    const at = (point, name, size) => [point.alarms / calibration.normal_images, 1 - point.misses / calibration.anomalous_images, name, size];
    charts.push(roc(curve, 260, calibration.roc, () => [...(trial.inForce ? [at(trial.inForce, "--muted", 6)] : []), at(trial.point(), "--accent", 4)]));
    const now = trial.inForce;
    curve.ariaLabel = `ROC curve, area ${significant(calibration.auroc, 4)}.` + (now ? ` Current threshold: ${now.alarms} of ${calibration.normal_images} false alarms, ${now.misses} of ${calibration.anomalous_images} missed.` : "");
  }
  trial.onchange(() => charts.forEach((one) => one.update()));
}

/** Asks how a new category is to be called. */
function form() {
  const told = teller();
  const name = h("input", { id: "new-name", type: "text", maxLength: 64, autocomplete: "off", spellcheck: false });
  const go = (event) => {
    event.preventDefault();
    const value = name.value.trim();
    if (NAME.test(value) && value !== "teachers" && !summaryOf(value)) return (location.hash = `#/categories/${value}`);
    told.say(summaryOf(value) ? `There is a category ${value} already.` : "A name has 1 to 64 letters, digits, “_” or “-”, begins with a letter or digit, and is not “teachers”.", true);
    name.focus();
  };
  return h("form", { className: "panel task", noValidate: true, onsubmit: go },
    h("h2", {}, lastSaid().categories?.length ? "New category" : "There is no category yet"),
    h("p", { className: "muted" }, "It learns from photographs of good parts."),
    h("label", {}, "Name of the new category ", name), told.element, h("button", { type: "submit", className: "primary" }, "Go on"));
}

function regionOf(category, region) {
  const ignored = region?.ignored.length ? `; ${count(region.ignored.length, "place")} ignored` : "";
  const words = region ? `${region.zones.map(({ name }) => name).join(", ")}${ignored}` : "none: the whole picture counts";
  return h("span", {}, words, " ", h("a", { href: `#/region/${encodeURIComponent(category)}` }, "Draw it"));
}

const tilesOf = ({ region, tiles: { columns, rows, overlap } }) =>
  `${columns} × ${rows}${region ? " of each zone" : ""}, overlap ${percent(overlap)}`;

const date = (text) => new Date(text).toLocaleString();

/** The thresholds for which the card says exactly what they would have cost, rising.
 *
 * The card keeps the corners of the ROC curve and a histogram. At a corner, and at the lower edge of a bin, both counts
 * are known; in between they are not, so the slider does not stop there.
 * @returns {{threshold: number, alarms: number, misses: number | null}[]} */
export function knownPoints({ method, threshold, false_alarms: own, misses: missed, normal_images: normals, anomalous_images: anomalies, roc: curve, histogram: bins }) {
  const known = new Map();
  let [alarms, found] = [0, 0];
  for (let bin = bins.normal.length - 1; bin >= 0; bin -= 1) {
    alarms += bins.normal[bin];
    found += bins.anomalous[bin];
    known.set(bins.edges[bin], { threshold: bins.edges[bin], alarms, misses: anomalies ? anomalies - found : null });
  }
  curve?.threshold.forEach((value, index) => {
    const corner = { alarms: Math.round(curve.false_alarm_rate[index] * normals), misses: anomalies - Math.round(curve.detection_rate[index] * anomalies) };
    known.set(value, { threshold: value, ...corner });
  });
  if (own) known.set(threshold, { threshold, alarms: own.errors, misses: missed ? missed.errors : null });
  else if (method === "youden") {
    // Calibration puts the threshold between a corner's score and the next score below it, so it costs what the corner does.
    const corner = [...known.values()].filter((one) => curve.threshold.includes(one.threshold) && one.threshold >= threshold).sort((a, b) => a.threshold - b.threshold)[0];
    known.set(threshold, { ...corner, threshold });
  }
  return [...known.values()].sort((a, b) => a.threshold - b.threshold);
}

function thresholds(calibration) {
  const { threshold, normal_images: normals, anomalous_images: anomalies } = calibration;
  const points = knownPoints(calibration);
  const exact = points.findIndex((one) => one.threshold === threshold);
  const start = Math.max(0, points.findLastIndex((one) => one.threshold <= threshold));
  const inForce = exact >= 0 ? points[exact] : null;
  const input = h("input", { id: "trial", type: "range", min: 0, max: points.length - 1, step: 1, value: start });
  const output = h("output", { htmlFor: "trial" });
  const cells = { alarms: h("td"), misses: h("td") };
  let listener = () => {};
  const point = () => points[Number(input.value)];
  const of = (part, whole) => (part == null || !whole ? "unknown" : `${part} of ${whole} (${percent(part / whole)})`);
  const say = () => {
    const tried = point();
    output.textContent = significant(tried.threshold, 4);
    cells.alarms.textContent = of(tried.alarms, normals);
    cells.misses.textContent = of(tried.misses, anomalies);
    input.setAttribute("aria-valuetext", `${significant(tried.threshold, 4)}: false alarms ${of(tried.alarms, normals)}, misses ${of(tried.misses, anomalies)}`);
  };
  input.addEventListener("input", () => (say(), listener()));
  say();
  const reset = h("button", { className: "quiet", onclick: () => ((input.value = start), say(), listener()) }, "Back");
  const row = (name, cell, now) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, now), cell);
  return {
    inForce,
    point,
    onchange: (callback) => (listener = callback),
    control: h("div", { className: "trial" }, h("label", { htmlFor: "trial" }, "Threshold"), input, output, reset),
    table: h("table", { className: "costs" },
      heads("", `current, ${significant(threshold, 4)}`, "tried"),
      h("tbody", {}, row("False alarms", cells.alarms, inForce ? of(inForce.alarms, normals) : "not recorded"), row("Misses", cells.misses, inForce ? of(inForce.misses, anomalies) : "unknown"))),
  };
}
