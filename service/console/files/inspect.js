// The page Inspect: images in, verdicts out.

import { Problem, call, json } from "./api.js";
import { histogram } from "./charts.js";
import { $, announce, count, h, icon, key, milliseconds, record, significant } from "./dom.js";
import { sentences } from "./errors.js";
import { showPicture, thumbnail } from "./picture.js";
import { KEPT, add, again, clear, csv, items, pending, session, stop } from "./session.js";

const SAMPLES = { category: "machined-plate", names: ["good", "scratch", "pit", "stain", "dent", "gouge"] };
const FILTERS = ["all", "anomalous", "normal", "failed"];
const CHOSEN = "eca-inspect-category";

const TILES = 300;
const SHOW_MS = 400; // while many come, that long each verdict is shown

const begun = []; // images that were sent, in that order
const tiles = new Map(); // image of the strip -> its <li>
let shownAt = 0;
let selected = null;
let follow = true; // show each new verdict, until the person picks an image
let filter = "all";
let cards = new Map(); // category and version -> card
let summaries = null;
let scale = null; // the chart of the score
let burst = []; // images since the last announcement

// Categories.

export function showCategories(listed) {
  if (JSON.stringify(listed) === JSON.stringify(summaries)) return; // a list that is open is left alone
  summaries = listed;
  const ready = listed.filter((one) => one.status === "ready");
  const select = $("category");
  const wanted = select.value || sessionStorage.getItem(CHOSEN);
  select.replaceChildren(
    ...ready.map((one) => h("option", { value: one.category }, one.category)),
    ...listed.filter((one) => one.status !== "ready").map((one) => h("option", { value: one.category, disabled: true }, `${one.category} (refused)`)),
  );
  select.value = ready.some((one) => one.category === wanted) ? wanted : (ready[0]?.category ?? "");
  $("bench").hidden = ready.length === 0 && items.length === 0;
  const empty = $("no-category");
  empty.hidden = ready.length > 0;
  if (ready.length === 0) {
    const refused = listed.map((one) => h("li", {}, h("strong", {}, one.category), ` is refused: ${one.reason}`));
    empty.replaceChildren(
      h("h2", {}, "No category is ready yet"),
      h("p", {}, "A category is what the service has learned about one product. Without one there is nothing to compare a photograph with."),
      refused.length ? h("ul", {}, refused) : h("p", {}, "The server's weights folder holds none."),
      h("p", {}, "Train one from photographs of good parts, and it appears here by itself:"),
      h("pre", {}, "eca-inspect train my-part --normal photos/good"),
    );
  }
  chosen();
}

function chosen() {
  const name = $("category").value;
  const summary = summaries?.find((one) => one.category === name);
  if (name) sessionStorage.setItem(CHOSEN, name);
  $("category-link").href = `#/categories/${encodeURIComponent(name)}`;
  $("samples").hidden = name !== SAMPLES.category;
  const uncalibrated = summary && summary.calibration !== "youden";
  $("uncalibrated").hidden = !uncalibrated;
  if (uncalibrated) $("uncalibrated").replaceChildren(...warning());
}

/** Why the verdicts of a category without defects in its calibration need care. */
export const warning = () => [
  icon("failed"),
  h("p", {}, h("strong", {}, "Not calibrated with defects. "), "The threshold comes from good parts only, so nobody knows yet how many defects it misses. Treat its verdicts with care, and calibrate with photographs of defective parts."),
];

/** The card of what decided, or null; asked for once for each version. */
async function cardOf({ category, model_version: version }) {
  const name = `${category} ${version}`;
  if (!cards.has(name)) {
    const found = await json(`v1/categories/${encodeURIComponent(category)}`).catch(() => null);
    if (found?.card?.model_version !== version) return null;
    cards = new Map([...cards].slice(-20)).set(name, found.card);
  }
  return cards.get(name);
}

// Images come in.

function take(files) {
  if (!files.length || !$("category").value) return;
  follow = true;
  $("intake").classList.remove("first");
  const added = add(files, $("category").value, $("always").checked ? "always" : "auto");
  burst.push(...added);
  show(added[0]); // no earlier verdict stands there while this one is waited for
}

async function takeSample(name) {
  try {
    const picture = await (await call(`console/samples/${name}.png`, { headers: { Accept: "image/png" }, cache: "default" })).blob();
    take([new File([picture], `${name}.png`, { type: "image/png" })]);
  } catch (error) {
    announce(sentences(error instanceof Problem ? error : { kind: "console" }).join(" "));
  }
}

