// One inspection of the history: its verdict and its picture, everything that is kept of it, and what people say of it.

import { Problem, asProblem } from "./api.js";
import { comparable } from "./beside.js";
import { announce, count, dated, focusOn, h, icon, panelOf, record } from "./dom.js";
import { sentences } from "./errors.js";
import { CHOICES, LABELS, byWhom, give, heatOf, notKept, pictureOf, refusal, rememberReviewer, reviewer, said } from "./labels.js";
import { markable } from "./marks.js";
import { adviceOf, drawScale, regionsPanel, requestId, scorePanel, timesOf, timesPanel, warning, wordOf } from "./panels.js";
import { forgetPictureIn, showHeat, showPicture } from "./picture.js";
import { doubtOf, isUseless } from "./standing.js";
import { drawZones, zonesKey, zonesPanel } from "./zones.js";
import { zoomable } from "./zoom.js";

let page = null; // what the page gives: labelled()
let shown = null; // {detail, etag, panel, marking, good, left}; left: aborts what is still asked for it
let scale = null; // the chart of the score

export function end() {
  scale?.end();
  scale = null;
  shown?.left.abort();
  shown?.good.forget();
  if (shown) forgetPictureIn(shown.stage);
  shown = null;
}

const problemOf = ({ type, status, detail }) => new Problem(type.split(":").pop(), status, detail);

/** Shows an inspection as `GET /v1/inspections/{id}` answers it, with the version of its label. */
export function draw(place, detail, etag) {
  end();
  const answer = detail.decision ? detail : null;
  const item = { name: detail.part_id ?? detail.id, state: detail.decision ?? "failed", answer, localization: detail.localization, bare: true };
  const stage = h("div", { className: "stage" });
  zoomable(stage);
  shown = { detail, etag, item, stage, left: new AbortController() };
  shown.panel = detail.labels ? h("section", { className: "panel labelling", "aria-labelledby": "label-title" }) : null;
  shown.note = h("p", { className: "small muted" });
  shown.controls = h("div", { className: "heat-controls" });
  const places = h("div", { className: "marking" });
  shown.marking = markable(stage, places);
  const pair = h("div", {}, stage);
  shown.good = comparable(stage, pair, shown.controls);
  const chart = h("div", { className: "chart", role: "img" });
  place.replaceChildren(
    h("article", { className: "result", "aria-labelledby": "past-title" },
      band(detail, item),
      h("figure", { className: "panel picture" }, pair, h("figcaption", {}, shown.note, shown.controls, places)),
      h("div", { className: "facts" },
        shown.panel,
        answer && doubtOf(answer) ? warning(doubtOf(answer)) : null,
        detail.problem?.detail ? panelOf("What the server said", h("p", {}, detail.problem.detail)) : null,
        answer ? scorePanel(answer, chart) : null,
        answer ? zonesPanel(stage, answer) : null,
        item.localization ? regionsPanel(stage, item) : null,
        recordPanel(detail),
        detail.metadata && Object.keys(detail.metadata).length ? panelOf("Metadata", record(Object.entries(detail.metadata).map(([name, value]) => [name, String(value)]))) : null,
        detail.timing_ms ? timesPanel(detail.timing_ms) : null)));
  drawLabels({});
  if (answer) drawScale(chart, item).then((drawn) => (scale = drawn ?? scale));
  picture(shown);
  announce(`${wordOf(detail)}. ${detail.category}, ${dated(detail.time)}.`);
}

function band(detail, item) {
  const useless = isUseless(item);
  const title = wordOf(detail);
  const lines = item.answer ? [adviceOf(item.answer), timesOf(item.answer)[1]] : sentences(problemOf(detail.problem)).slice(0, 1);
  const verdict = h("div", { className: "verdict" },
    icon(useless ? "failed" : item.state),
    h("div", {},
      h("p", { className: "over" }, useless ? "From the history. Do not rely on this." : "From the history."),
      h("h2", { id: "past-title" }, title),
      lines.map((line) => h("p", {}, line)),
      h("p", { className: "when" }, `${detail.category}, ${dated(detail.time)}`)));
  Object.assign(verdict.dataset, { verdict: detail.verdict ?? "", state: item.state, weak: true, useless, long: false });
  return verdict;
}

function recordPanel(detail) {
  const { image } = detail;
  const link = (value, parameter) => value && h("a", { href: `#/history?${new URLSearchParams({ [parameter]: value })}`, title: "All of these" }, value);
  const size = image.width ? `${image.width} × ${image.height} pixels, ` : "";
  return panelOf("Record", record([
    detail.part_id && ["Part id", link(detail.part_id, "part_id")],
    detail.lot && ["Lot", link(detail.lot, "lot")],
    detail.station && ["Station", link(detail.station, "station")],
    detail.part && ["Kind of part", detail.part],
    detail.part_inspection && ["Views", h("a", { href: `#/history?part_inspection=${detail.part_inspection}` }, "All views of this part")],
    ["Category", link(detail.category, "category")],
    detail.reasons?.length && ["Reasons", detail.reasons.join(", ")],
    ["Version", detail.model_version],
    ["Time", dated(detail.time)],
    ["Image", `${size}${Math.ceil(image.bytes / 1000).toLocaleString("en")} kB`],
    ["Same image", h("a", { href: `#/history?sha256=${image.sha256}` }, "Find it again")],
    ["Id", h("code", {}, detail.id)],
    detail.request_id && ["Request id", requestId(detail.request_id)],
  ]));
}

