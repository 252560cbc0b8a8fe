// The page Inspect: which category, images in, and which of their verdicts is shown.

import { asProblem, call } from "./api.js";
import { $, announce, ask, count, h, icon } from "./dom.js";
import { add, addFailed, again, clear, items, keepPicturesOf, pending, session, stop } from "./session.js";
import { lastSaid, server, summaryOf } from "./server.js";
import { doubtOf, isDone, outdated } from "./standing.js";
import * as strip from "./strip.js";
import * as verdict from "./verdict.js";

const SAMPLES = { category: "machined-plate", names: ["good", "scratch", "pit", "stain", "dent", "gouge"] };
const CHOSEN = "eca-inspect-category";
const TICK_MS = 1000;

let latest = []; // the images that came last, one or together
let picked = null; // the image that the person looks at instead
let announced = true; // whether the end of the latest has been said
let early = []; // files that came before the list of categories

// Categories.

let listed = null;
let noticed = "";

function showCategories() {
  const { categories } = lastSaid();
  if (!categories || categories === listed) return;
  const before = listed && JSON.stringify(listed.map(marked));
  listed = categories;
  if (JSON.stringify(listed.map(marked)) !== before) listCategories(); // a list that is open is left alone
  const ready = listed.filter((one) => one.status === "ready");
  $("bench").hidden = ready.length === 0 && items.length === 0 && early.length === 0;
  $("no-category").hidden = ready.length > 0;
  if (ready.length === 0) $("no-category").replaceChildren(...nothingReady());
  chosen();
}

const marked = (one) => {
  const mark = one.status === "ready" ? doubtOf(one)?.tag : "refused";
  return [one.category, mark ? `${one.category} (${mark})` : one.category, one.status !== "ready"];
};

/** The chosen category stays chosen, whatever becomes of it: images must not be judged by another one unasked. */
function listCategories() {
  const select = $("category");
  const wanted = select.value || sessionStorage.getItem(CHOSEN);
  const options = [...listed].sort((a, b) => (a.status !== "ready") - (b.status !== "ready")).map(marked);
  if (select.value && !options.some(([name]) => name === wanted)) options.push([wanted, `${wanted} (gone)`, true]);
  select.replaceChildren(...options.map(([value, words, disabled]) => h("option", { value, disabled }, words)));
  select.value = options.some(([name]) => name === wanted) ? wanted : (options.find(([, , disabled]) => !disabled)?.[0] ?? "");
}

function nothingReady() {
  const refused = listed.map((one) => h("li", {}, h("strong", {}, one.category), ` is refused: ${one.reason}`));
  return [
    h("h2", {}, "No category is ready yet"),
    h("p", {}, "A category is what the service has learned about one product. Without one there is nothing to compare a photograph with."),
    refused.length ? h("ul", {}, refused) : h("p", {}, "The server's weights folder holds none."),
    h("p", {}, h("a", { href: "#/categories/?new" }, "Make one from photographs of good parts"), ", or train one on the server; it appears here by itself:"),
    h("pre", {}, "eca-inspect train my-part --normal photos/good"),
  ];
}

/** What is known of the chosen category: why it takes no images, or why its verdicts need care. */
function chosen() {
  const name = $("category").value;
  const summary = summaryOf(name);
  if (name) sessionStorage.setItem(CHOSEN, name);
  $("category-link").href = `#/categories/${encodeURIComponent(name)}`;
  const closed = blocked();
  $("samples").hidden = name !== SAMPLES.category || Boolean(closed);
  for (const id of ["files", "camera"]) $(id).disabled = Boolean(closed);
  if (early.length && listed && !closed) take(early.splice(0));
  const doubt = doubtOf(summary);
  const notice = withEarly(closed) ?? (doubt && [doubt.title, doubt.text]);
  const text = notice?.join(" ") ?? "";
  if (noticed !== text) {
    noticed = text;
    $("notice").hidden = !notice;
    $("notice").dataset.kind = closed ? "closed" : (doubt?.kind ?? "");
    $("notice").replaceChildren(...(notice ? [icon("failed"), h("p", {}, h("strong", {}, notice[0]), h("span", { className: "more" }, ` ${notice[1]}`))] : []));
  }
  verdict.judge();
}

