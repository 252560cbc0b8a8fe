// The page Part: several pictures of one part, each judged by its category, and one verdict on all of them.

import { Problem, asProblem, call, json } from "./api.js";
import { $, ago, announce, aside, clock, count, focusOn, h, icon } from "./dom.js";
import { sentences } from "./errors.js";
import { forgetPictureIn, showPicture } from "./picture.js";
import { heard, lastSaid, server } from "./server.js";
import { addPart } from "./session.js";
import { doubtOf, isUseless, outdated, ratio } from "./standing.js";
import { drawZones, rejectingZones } from "./zones.js";

const TICK_MS = 1000;
const TITLES = { normal: "PASS", anomalous: "REJECT", incomplete: "INCOMPLETE" };
const ADVICE = {
  normal: "Every picture looks like the good ones.",
  anomalous: "Reject this part, or look at it.",
  incomplete: "This part was not judged whole: it has not passed. Take the pictures without a verdict again.",
};

let cards = []; // what the server lists
let views = []; // {number, name, file, category, state, answer, localization, problem, time}; without a file where one is missing
let verdict = null; // {decision, time}, {problem} or {waiting}; of the views as they are
let numbers = 0;
let turn = 0; // so that an answer that comes late is not shown
let band = "";

export const isOpen = () => !$("page-part").hidden;

/** Asks which cards there are: they may change at any time. */
export async function show() {
  let problem = null;
  try {
    cards = (await json("v1/parts")).parts;
  } catch (error) {
    cards = [];
    problem = error;
  }
  const chosen = $("card").value;
  const name = (one) => (one.status === "ready" ? one.part : `${one.part} (${one.status})`);
  $("card").replaceChildren(
    h("option", { value: "" }, "any: only the pictures here count"),
    ...cards.map((one) => h("option", { value: one.part, disabled: one.status === "refused" }, name(one))),
  );
  $("card").value = cards.some((one) => one.part === chosen) ? chosen : "";
  $("card-choice").hidden = cards.length === 0;
  draw();
  if (problem) $("part-note").textContent = sentences(problem).join(" ");
}

const card = () => cards.find((one) => one.part === $("card").value);
const names = () => card()?.views?.map((one) => one.category) ?? (lastSaid().categories ?? []).filter((one) => one.status === "ready").map((one) => one.category);

/** The category that a file is named after: the longest one that its name begins with; or the only one there is. */
function guess(file) {
  const known = names();
  const meant = known.filter((one) => file.name.toLowerCase().startsWith(one.toLowerCase()));
  return meant.sort((a, b) => b.length - a.length)[0] ?? (known.length === 1 ? known[0] : "");
}

/** Takes pictures of the part that lies there. */
export function take(files) {
  if (!files.length) return;
  views.push(...[...files].map((file) => ({ number: ++numbers, name: file.name || "pasted image", file, category: guess(file), state: "waiting" })));
  changed();
}

/** Other pictures, or other categories: what was said is not said of them. */
function changed() {
  turn += 1;
  verdict = null;
  views = views.filter((one) => one.file).map(({ number, name, file, category }) => ({ number, name, file, category, state: "waiting" }));
  const focused = document.activeElement?.id;
  draw();
  if (focused) focusOn($(focused));
}

async function judge() {
  const mine = ++turn;
  verdict = { waiting: true };
  draw();
  try {
    const form = new FormData();
    for (const { category, file, name } of views) form.append(category, file, name);
    const id = $("part-id").value.trim();
    const query = new URLSearchParams({ ...($("card").value && { part: $("card").value }), ...(id && { part_id: id }) });
    const sent = views;
    const response = await call(`v1/parts/inspect?${query}`, { method: "POST", body: form });
    const answer = await response.json();
    const judged = matched(sent, answer, new Date());
    addPart(judged, { id, answer: answer.id, decision: answer.decision }, response.headers.get("X-Request-ID"));
    if (mine === turn) [verdict, views] = [{ decision: answer.decision, time: judged[0].time }, judged];
  } catch (error) {
    if (mine === turn) verdict = { problem: asProblem(error) };
  }
  if (mine !== turn) return;
  draw();
  announce(spoken());
}

/** The pictures with their answers: those of a category come in the order they were sent, and then what is missing of it. */
function matched(sent, answer, time) {
  const left = [...sent];
  return answer.views.map(({ category, inspection, problem }) => {
    const at = left.findIndex((one) => one.category === category);
    const [one] = at < 0 ? [{ number: ++numbers, name: category, file: null }] : left.splice(at, 1);
    if (problem) return { ...one, category, time, state: "failed", problem: new Problem(problem.type.split(":").pop(), problem.status, problem.detail) };
    const { localization, ...rest } = inspection;
    heard(rest);
    return { ...one, category, time, state: rest.decision, answer: rest, localization };
  });
}

const decided = () => views.filter((one) => one.answer);

function totals() {
  const number = (state) => views.filter((one) => one.state === state).length;
  return `${count(views.length, "view")}: ${number("anomalous")} anomalous, ${number("normal")} normal, ${number("failed")} without a verdict.`;
}

function spoken() {
  if (verdict.problem) return `No verdict. ${sentences(verdict.problem).join(" ")}`;
  return `Part: ${TITLES[verdict.decision]}. ${totals()}`;
}