function listen() {
  for (const id of ["files", "camera"]) {
    $(id).addEventListener("change", (event) => {
      take(event.target.files);
      event.target.value = ""; // so that the same file can be chosen again
    });
  }
  $("category").addEventListener("change", chosen);
  addEventListener("paste", (event) => {
    if (document.querySelector("dialog[open]") || !event.clipboardData?.files.length) return;
    event.preventDefault();
    location.hash = "#/inspect";
    take(event.clipboardData.files);
  });
  let depth = 0;
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  const over = (on) => document.body.classList.toggle("dragging", on);
  addEventListener("dragenter", (event) => holdsFiles(event) && over(++depth > 0));
  addEventListener("dragleave", (event) => holdsFiles(event) && over((depth = Math.max(0, depth - 1)) > 0));
  addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    over(false);
    depth = 0;
    location.hash = "#/inspect";
    take(event.dataTransfer.files);
  });
  $("sample-list").replaceChildren(
    ...SAMPLES.names.map((name) =>
      h("li", {}, h("button", { type: "button", onclick: () => takeSample(name) }, h("img", { src: `console/samples/${name}.png`, alt: "", width: 96, height: 96, loading: "lazy" }), name)),
    ),
  );
  $("stop").addEventListener("click", stop);
  $("clear").addEventListener("click", () => {
    clear();
    selected = null;
    begun.length = 0;
    burst = [];
    $("result").hidden = true;
    $("intake").classList.add("first");
    $("files").focus();
  });
  $("retry").addEventListener("click", () => {
    follow = true;
    burst.push(...again(items));
  });
  $("csv").addEventListener("click", download);
  $("opacity").addEventListener("input", shade);
  $("outlines").addEventListener("change", shade);
  $("tiles").addEventListener("keydown", moveAmongTiles);
  session.addEventListener("change", ({ detail }) => changed(detail));
  session.addEventListener("count", counted);
}

function shade() {
  $("stage").style.setProperty("--heat", $("opacity").value / 100);
  $("stage").classList.toggle("plain", !$("outlines").checked);
}

// One verdict, large.

const isVerdict = (item) => item.state === "normal" || item.state === "anomalous";

async function show(item) {
  selected = item;
  shownAt = performance.now();
  for (const [one, tile] of tiles) mark(one, tile);
  $("result").hidden = false;
  const { answer, problem } = item;
  const state = isVerdict(item) || item.state === "failed" ? item.state : "waiting";
  const title = { normal: "Normal", anomalous: "Anomalous", failed: "No verdict", waiting: "Waiting for the verdict" }[state];
  const verdict = $("verdict");
  verdict.dataset.state = state;
  verdict.replaceChildren(icon(state), h("div", {}, h("h2", { id: "verdict-title" }, title), h("p", {}, summaryOf(item))));
  $("heat-controls").hidden = !item.localization;
  const facts = [];
  scale?.end();
  scale = null;
  if (problem) facts.push(problemPanel(item));
  const chartPlace = h("div", { className: "chart", role: "img" });
  if (answer) {
    if (answer.calibration !== "youden") facts.push(h("div", { className: "warning" }, warning()));
    facts.push(
      h("section", { className: "panel" }, h("h3", {}, "Score"), h("p", { className: "numbers" }, h("strong", {}, significant(answer.score)), h("span", { className: "muted" }, `threshold ${significant(answer.threshold)}`)), chartPlace, key(["swatch good", "normal and"], ["swatch bad", "anomalous images of the calibration"])),
    );
    facts.push(regionsPanel(item), timesPanel(answer.timing_ms));
  }
  facts.push(
    h("section", { className: "panel" }, h("h3", {}, "Record"), record([
      ["File", item.name],
      answer && ["Size", `${answer.image.width} × ${answer.image.height} pixels`],
      ["Category", item.category],
      answer && ["Version", answer.model_version],
      ["Time", item.time.toLocaleString()],
      item.requestId && ["Request id", requestId(item.requestId)],
    ])),
  );
  $("facts").replaceChildren(...facts.filter(Boolean));
  shade();
  const picture = showPicture($("stage"), item);
  $("picture-note").textContent = noteOf(item);
  if (answer) await drawScale(chartPlace, item);
  if (isVerdict(item) && follow && pending() < 2 && $("verdict").getBoundingClientRect().top > 0.6 * innerHeight) $("result").scrollIntoView();
  await picture;
}

function summaryOf(item) {
  const { answer, problem } = item;
  if (problem) return sentences(problem)[0];
  if (!answer) return item.name;
  const ratio = answer.score / answer.threshold;
  const times = Number.isFinite(ratio) ? `Its score is ${ratio >= 1 ? ratio.toFixed(ratio < 10 ? 2 : 0) : ratio.toFixed(2)} times the threshold.` : "";
  return answer.decision === "anomalous" ? `Reject this part, or look at it. ${times}` : `This part looks like the good ones. ${times}`;
}

