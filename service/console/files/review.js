// The page Review: inspections that people should look at, one at a time, with a key for each answer.

import { ANSWER_MS, asProblem, json } from "./api.js";
import { comparable } from "./beside.js";
import { $, announce, aside, count, dated, h, icon, record, significant } from "./dom.js";
import { sentences } from "./errors.js";
import { LABELS, byWhom, give, heatOf, notKept, pictureOf, refusal, rememberReviewer, remembered, reviewer, said, takeBack } from "./labels.js";
import { markable } from "./marks.js";
import { timesOf, wordOf } from "./panels.js";
import { forgetPictureIn, showHeat, showPicture } from "./picture.js";
import { lastSaid, server } from "./server.js";
import { zoomable } from "./zoom.js";

const CHOSEN = "eca-inspect-category"; // as on the page Inspect
const AHEAD = 20; // inspections that are asked for beyond those that are known
const MOST = 500; // of one question
const READY = 6; // inspections that are held ready with their pictures
const OTHER = { normal: "anomalous", anomalous: "normal" };
const KEYS = { a: "agree", Enter: "agree", d: "disagree", u: "unsure", ArrowRight: "next", ArrowLeft: "previous", z: "undo", h: "heat", b: "mark", c: "compare" };

let query = null; // what the address asks for: category and order
let turn = 0; // so that an answer that comes late is not shown
let drawn = 0; // so that of two drawings of a part only the last one goes on
let queue = []; // as the server gives them
let at = 0; // which one is shown
let left = 0;
let searched = 0; // of so many the server found those that are left
let complete = false; // whether the server has no more
let asking = null; // the question for more, while it is under way
let busy = false; // while a label is on its way
const labelled = new Set(); // ids, labelled here
let given = []; // ids in the order in which they were labelled, for undo
const ready = new Map(); // id -> promise of what is held ready of it
let leaving = new AbortController();
let marks = null; // of the stage
let good = null; // a good part beside it

export const isOpen = () => !$("page-review").hidden;
const current = () => queue[at];
const isOf = (order) => query.get("order") === order;

/** Shows what the address asks for: `?category=...&order=...&decision=...`. */
export function show(name) {
  const asked = new URLSearchParams(name.replace(/^\?/, ""));
  const category = asked.get("category") || sessionStorage.getItem(CHOSEN) || lastSaid().categories?.[0]?.category;
  const wanted = new URLSearchParams({ category: category ?? "", order: asked.get("order") ?? "nearest", ...(asked.get("decision") && { decision: asked.get("decision") }) });
  const same = String(wanted) === String(query);
  query = wanted;
  $("review-name").value = reviewer();
  fill();
  if (!category) tell("No category is there yet.", "The page Categories shows why.");
  else if (same && current()) draw();
  else load();
}

/** The page is left. */
export function end() {
  turn += 1;
  leaving.abort();
  good.forget();
  leaving = new AbortController();
  ready.clear();
  forgetPictureIn($("review-stage"));
}

function fill() {
  const category = query.get("category");
  const names = new Set([...(lastSaid().categories ?? []).map((one) => one.category), ...(category ? [category] : [])]);
  const select = $("review-category");
  if ([...names].join("\n") !== [...select.options].map(({ value }) => value).join("\n")) select.replaceChildren(...[...names].map((value) => h("option", { value }, value)));
  select.value = category;
  $("review-order").value = [query.get("order"), query.get("decision")].filter(Boolean).join(" ");
}

function choose() {
  const [order, decision] = $("review-order").value.split(" ");
  location.hash = `#/review?${new URLSearchParams({ category: $("review-category").value, order, ...(decision && { decision }) })}`;
}

// The queue.

async function load() {
  turn += 1;
  Object.assign(queue, { length: 0 });
  [at, complete, asking, given] = [0, false, null, []];
  labelled.clear();
  $("review-part").hidden = true;
  $("review-left").textContent = "";
  await more();
  draw();
}

/** Asks for the next ones. All who ask at the same time share one question. */
function more() {
  asking ??= ask(turn).finally(() => (asking = null));
  return asking;
}

async function ask(mine) {
  const limit = Math.min(MOST, queue.length + AHEAD);
  try {
    const found = await json(`v1/inspections/review?${query}&limit=${limit}`, { limit: ANSWER_MS });
    if (mine !== turn) return;
    const known = new Set(queue.map(({ id }) => id));
    const fresh = found.inspections.filter(({ id }) => !known.has(id));
    queue.push(...fresh);
    complete = !fresh.length || found.left <= found.inspections.length;
    left = found.left - found.inspections.filter(({ id }) => labelled.has(id)).length;
    searched = found.searched;
    $("review-problem").hidden = true;
    drawLeft();
  } catch (error) {
    if (mine === turn) tellProblem(asProblem(error));
  }
}

const drawLeft = () => ($("review-left").textContent = left >= searched ? `${left.toLocaleString("en")} or more left` : `${left.toLocaleString("en")} left`);

