// The verdict, large: of one image, or of many that came together. It says itself whether it is still current.

import { $, ago, announce, aside, clock, count, h, icon, panelOf, record, significant } from "./dom.js";
import { sentences } from "./errors.js";
import { NO_WORD, adviceOf, drawScale, regionsPanel, requestId, scorePanel, timesOf, timesPanel, warning, wordOf } from "./panels.js";
import { showPicture } from "./picture.js";
import { KEPT, canBeSentAgain } from "./session.js";
import { summaryOf } from "./server.js";
import { badgeOf, doubtOf, isDone, isUseless, isVerdict, outdated, sameRule, worstFirst } from "./standing.js";
import { showWorst } from "./strip.js";
import * as zones from "./zones.js";
import { zoomable } from "./zoom.js";

const SHOW_MS = 400; // while many come, that long the picture of the worst stays
const LISTED = 20; // images of each list of a batch

let shown = []; // the images that the verdict is of
let picked = false; // whether the person has picked it from the strip
let page = null; // what the page gives: chosen(), pick(), back(), again(), inspect()
let scale = null; // the chart of the score
let band = ""; // what the band says, to see whether it changes
let cause = null; // why it is not current
let pictured = null; // what stands in the picture, and its state
let picturedAt = 0;
let pictures = []; // addresses of the small pictures of the list

/** Shows the verdict of an image, or of several that came together. */
export function show(items, isPicked) {
  const same = items === shown && picked === isPicked;
  shown = items;
  picked = isPicked;
  $("result").hidden = items.length === 0;
  if (!same) cause = null;
  judge();
  if (items.length === 1) showOne(items[0]);
  else if (items.length) showMany(items, same);
  else pictured = null;
}

// The band.

/** Brings up to date what the band says: it changes with the time, the server and the choice of the category too. */
export function judge() {
  if (!shown.length) return;
  const says = saying();
  const text = JSON.stringify(says);
  if (text !== band) {
    band = text;
    drawBand(says);
    drawSince();
  }
  const when = $("verdict").querySelector(".when");
  if (when) when.textContent = whenOf(shown);
}

/** The server has other categories, or another version of one. */
export function follow() {
  judge();
  drawSince();
}

/** @returns {{state: string, title: string, lines: string[], over?: string, weak?: boolean, useless?: boolean, back?: string, verdict?: string}} */
function saying() {
  const says = shown.length === 1 ? sayingOfOne(shown[0]) : sayingOfMany(shown);
  if (says.state === "waiting") return says;
  const decided = shown.filter(isVerdict);
  const useless = decided.some(isUseless);
  const over = [picked ? "Picked from the list." : "", useless ? "Do not rely on this." : ""].filter(Boolean).join(" ");
  if (picked) return { ...says, over, useless, weak: true, back: "Back to the newest" };
  const why = decided.length ? outdated(decided, page.chosen()) : null;
  if (why && cause === null && ["category", "version"].includes(why.cause)) announce(`The verdict is not current any more. ${why.text}`);
  cause = why?.cause ?? null;
  if (why) return { state: "outdated", title: "No current verdict", lines: [why.text, `The last one was: ${says.title}.`] };
  return { ...says, over, useless, weak: useless };
}

function sayingOfOne({ state, name, answer, problem }) {
  if (state === "failed") return { state, title: NO_WORD, lines: [sentences(problem)[0]] };
  if (!answer) return { state: "waiting", title: "Waiting for the verdict", lines: [name] };
  return { state, title: wordOf(answer), lines: [adviceOf(answer), timesOf(answer)[1]], verdict: answer.verdict };
}

function sayingOfMany(items) {
  const all = items.length;
  const number = (state) => items.filter((item) => item.state === state).length;
  const [anomalous, normal, failed] = ["anomalous", "normal", "failed"].map(number);
  const done = anomalous + normal + failed;
  const totals = `${anomalous} anomalous, ${normal} normal, ${failed} without a verdict.`;
  if (done < all) return { state: "waiting", title: `Inspecting ${count(all, "image")}`, lines: [`${done} done so far: ${totals}`] };
  if (anomalous) return { state: "anomalous", title: `${anomalous} of ${all} anomalous`, lines: [totals, `The worst is ${worstFirst(items)[0].name}.`] };
  if (failed) return { state: "failed", title: `${failed} of ${all} without a verdict`, lines: [totals] };
  return { state: "normal", title: `All ${all} normal`, lines: [] };
}