function noteOf(item) {
  if (!item.answer) return item.name;
  if (item.localization) return "";
  if (!item.file) return `${item.name}. Only the newest ${KEPT.pictures} pictures are kept; send it again to see it.`;
  return item.answer.decision === "normal" ? `${item.name}. A normal part gets no heat map unless you ask for one above.` : item.name;
}

function problemPanel(item) {
  const [, todo] = sentences(item.problem);
  const { detail, kind, status } = item.problem;
  return h(
    "section",
    { className: "panel problem" },
    h("h3", {}, todo),
    item.file && kind !== "file-gone" ? h("button", { type: "button", onclick: () => burst.push(...again([item])) }, "Send it again") : null,
    detail || status ? h("p", { className: "small muted" }, `The server says: ${[status, kind].filter(Boolean).join(" ")}${detail ? `: ${detail}` : ""}`) : null,
  );
}

async function drawScale(place, item) {
  const { answer } = item;
  place.ariaLabel = `Score ${significant(answer.score)}, threshold ${significant(answer.threshold)}, on the histogram of the calibration scores`;
  const card = await cardOf(answer);
  if (!place.isConnected) return; // another image is shown by now
  const shown = card?.calibration.histogram ?? { edges: [0, answer.threshold, 2 * answer.threshold], normal: [0, 0], anomalous: [0, 0] };
  scale = histogram(place, 150, shown, (colours) => [
    [answer.threshold, "threshold", colours("--muted"), true],
    [answer.score, "this part", colours(answer.decision === "anomalous" ? "--bad" : "--good"), false],
  ], false);
}

function regionsPanel(item) {
  const regions = item.localization?.regions;
  if (!regions) return null;
  if (!regions.length) return h("section", { className: "panel" }, h("h3", {}, "Regions"), h("p", {}, "No place stands out: the heat map stays at the level of good parts."));
  const point = (index, on) => $("stage").querySelector(`[data-region="${index}"]`)?.classList.toggle("on", on);
  const rows = regions.map(({ box, area, peak }, index) =>
    h(
      "tr",
      { onmouseenter: () => point(index, true), onmouseleave: () => point(index, false) },
      h("th", { scope: "row" }, `${index + 1}`),
      h("td", {}, `${box.x}, ${box.y}`),
      h("td", {}, `${box.width} × ${box.height}`),
      h("td", {}, area.toLocaleString("en")),
      h("td", {}, `${peak.value.toFixed(1)}×`),
    ),
  );
  return h(
    "section",
    { className: "panel" },
    h("h3", {}, count(regions.length, "region")),
    h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Regions, in pixels" },
      h("table", {}, h("thead", {}, h("tr", {}, ["No.", "at x, y", "size", "pixels", "peak"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows))),
    h("p", { className: "small muted" }, "Peaks are multiples of what good parts show."),
  );
}

const STAGES = [["decode", "read"], ["queue", "wait"], ["inference", "score"], ["localization", "locate"]];

function timesPanel(times) {
  const total = STAGES.reduce((sum, [stage]) => sum + times[stage], 0) || 1;
  const bar = h("div", { className: "stages", "aria-hidden": "true" });
  for (const [stage] of STAGES) {
    const part = h("i", { className: stage });
    part.style.flexGrow = times[stage] / total;
    bar.append(part);
  }
  const parts = STAGES.map(([stage, word]) => h("div", {}, h("dt", {}, h("span", { className: `swatch ${stage}` }), word), h("dd", {}, milliseconds(times[stage]))));
  return h("section", { className: "panel" }, h("h3", {}, `Time ${milliseconds(times.total)}`), bar, h("dl", { className: "parts" }, parts));
}

function requestId(id) {
  const code = h("code", {}, id);
  if (!navigator.clipboard) return code; // it is there on https and on this machine only
  const button = h("button", { type: "button", className: "quiet tiny", "aria-label": "Copy the request id" }, "Copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(id);
    button.textContent = "Copied";
    announce("Request id copied");
  });
  return h("span", {}, code, " ", button);
}

// The strip.

const matches = (item) => !item.gone && (filter === "all" || item.state === filter);

function changed(item) {
  if (item.state !== "waiting" && !item.begun) {
    item.begun = true;
    begun.push(item);
    thumbnail(item.file).then((picture) => {
      item.thumbnail = item.gone ? null : picture;
      if (tiles.has(item)) illustrate(item, tiles.get(item));
    });
  }
  const done = isVerdict(item) || item.state === "failed";
  const next = follow && done && (pending() < 2 || performance.now() - shownAt > SHOW_MS);
  if (next || (item === selected && done)) show(item);
  counted();
}