/** Why the chosen category takes no images, or null. */
function blocked() {
  const name = $("category").value;
  const summary = summaryOf(name);
  if (!listed || summary?.status === "ready") return null;
  if (!name) return ["No category is ready.", "Train one, and it appears here by itself."];
  if (!summary) return [`The category ${name} is not there any more.`, "Choose another one."];
  return [`The category ${name} is refused and takes no images.`, `Choose another one, or mend what is wrong: ${summary.reason}`];
}

/** Says so where images wait for the list of categories, or for the choice of one that takes them. */
function withEarly(closed) {
  if (!early.length) return closed;
  const waiting = early.length === 1 ? "1 image waits" : `${early.length} images wait`;
  if (closed) return [closed[0], `${waiting}. ${closed[1]}`];
  return [`${waiting} for the list of categories.`, "The inspection starts as soon as the server has sent it."];
}

// Images come in.

/** Takes images for the chosen category. What comes before the list of categories waits for it. */
export function take(files) {
  if (!files.length) return;
  if (!listed) {
    early.push(...files);
    chosen();
    announce(withEarly(null).join(" "));
  } else if (blocked()) announce(blocked().join(" "));
  else inspect(files, $("category").value);
}

const inspect = (files, category) => begin(add(files, category, $("always").checked ? "always" : "auto"));

/** These came last, so their verdict is what is shown; with those before that are still under way. */
function begin(added) {
  picked = null;
  latest = latest.every(isDone) ? added : [...new Set([...latest, ...added])];
  announced = false;
  keepPicturesOf(latest);
  $("bench").hidden = false;
  $("intake").classList.remove("first");
  draw();
  counted();
}

async function takeSample(name) {
  const category = $("category").value; // another one may be chosen while the picture comes
  try {
    const picture = await (await call(`console/samples/${name}.png`, { headers: { Accept: "image/png" }, cache: "default" })).blob();
    inspect([new File([picture], `${name}.png`, { type: "image/png" })], category);
  } catch (error) {
    begin(addFailed(`${name}.png`, category, asProblem(error)));
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
  $("sample-list").replaceChildren(
    ...SAMPLES.names.map((name) =>
      h("li", {}, h("button", { onclick: () => takeSample(name) }, h("img", { src: `console/samples/${name}.png`, alt: "", width: 96, height: 96, loading: "lazy" }), name)),
    ),
  );
  $("stop").addEventListener("click", stop);
  $("clear").addEventListener("click", async () => {
    const text = `${count(items.length, "image goes", "images go")} from this list. What the server has inspected stays in its history, if it keeps one.`;
    if (!(await ask("Clear the list?", text, "Clear the list", "Keep the list"))) return;
    latest = [];
    picked = null;
    announced = true;
    clear();
    draw();
    $("intake").classList.add("first");
    $("files").focus();
  });
  $("retry").addEventListener("click", () => begin(again(items)));
  session.addEventListener("change", ({ detail }) => changed(detail));
  session.addEventListener("count", counted);
  server.addEventListener("change", showCategories);
  server.addEventListener("change", verdict.follow);
  setInterval(verdict.judge, TICK_MS);
  addEventListener("visibilitychange", verdict.judge);
}

// What is shown.

function draw() {
  verdict.show(picked ? [picked] : latest, Boolean(picked));
  strip.mark(picked ?? (latest.length === 1 ? latest[0] : null));
}

function pick(item) {
  const isCurrent = latest.length === 1 && latest[0] === item && !outdated(latest, $("category").value);
  picked = isCurrent ? null : item;
  draw();
}

function changed(item) {
  strip.changed(item);
  if (item === picked || (!picked && latest.length === 1 && latest[0] === item)) draw();
  counted();
}

let soon = 0;

/** Brings the counts up to date, at most once a frame. */
function counted() {
  soon ||= requestAnimationFrame(() => {
    soon = 0;
    recount();
  });
}

function recount() {
  strip.recount();
  const left = pending();
  const done = latest.filter(isDone).length;
  $("progress").hidden = left === 0 || latest.length < 2;
  $("progress-text").textContent = `${done} of ${count(latest.length, "image")}`;
  $("progress-bar").value = latest.length ? done / latest.length : 0;
  if (!picked && latest.length > 1) draw();
  if (done === latest.length && !announced) {
    announced = true;
    announce(verdict.spoken(latest));
  }
}

export function start() {
  verdict.start({ chosen: () => $("category").value, pick, back: () => ((picked = null), draw()), again: (item) => begin(again([item])), inspect });
  strip.start({ pick });
  listen();
  chosen();
}