// What is shown.

function saying() {
  if (verdict.waiting) return { state: "waiting", title: "Judging the part", lines: [] };
  if (verdict.problem) return { state: "failed", title: "No verdict", lines: [...sentences(verdict.problem), verdict.problem.detail].filter(Boolean) };
  const title = TITLES[verdict.decision];
  const why = decided().map((one) => outdated([one], one.category)).find(Boolean);
  if (why) return { state: "outdated", title: "No current verdict", lines: [why.text, `The last one was: ${title}.`] };
  const useless = decided().some(isUseless);
  return {
    state: verdict.decision === "incomplete" ? "failed" : verdict.decision,
    title,
    lines: [ADVICE[verdict.decision], totals()],
    over: useless ? "Do not rely on this." : "",
    useless,
  };
}

/** Brings up to date what the verdict says: it changes with the time and the server too. */
function tell() {
  const place = $("part-verdict");
  place.hidden = !verdict;
  if (!verdict) return (band = "");
  const says = saying();
  const text = JSON.stringify(says);
  if (text !== band) {
    band = text;
    Object.assign(place.dataset, { state: says.state, weak: Boolean(says.useless), useless: Boolean(says.useless), long: says.title.length > 10 });
    place.replaceChildren(
      icon(says.useless ? "failed" : says.state === "outdated" ? "waiting" : says.state),
      h("div", {},
        says.over ? h("p", { className: "over" }, says.over) : null,
        h("h2", {}, says.title),
        says.lines.map((line) => h("p", {}, line)),
        verdict.time ? h("p", { className: "when" }) : null),
    );
  }
  const when = place.querySelector(".when");
  if (when) when.textContent = `${clock(verdict.time)}, ${ago(verdict.time)}`;
}

function note() {
  if (card()?.reason) return card().reason;
  const open = views.filter((one) => !one.category).length;
  if (open) return `Choose the category of ${count(open, "picture")}. A picture whose name begins with the name of its category has it chosen.`;
  const missing = (card()?.views ?? []).map(({ category, images }) => [category, images - views.filter((one) => one.file && one.category === category).length]).filter(([, left]) => left > 0);
  if (missing.length) return `Still missing: ${missing.map(([category, left]) => `${count(left, "picture")} of ${category}`).join(", ")}.`;
  return views.length ? "" : "Each picture is judged by the category that you choose for it. The part is normal only if every picture is.";
}

function draw() {
  $("part-note").textContent = note();
  $("part-judge").disabled = !views.some((one) => one.file) || views.some((one) => !one.category) || Boolean(verdict?.waiting);
  $("part-next").disabled = views.length === 0;
  for (const stage of $("views").querySelectorAll(".stage")) forgetPictureIn(stage);
  $("views").replaceChildren(...views.map(drawView));
  tell();
}

function drawView(view) {
  const stage = h("div", { className: "stage" });
  if (view.file) {
    showPicture(stage, view);
    drawZones(stage, view);
  }
  const choice = h("select", { id: `view-${view.number}`, onchange: ({ target }) => ((view.category = target.value), changed()) },
    h("option", { value: "", disabled: true }, "choose"),
    [...new Set([...names(), ...(view.category ? [view.category] : [])])].map((name) => h("option", { value: name }, name)));
  choice.value = view.category;
  return h("li", { className: "panel", "data-state": view.state, "data-useless": isUseless(view) },
    view.file ? stage : null,
    h("div", { className: "choice" }, h("label", { htmlFor: choice.id }, view.file ? view.name : "Missing"), view.file ? choice : view.category),
    view.answer || view.problem ? h("p", { className: "said" }, icon(isUseless(view) ? "failed" : view.state), wordsOf(view)) : null,
    view.answer && rejectingZones(view.answer) ? h("p", {}, rejectingZones(view.answer)) : null,
    view.problem ? aside(view.problem.detail) : null,
    view.answer && doubtOf(view.answer) ? aside(doubtOf(view.answer).title) : null,
    view.file ? h("button", { className: "quiet", "aria-label": `Remove ${view.name}`, onclick: () => remove(view) }, "Remove") : null);
}

function wordsOf({ answer, problem }) {
  if (problem) return sentences(problem)[0];
  const times = ratio(answer);
  return `${TITLES[answer.decision]}${Number.isFinite(times) ? `, ${times.toFixed(times < 10 ? 2 : 0)} times the threshold` : ""}`;
}

function remove(view) {
  views = views.filter((one) => one !== view);
  changed();
  $("part-files").focus();
}

export function start() {
  $("part-files").addEventListener("change", (event) => {
    take(event.target.files);
    event.target.value = ""; // so that the same file can be chosen again
  });
  $("card").addEventListener("change", changed);
  $("part-id").addEventListener("input", () => verdict && changed());
  $("part-judge").addEventListener("click", judge);
  $("part-next").addEventListener("click", () => {
    views = [];
    $("part-id").value = "";
    changed();
    $("part-files").focus();
  });
  server.addEventListener("change", () => {
    for (const one of views) one.category ||= guess(one.file); // they may have come before the list of categories
    if (isOpen()) verdict ? tell() : draw();
  });
  setInterval(tell, TICK_MS);
  draw();
}