function makeTile(item) {
  const pick = () => ((follow = false), show(item));
  const tile = h("li", {}, h("button", { type: "button", tabIndex: -1, onclick: pick }, h("span", { className: "thumb" }), h("span", { className: "badge" }), h("span", { className: "name" }, item.name)));
  tiles.set(item, tile);
  illustrate(item, tile);
  return tile;
}

function illustrate(item, tile) {
  if (!item.thumbnail || tile.url) return;
  tile.url = URL.createObjectURL(item.thumbnail);
  tile.querySelector(".thumb").append(h("img", { src: tile.url, alt: "" }));
}

function mark(item, tile) {
  const button = tile.firstChild;
  if (tile.dataset.state !== item.state) {
    tile.dataset.state = item.state;
    button.children[1].replaceChildren(icon(item.state === "sending" ? "waiting" : item.state));
    button.title = button.ariaLabel = `${item.name}: ${item.state === "failed" ? "no verdict" : item.state}`;
  }
  const current = item === selected;
  button.tabIndex = current ? 0 : -1;
  if (current) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
}

/** Shows the newest images that match; tiles that stay are not touched, so that they keep the focus. */
function arrange() {
  const wanted = new Set();
  for (let at = begun.length - 1; at >= 0 && wanted.size < TILES; at -= 1) if (matches(begun[at])) wanted.add(begun[at]);
  for (const [item, tile] of tiles) {
    if (wanted.has(item)) continue;
    if (tile.url) URL.revokeObjectURL(tile.url);
    tile.remove();
    tiles.delete(item);
  }
  let next = $("tiles").firstChild;
  for (const item of wanted) {
    const tile = tiles.get(item) ?? makeTile(item);
    if (tile === next) next = next.nextSibling;
    else $("tiles").insertBefore(tile, next);
    mark(item, tile);
  }
  if (!wanted.has(selected)) $("tiles").querySelector("button")?.setAttribute("tabindex", "0");
}

function moveAmongTiles(event) {
  const buttons = [...$("tiles").querySelectorAll("button")];
  const at = buttons.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  buttons[Math.min(Math.max(to, 0), buttons.length - 1)]?.focus();
}

const totals = () => {
  const found = { all: items.length, anomalous: 0, normal: 0, failed: 0, waiting: 0, sending: 0 };
  for (const item of items) found[item.state] += 1;
  return found;
};

let soon = 0;

/** Brings the counts up to date, at most once a frame. */
function counted() {
  soon ||= requestAnimationFrame(() => {
    soon = 0;
    recount();
  });
}

function recount() {
  const found = totals();
  const left = pending();
  $("strip").hidden = items.length === 0;
  for (const name of FILTERS) $("filter").querySelector(`[value=${name}] + span b`).textContent = found[name].toLocaleString("en");
  $("retry").hidden = found.failed === 0 || left > 0;
  $("retry").textContent = `Send ${found.failed} failed again`;
  $("strip-note").textContent =
    found[filter] > TILES ? `The newest ${TILES} of ${count(found[filter], "image")} are shown; the CSV file has ${items.length < KEPT.records ? "all" : `the newest ${KEPT.records.toLocaleString("en")}`}.` : "";
  arrange();
  const done = burst.filter((item) => isVerdict(item) || item.state === "failed").length;
  $("progress").hidden = left === 0 || burst.length < 2;
  $("progress-text").textContent = `${done} of ${count(burst.length, "image")}`;
  $("progress-bar").value = burst.length ? done / burst.length : 0;
  if (left === 0 && burst.length) {
    announce(burst.length === 1 ? spoken(burst[0]) : spokenSummary(burst));
    burst = [];
  }
}

function spoken(item) {
  if (item.problem) return `${item.name}: no verdict. ${sentences(item.problem).join(" ")}`;
  const regions = item.localization ? `, ${count(item.localization.regions.length, "region")}` : "";
  return `${item.name}: ${item.state}. Score ${significant(item.answer.score)}, threshold ${significant(item.answer.threshold)}${regions}.`;
}

function spokenSummary(inspected) {
  const number = (state) => inspected.filter((item) => item.state === state).length;
  return `${count(inspected.length, "image")}: ${number("anomalous")} anomalous, ${number("normal")} normal, ${number("failed")} without a verdict.`;
}

function download() {
  const url = URL.createObjectURL(new Blob(["\ufeff", csv(items)], { type: "text/csv" }));
  h("a", { href: url, download: `inspection-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export function start() {
  $("filter").append(
    ...FILTERS.map((name) =>
      h("label", {}, h("input", { type: "radio", name: "filter", value: name, checked: name === "all", onchange: () => ((filter = name), recount()) }), h("span", {}, `${name[0].toUpperCase()}${name.slice(1)} `, h("b", {}, "0"))),
    ),
  );
  listen();
  shade();
}