/** What is said once when all have their verdict. */
export function spoken(items) {
  if (items.length > 1) {
    const number = (state) => items.filter((item) => item.state === state).length;
    return `${count(items.length, "image")}: ${number("anomalous")} anomalous, ${number("normal")} normal, ${number("failed")} without a verdict.`;
  }
  const [{ name, answer, problem, localization }] = items;
  if (problem) return `${name}: no verdict. ${sentences(problem).join(" ")}`;
  const regions = localization ? `, ${count(localization.regions.length, "region")}` : "";
  const doubt = doubtOf(answer);
  const figures = `Score ${significant(answer.score)}, threshold ${significant(answer.threshold)}${regions}.`;
  return [`${name}: ${wordOf(answer)}.`, figures, zones.rejectingZones(answer), doubt?.title].filter(Boolean).join(" ");
}

function whenOf(items) {
  const time = Math.max(...items.map((item) => item.time.getTime()));
  const what = items.length === 1 ? items[0].name : count(items.length, "image");
  return `${what}, ${clock(time)}, ${ago(time)}`;
}

function drawBand({ state, title, lines, over, weak, useless, back, verdict: said }) {
  const verdict = $("verdict");
  Object.assign(verdict.dataset, { state, weak: Boolean(weak), useless: Boolean(useless), verdict: said ?? "", long: title.length > 10 });
  verdict.replaceChildren(
    icon(useless || said === "review" ? "failed" : state === "outdated" ? "waiting" : state),
    h("div", {},
      over ? h("p", { className: "over" }, over) : null,
      h("h2", { id: "verdict-title", tabIndex: -1 }, title),
      lines.map((line) => h("p", {}, line)),
      state === "waiting" ? null : h("p", { className: "when" }),
      back ? h("button", { className: "quiet", onclick: () => (page.back(), focusTitle()) }, back) : null),
  );
}

const focusTitle = () => $("verdict-title").focus();

// One image.

function showOne(item) {
  const state = isDone(item) ? item.state : "waiting";
  if (pictured?.item === item && pictured.state === state && pictured.one) return;
  pictured = { item, state, one: true };
  const { answer } = item;
  endFacts();
  $("heat-controls").hidden = !item.localization;
  const chart = h("div", { className: "chart", role: "img" });
  const doubt = answer && doubtOf(answer);
  $("facts").replaceChildren(
    ...[
      h("div", { id: "since" }),
      item.problem ? problemPanel(item) : null,
      doubt ? warning(doubt) : null,
      answer ? scorePanel(answer, chart) : null,
      answer ? zones.zonesPanel($("stage"), answer) : null,
      item.localization ? regionsPanel($("stage"), item) : null,
      answer ? timesPanel(answer.timing_ms) : null,
      recordPanel(item),
    ].filter(Boolean),
  );
  drawSince();
  $("picture-note").textContent = noteOf(item);
  drawPicture(item);
  if (answer) drawScale(chart, item).then((drawn) => (scale = drawn ?? scale));
  if (isVerdict(item)) reveal();
}

function drawPicture(item) {
  showPicture($("stage"), item);
  zones.showZones($("stage"), item);
}

function reveal() {
  if (!picked && $("verdict").getBoundingClientRect().top > 0.6 * innerHeight) $("result").scrollIntoView();
}

/** Says so where another version has come since. */
function drawSince() {
  const place = $("since");
  const [item] = shown;
  if (!place || !item) return;
  const now = summaryOf(item.category);
  if (!item.answer || now?.status !== "ready" || sameRule(now, item.answer)) return place.replaceChildren();
  const again = item.file ? h("button", { className: "quiet", onclick: () => page.inspect([item.file], item.category) }, "Inspect it again") : null;
  place.replaceChildren(
    h("div", { className: "warning" }, icon("failed"),
      h("div", {},
        h("p", {}, h("strong", {}, "An earlier version decided this. "), `It was version ${item.answer.model_version} with the threshold ${significant(item.answer.threshold)}. Now it is version ${now.model_version} with the threshold ${significant(now.threshold)}.`),
        now.category === page.chosen() ? again : null)),
  );
}

function noteOf(item) {
  if (!item.answer) return item.name;
  if (item.localization) return "";
  if (!item.file) return `${item.name}. Only ${KEPT.pictures} pictures are kept: the newest, and the worst of what came together. Choose the file again to see it.`;
  return item.answer.decision === "normal" ? `${item.name}. A normal part gets no heat map unless you ask for one above.` : item.name;
}