/** What is known of an inspection, with its pictures: {detail, etag, file, heat}, the last two as promises. */
function prepared({ id }) {
  if (!ready.has(id)) {
    const { signal } = leaving;
    const seen = remembered(id).then(({ detail, etag }) => ({
      detail,
      etag,
      file: detail.image.kept ? pictureOf(detail, signal) : Promise.resolve(null),
      heat: detail.image.kept ? heatOf(detail, signal) : Promise.resolve(null),
    }));
    seen.then(({ file, heat }) => [file, heat].forEach((one) => one.catch(() => null)), () => ready.delete(id)); // said when it is shown
    ready.set(id, seen);
    for (const other of [...ready.keys()].slice(0, -READY)) ready.delete(other);
  }
  return ready.get(id);
}

// What is shown.

async function draw() {
  const one = current();
  const mine = turn;
  const number = (drawn += 1);
  const here = () => mine === turn && number === drawn && one === current();
  if (!one && !complete && !asking && $("review-problem").hidden) return more().then(draw);
  if (!one) return $("review-problem").hidden && drawEnd();
  $("review-part").hidden = false;
  drawBand(one);
  drawLabel(null, "");
  for (const [name, disabled] of [["previous", at === 0], ["undo", !given.length]]) $(`review-${name}`).disabled = disabled;
  $("review-note").textContent = "";
  marks.forget();
  good.forget();
  forgetPictureIn($("review-stage"));
  announce(`${wordOf(one)}. ${timesOf(one)[1]} ${$("review-left").textContent}.`);
  try {
    const seen = await prepared(one);
    if (!here()) return;
    drawLabel(seen, "");
    await drawPicture(seen, here);
  } catch (error) {
    if (here()) $("review-note").textContent = said(error);
  }
  if (mine !== turn) return;
  if (queue[at + 1]) prepared(queue[at + 1]);
  if (!complete && queue.length - at < AHEAD / 2 && queue.length < MOST) more();
}

async function drawPicture(seen, here) {
  const { detail, file, heat } = seen;
  const stage = $("review-stage");
  const note = (words) => ($("review-note").textContent = words);
  const item = { name: detail.part_id ?? detail.id, answer: detail, localization: detail.localization };
  if (!detail.image.kept) note(notKept(detail));
  item.file = await file.catch((error) => (here() && note(said(error)), null));
  if (!here()) return;
  item.bare = !item.file;
  showPicture(stage, item);
  marks.show(seen, Boolean(item.file));
  if (!item.file) return;
  good.show(seen);
  const png = await heat.catch((error) => (here() && note(`Without the heat map. ${said(error)}`), null));
  if (here() && png) await showHeat(stage, png, detail.image);
}

function drawBand(one) {
  const [, times] = timesOf(one);
  $("review-band").replaceChildren(
    icon(one.decision),
    h("div", {},
      h("p", { className: "over" }, "The service says:"),
      h("h2", { id: "review-verdict" }, wordOf(one)),
      h("p", {}, times),
      h("p", { className: "when" }, `${one.category}, ${dated(one.time)}`)));
  Object.assign($("review-band").dataset, { verdict: one.verdict ?? "", state: one.decision, weak: true });
  $("review-agree").firstChild.textContent = `Agree: ${LABELS[one.decision]}`;
  $("review-disagree").firstChild.textContent = `Disagree: ${LABELS[OTHER[one.decision]]}`;
  $("review-record").replaceChildren(record([
    one.part_id && ["Part id", one.part_id],
    one.lot && ["Lot", one.lot],
    one.station && ["Station", one.station],
    ["Score", `${significant(one.score)}, threshold ${significant(one.threshold)}`],
    isOf("random") && one.weight && ["Weight", `${significant(one.weight)}: in an estimate it counts for so many parts`],
    ["Details", h("a", { href: `#/history/${one.id}` }, "Show it in the history")],
  ]));
}

/** @param seen what is known of it, once it is known
 * @param words why a label was not taken, or nothing */
function drawLabel(seen, words) {
  const now = seen?.detail.labels[0];
  $("review-label").textContent = !seen ? "" : now ? `The label is “${LABELS[now.label]}”, ${byWhom(now)}.` : "Nobody has labelled this yet.";
  $("review-said").hidden = !words;
  $("review-said").replaceChildren(...(words ? [icon("failed"), h("p", {}, words)] : []));
  for (const [name, label] of [["agree", current()?.decision], ["disagree", OTHER[current()?.decision]], ["unsure", "unsure"]]) $(`review-${name}`).ariaPressed = String(Boolean(now) && now.label === label);
}