// The picture.

/** Draws what is known of the places at once, and under it the picture and the heat map as they come, where they are kept. */
async function picture(mine) {
  const { detail, item, stage, note, left: { signal } } = mine;
  const here = () => shown === mine;
  if (detail.image.kept) {
    try {
      item.file = await pictureOf(detail, signal);
    } catch (error) {
      if (here()) note.textContent = said(error);
    }
  } else {
    note.textContent = notKept(detail);
  }
  if (!here()) return;
  item.bare = !item.file;
  stage.hidden = item.bare && !(detail.localization || detail.zones || detail.tiles || detail.labels?.some(({ boxes }) => boxes.length));
  showPicture(stage, item);
  const seen = await drawZones(stage, item);
  if (!here()) return;
  if (detail.labels && detail.image.width) mine.marking.show(mine, Boolean(item.file));
  if (item.file && item.answer) mine.good.show(mine);
  if (item.localization?.regions.length) mine.controls.append(toggle("Outlines", "plain"));
  if (seen?.region || seen?.tiles) mine.controls.append(toggle(seen.region ? "Zones" : "Tiles", "bare"), zonesKey(seen, item.answer));
  if (item.file && item.localization) await heat(mine);
}

function toggle(words, name) {
  const { stage } = shown;
  return h("label", { className: "check" }, h("input", { type: "checkbox", checked: true, onchange: ({ target }) => stage.classList.toggle(name, !target.checked) }), words);
}

async function heat(mine) {
  const { detail, stage, note, controls, left: { signal } } = mine;
  try {
    const png = await heatOf(detail, signal);
    if (shown !== mine) return;
    await showHeat(stage, png, detail.image);
  } catch (error) {
    if (shown === mine) note.textContent = `Without the heat map. ${said(error)}`;
    return;
  }
  const strength = ({ target }) => stage.style.setProperty("--heat", target.value / 100);
  controls.prepend(h("label", { htmlFor: "past-heat" }, "Heat map"), h("input", { id: "past-heat", type: "range", min: 0, max: 100, value: 70, oninput: strength }));
}

// What people say of it.

/** @param said what went wrong, or nothing
 * @param typed what the person has typed already */
function drawLabels({ said: words = "", typed = null }) {
  const { panel, detail: { labels } } = shown;
  if (!panel) return;
  const [now] = labels;
  const field = (name, label, value, most) =>
    h("label", {}, label, h("input", { type: "text", name, value: value ?? "", maxLength: most, autocomplete: "off" }));
  const focused = panel.contains(document.activeElement) ? document.activeElement.dataset.label : null;
  panel.replaceChildren(
    h("h3", { id: "label-title" }, "What do you say?"),
    h("p", {}, now ? `The label is “${LABELS[now.label]}”, ${byWhom(now)}.` : "Nobody has labelled this yet."),
    h("div", { className: "buttons" }, CHOICES.map(([label, word, key]) =>
      h("button", { "data-label": label, "aria-pressed": String(now?.label === label), "aria-keyshortcuts": key, onclick: () => say(label) }, word, h("kbd", {}, key)))),
    h("div", { className: "fields" },
      field("kind", "Kind of fault", typed?.kind ?? now?.kind, 64),
      field("comment", "Comment", typed?.comment ?? now?.comment, 2000),
      field("reviewer", "Your name", typed?.reviewer ?? reviewer(), 64)),
    words ? h("div", { className: "warning" }, icon("failed"), h("p", {}, words)) : "",
    labels.length > 1 ? h("details", {}, h("summary", {}, `Earlier labels (${labels.length - 1})`), h("ol", { className: "small" }, labels.slice(1).map(earlier))) : "");
  if (focused) focusOn(panel.querySelector(`[data-label=${focused}]`));
}

const earlier = (line) => h("li", {}, `${LABELS[line.label]}, ${byWhom(line)}${[line.kind, line.comment, line.boxes.length && count(line.boxes.length, "box", "boxes")].filter(Boolean).map((text) => `: ${text}`).join("")}`);

async function say(label) {
  const mine = shown;
  const { detail, panel } = mine;
  if (mine.giving) return;
  mine.giving = true;
  const typed = Object.fromEntries([...panel.querySelectorAll("input")].map(({ name, value }) => [name, value.trim()]));
  rememberReviewer(typed.reviewer);
  const given = { label, ...Object.fromEntries(Object.entries(typed).filter(([, value]) => value)) };
  let words = "";
  try {
    await give(mine, given);
  } catch (error) {
    words = refusal(asProblem(error));
  }
  mine.giving = false;
  page.labelled(detail.id, detail.labels[0]?.label ?? null);
  if (shown !== mine) return;
  drawLabels(words ? { said: words, typed } : {});
  mine.marking.renew();
  announce(words || `Labelled ${LABELS[label]}.`);
}

export function pressed(event) {
  const other = { b: shown?.marking, c: shown?.good }[event.key];
  if (other) {
    event.preventDefault();
    other.toggle();
  }
  const choice = CHOICES.find(([, , key]) => key === event.key);
  if (!choice || !shown?.panel) return;
  event.preventDefault();
  say(choice[0]);
}

export function start(given) {
  page = given;
}