function problemPanel(item) {
  const [, todo] = sentences(item.problem);
  const { detail, kind, status } = item.problem;
  return h(
    "section",
    { className: "panel problem" },
    h("h3", {}, todo),
    canBeSentAgain(item) && kind !== "file-gone" ? h("button", { onclick: () => (page.again(item), focusTitle()) }, "Send it again") : null,
    detail || status ? aside(`The server says: ${[status, kind].filter(Boolean).join(" ")}${detail ? `: ${detail}` : ""}`) : null,
  );
}

function endFacts() {
  scale?.end();
  scale = null;
  pictures.forEach((one) => URL.revokeObjectURL(one));
  pictures = [];
}

const recordPanel = (item) =>
  panelOf("Record", record([
    ["File", item.name],
    item.answer && ["Size", `${item.answer.image.width} × ${item.answer.image.height} pixels`],
    ["Category", item.category],
    item.answer && ["Version", item.answer.model_version],
    item.part && ["Part", [item.part.id, item.part.decision].filter(Boolean).join(", ")],
    ["Time", item.time.toLocaleString()],
    item.requestId && ["Request id", requestId(item.requestId)],
    item.answer?.id && ["History", h("a", { href: `#/history/${item.answer.id}` }, "Show it in the history")],
  ]));

// Many that came together.

function showMany(items, same) {
  const [worst] = worstFirst(items);
  const done = items.every(isDone);
  const state = done ? "done" : "under way";
  if (!same || !pictured || pictured.one) $("facts").replaceChildren();
  else if (pictured.state === "done" && done) return;
  if (!done && pictured && !pictured.one && (pictured.item === worst || performance.now() - picturedAt < SHOW_MS)) return;
  const item = worst ?? items[0];
  if (pictured?.item !== item || pictured.one) drawPicture(item);
  pictured = { item, state, one: false };
  picturedAt = performance.now();
  $("heat-controls").hidden = !item.localization;
  $("picture-note").textContent = worst ? `The worst${done ? "" : " so far"}: ${worst.name}` : "";
  if (!done) return;
  drawLists(items);
  reveal();
}

function drawLists(items) {
  endFacts();
  const worst = worstFirst(items);
  const failed = items.filter((item) => item.state === "failed");
  const anomalous = worst.filter((item) => item.state === "anomalous").length;
  const doubts = new Map(worst.map((item) => [doubtOf(item.answer)?.title, doubtOf(item.answer)]));
  const howMany = (all) => (all.length > LISTED ? ` (${LISTED} of ${all.length})` : "");
  $("facts").replaceChildren(
    ...[
      h("div", { id: "since" }),
      ...[...doubts.values()].filter(Boolean).map(warning),
      failed.length ? listPanel(`Without a verdict${howMany(failed)}`, "They were not inspected.", failed) : null,
      worst.length ? listPanel(`The worst first${howMany(worst)}`, "The number says how many times the threshold the score is.", worst) : null,
      anomalous > LISTED ? h("button", { className: "quiet", onclick: showWorst }, `Show all ${anomalous} anomalous images`) : null,
    ].filter(Boolean),
  );
}

const listPanel = (title, note, items) =>
  panelOf(title,
    aside(note),
    h("ol", { className: "worst" }, items.slice(0, LISTED).map(row)));

function row(item) {
  const [times, sentence] = item.answer ? timesOf(item.answer) : [null, sentences(item.problem)[0]];
  const picture = h("span", { className: "thumb" });
  if (item.thumbnail) {
    pictures.push(URL.createObjectURL(item.thumbnail));
    picture.append(h("img", { src: pictures.at(-1), alt: "" }));
  }
  const words = h("span", { className: "words" }, h("span", { className: "name" }, item.name), times ? null : h("span", { className: "small muted" }, sentence));
  const { useless, sign, words: verdict } = badgeOf(item);
  const label = `Show ${item.name}, ${verdict}. ${sentence}`;
  return h("li", { "data-state": item.state, "data-useless": useless },
    h("button", { "aria-label": label, onclick: () => (page.pick(item), focusTitle()) }, picture, h("span", { className: "badge" }, icon(sign)), words, times ? h("strong", {}, times) : null));
}

// The picture's controls.

function shade() {
  $("stage").style.setProperty("--heat", $("opacity").value / 100);
  $("stage").classList.toggle("plain", !$("outlines").checked);
}

export function start(given) {
  page = given;
  $("opacity").addEventListener("input", shade);
  $("outlines").addEventListener("change", shade);
  shade();
  zoomable($("stage"));
  zones.start();
}