function drawEnd() {
  $("review-part").hidden = true;
  forgetPictureIn($("review-stage"));
  const passed = queue.filter(({ id }) => !labelled.has(id)).length;
  const first = isOf("disagreements") ? "Nobody has labelled a part otherwise than the service decided, or two people agree on each." : "Only parts that nobody has labelled and whose picture is kept are shown here.";
  const words = queue.length ? `${count(labelled.size, "part is", "parts are")} labelled, ${passed} passed over.` : first;
  tell("Nothing is left to review here.", words);
  $("review-problem").append(
    h("div", { className: "buttons" },
      given.length ? h("button", { className: "quiet", onclick: undo }, "Undo the last label") : null,
      h("button", { className: "quiet", onclick: load }, "Look again")));
}

function tell(what, todo, detail = "") {
  $("review-part").hidden = true;
  $("review-problem").hidden = false;
  $("review-problem").replaceChildren(h("h2", {}, what), h("p", {}, todo), ...(detail ? [aside(`The server says: ${detail}`)] : []));
  announce(`${what} ${todo}`);
}

function tellProblem(problem) {
  const [what, todo] = sentences(problem);
  tell(what, todo, problem.detail);
  $("review-problem").append(h("button", { className: "quiet", onclick: load }, "Try again"));
}

// What the person does.

function step(by) {
  if (at + by < 0 || busy) return;
  at = Math.min(at + by, queue.length);
  draw();
}

async function answer(label) {
  const one = current();
  if (!one || busy) return;
  busy = true;
  const words = await labelOne(one, label);
  busy = false;
  if (words === "" && current() === one) {
    announce(`Labelled ${LABELS[label]}.`);
    at += 1;
    drawLeft();
    draw();
  } else if (words) announce(words);
}

/** @returns why the label was not given; nothing if it was; null if it is not known what to label */
async function labelOne(one, label) {
  const seen = await prepared(one).catch(() => null);
  if (!seen || one !== current()) return null;
  const [now] = seen.detail.labels;
  let words = "";
  if (now && !seen.told && !labelled.has(one.id) && !isOf("disagreements")) words = "Another person has labelled this meanwhile. Look at that label, and decide again.";
  else {
    const name = $("review-name").value.trim();
    rememberReviewer(name);
    try {
      await give(seen, { label, ...(name && { reviewer: name }) });
      seen.before = now ?? null;
      if (!labelled.has(one.id)) left -= 1;
      labelled.add(one.id);
      given = [...given.filter((id) => id !== one.id), one.id];
    } catch (error) {
      words = refusal(asProblem(error));
    }
  }
  seen.told = true;
  if (words && one === current()) {
    drawLabel(seen, words);
    marks.renew();
  }
  return words;
}

/** Goes back to the part that was labelled last, and takes its label back; one that replaced another stays. */
async function undo() {
  const id = given.at(-1);
  if (!id || busy) return;
  busy = true;
  $("review-problem").hidden = true;
  const index = queue.findIndex((one) => one.id === id);
  let words = "The label is taken back.";
  try {
    const seen = await prepared(queue[index]);
    given = given.slice(0, -1);
    if (seen.before) words = "This is the part that you labelled last. Its label replaced another one and stays; press another key to change it.";
    else {
      await takeBack(seen);
      labelled.delete(id);
      left += 1;
    }
  } catch (error) {
    words = refusal(asProblem(error));
  }
  busy = false;
  at = index;
  drawLeft();
  await draw();
  announce(words);
}

function shade() {
  $("review-stage").classList.toggle("cold", !$("review-heat").checked);
}

const DEEDS = {
  agree: () => answer(current()?.decision),
  disagree: () => answer(OTHER[current()?.decision]),
  unsure: () => answer("unsure"),
  next: () => step(1),
  previous: () => step(-1),
  undo,
  mark: () => marks.toggle(),
  compare: () => good.toggle(),
  heat: () => {
    $("review-heat").checked = !$("review-heat").checked;
    shade();
  },
};

function pressed(event) {
  const { target, key, repeat } = event;
  if (!isOpen() || event.altKey || event.metaKey || event.shiftKey || (event.ctrlKey && key !== "z")) return;
  if (target.closest("input:not([type=checkbox]), select, textarea, dialog") || (key === "Enter" && target.closest("a, button"))) return;
  const deed = KEYS[key];
  if (!deed) return;
  event.preventDefault();
  if (!repeat) DEEDS[deed]();
}

export function start() {
  for (const name of ["agree", "disagree", "unsure", "next", "previous", "undo"]) $(`review-${name}`).addEventListener("click", DEEDS[name]);
  for (const name of ["category", "order"]) $(`review-${name}`).addEventListener("change", choose);
  $("review-name").addEventListener("change", () => rememberReviewer($("review-name").value.trim()));
  $("review-heat").addEventListener("change", shade);
  zoomable($("review-stage"));
  marks = markable($("review-stage"), $("review-marks"));
  good = comparable($("review-stage"), $("review-pair"), $("review-controls"));
  addEventListener("keydown", pressed);
  server.addEventListener("change", () => {
    if (!isOpen()) return;
    if (query.get("category")) fill();
    else show(location.hash.slice(8)); // what was chosen meanwhile
  });
}
