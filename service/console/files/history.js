// The page History: the inspections that the server remembers, filtered as the address says, and one of them in detail.

import { ANSWER_MS, asProblem, call, json } from "./api.js";
import { $, announce, aside, count, dated, h, icon, save, significant } from "./dom.js";
import { sentences } from "./errors.js";
import { LABELS, pictureOf, remembered } from "./labels.js";
import { timesOf, wordOf } from "./panels.js";
import * as past from "./past.js";
import { lastSaid, server } from "./server.js";

const PAGE = 100; // rows; no more than these are in the page
const LOOK_MS = 5000;
const FIELDS = ["part_id", "category", "decision", "label", "lot", "station", "since", "until"]; // of the form
const LINKED = { sha256: "The same image as", part_inspection: "Views of the part", model_version: "Version" }; // links ask for them
const TIMES = ["since", "until"];

let query = ""; // what the address asks for: filters, and where the page begins
let list = null; // {query, inspections, next, partial} as the server answered; partial: it begins at an inspection that a link named
let opened = null; // the id of the inspection that is shown
let turn = 0; // so that an answer that comes late is not shown
let wrong = null; // the problem that stands in the place of what was asked for
let came = 0; // inspections that the list does not have yet
const newer = new Map(); // a page -> the one it was reached from

export const isOpen = () => !$("page-history").hidden;

/** Shows what the address asks for: `ID?filters` or `?filters`. Returns the element that the person was at, if there is one. */
export function show(name) {
  const [id, asked = ""] = name.split("?", 2);
  const before = opened;
  query = known(asked);
  opened = id || null;
  turn += 1;
  past.end();
  $("history-list").hidden = Boolean(opened);
  $("history-detail").hidden = $("history-steps").hidden = !opened;
  if (opened) {
    open();
    return null;
  }
  const field = $("history-form").contains(document.activeElement) ? document.activeElement : null;
  fill();
  if (before && list?.query === query && !list.partial && !wrong) {
    drawRows();
    return linkOf(before);
  }
  load();
  return field;
}

/** The page is left. */
export function end() {
  turn += 1;
  opened = null;
  past.end();
}

/** The parameters that this page knows, in a fixed order. */
function known(text) {
  const given = new URLSearchParams(text);
  return String(new URLSearchParams([...FIELDS, ...Object.keys(LINKED), "cursor"].map((name) => [name, given.get(name)]).filter(([, value]) => value)));
}

const at = (id, filters) => `#/history${id ? `/${id}` : ""}${filters ? `?${filters}` : ""}`;
const changed = (changes) => {
  const filters = new URLSearchParams(query);
  for (const [name, value] of Object.entries(changes)) value ? filters.set(name, value) : filters.delete(name);
  return known(String(filters));
};

const find = (filters, more) => json(`v1/inspections?${new URLSearchParams([...new URLSearchParams(filters), ...Object.entries(more)])}`, { limit: ANSWER_MS });

// The form.

function fill() {
  const filters = new URLSearchParams(query);
  listCategories();
  for (const name of FIELDS) $(`find-${name}`).value = TIMES.includes(name) ? localTime(filters.get(name)) : (filters.get(name) ?? "");
  $("find-linked").replaceChildren(
    ...Object.entries(LINKED).filter(([name]) => filters.has(name)).map(([name, words]) =>
      h("li", {}, `${words} ${filters.get(name).slice(0, 16)} `, h("a", { href: at("", changed({ [name]: null, cursor: null })) }, "Remove"))),
  );
  $("find-all").hidden = !query;
}

function listCategories() {
  const names = new Set((lastSaid().categories ?? []).map(({ category }) => category));
  const chosen = new URLSearchParams(query).get("category");
  if (chosen) names.add(chosen); // it may not be served any more
  const wanted = ["", ...names];
  const select = $("find-category");
  if (wanted.join("\n") === [...select.options].map(({ value }) => value).join("\n")) return;
  select.replaceChildren(...wanted.map((value) => h("option", { value }, value || "any")));
  select.value = chosen ?? "";
}

/** A time of the address as the field has it, in the time zone of this computer; nothing if it is none. */
function localTime(text) {
  const time = new Date(text ?? NaN);
  if (Number.isNaN(time.getTime())) return "";
  return new Date(time.getTime() - 60_000 * time.getTimezoneOffset()).toISOString().slice(0, 16);
}

function search() {
  const changes = { cursor: null };
  for (const name of FIELDS) {
    const value = $(`find-${name}`).value.trim();
    changes[name] = value && TIMES.includes(name) ? new Date(value).toISOString() : value;
  }
  const wanted = at("", changed(changes));
  if (location.hash === wanted) load();
  else location.hash = wanted;
}

// The list.

async function load() {
  const mine = ++turn;
  const asked = query;
  $("history-found").setAttribute("aria-busy", "true");
  try {
    const found = await find(asked, { limit: PAGE });
    if (mine !== turn) return;
    list = { query: asked, ...found };
    fine();
    drawRows();
    announce(saying());
  } catch (error) {
    if (mine === turn) tellProblem(asProblem(error));
  }
  if (mine === turn) $("history-found").removeAttribute("aria-busy");
}

function saying() {
  const { inspections, next } = list;
  if (!inspections.length) return query ? "Nothing found." : "The server has no inspections yet.";
  const [newest, oldest] = [inspections[0], inspections.at(-1)];
  const times = inspections.length > 1 ? `, ${dated(newest.time)} back to ${dated(oldest.time)}` : "";
  const rest = next ? "There are older ones." : "There are no older ones.";
  return `${count(inspections.length, "inspection")}${times}. ${rest}`;
}

function drawRows() {
  came = 0;
  const { inspections, next } = list;
  const cursor = new URLSearchParams(query).get("cursor");
  $("history-said").textContent = saying();
  $("history-head").hidden = !inspections.length;
  $("history-rows").replaceChildren(...inspections.map(row));
  seen.disconnect();
  for (const place of $("history-rows").querySelectorAll(".thumb[data-id]")) seen.observe(place);
  $("history-csv").hidden = !inspections.length;
  $("history-rows").querySelector("a")?.setAttribute("tabindex", "0");
  link("history-newest", cursor && at("", changed({ cursor: null })));
  link("history-newer", newer.has(query) && at("", newer.get(query)));
  const older = next && changed({ cursor: next });
  if (older) newer.set(older, query);
  link("history-older", older && at("", older));
  tellNews("");
}

function link(id, href) {
  $(id).hidden = !href;
  if (href) $(id).href = href;
}

const linkOf = (id) => [...$("history-rows").querySelectorAll("a")].find((one) => one.dataset.id === id) ?? null;

function row(one) {
  const state = one.decision ?? "failed";
  const verdict = wordOf(one);
  const why = one.decision ? null : sentences({ kind: one.outcome })[0];
  const score = one.decision && `score ${significant(one.score)}, threshold ${significant(one.threshold)}`;
  const label = LABELS[one.label];
  const names = [["part", one.part_id], ["lot", one.lot], ["station", one.station]];
  const words = [verdict, why, dated(one.time), one.category, score, ...names.map(([name, value]) => value && `${name} ${value}`), label && `label ${label}`];
  const cell = (name, ...children) => h("span", { className: name }, ...children);
  return h("li", { "data-state": state },
    h("a", { href: at(one.id, query), tabIndex: -1, "data-id": one.id, "aria-label": words.filter(Boolean).join(", ") },
      cell("said", h("span", { className: "thumb", "data-id": one.image.kept ? one.id : null }), icon(state), cell("", verdict, why ? h("small", {}, why) : null)),
      cell("time", dated(one.time)),
      cell("", one.category),
      cell("score", one.decision ? [h("b", {}, timesOf(one)[0]), h("small", {}, `${significant(one.score)} / ${significant(one.threshold)}`)] : null),
      ...names.map(([name, value]) => cell(`of ${name}`, value)),
      cell("label", label)));
}

const SMALL = 96; // pixels
const seen = new IntersectionObserver((entries) => entries.filter((one) => one.isIntersecting).forEach(({ target }) => illustrate(target)));

/** A small picture, once its row is seen. Without it the row says enough. */
async function illustrate(place) {
  seen.unobserve(place);
  const png = await pictureOf(place.dataset, null, SMALL).catch(() => null);
  if (!png) return;
  const src = URL.createObjectURL(png);
  place.append(h("img", { src, alt: "", onload: () => URL.revokeObjectURL(src) }));
}

async function download() {
  announce("The file is on its way.");
  try {
    const file = await (await call(`v1/inspections/export?${changed({ cursor: null })}`, { headers: { Accept: "text/csv" } })).blob();
    save(`inspections-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.csv`, [file], "text/csv");
  } catch (error) {
    tellProblem(asProblem(error));
  }
}

function moveAmongRows(event) {
  const links = [...$("history-rows").querySelectorAll("a")];
  const from = links.indexOf(document.activeElement);
  const to = { ArrowDown: from + 1, ArrowUp: from - 1, Home: 0, End: links.length - 1 }[event.key];
  if (from < 0 || to === undefined) return;
  event.preventDefault();
  links[from].tabIndex = -1;
  const next = links[Math.min(Math.max(to, 0), links.length - 1)];
  next.tabIndex = 0;
  next.focus();
}

// What has come since. Nothing moves before the person asks for it.

async function lookForNew() {
  const [newest] = list.inspections;
  const mine = turn;
  try {
    const found = await find(newest ? changed({ since: newest.time }) : query, { limit: PAGE });
    if (mine !== turn) return;
    const shown = new Set(list.inspections.map(({ id }) => id));
    const before = came;
    came = found.inspections.filter(({ id }) => !shown.has(id)).length;
    tellNews(came ? `${came < PAGE ? came : `${PAGE} or more`} new` : "");
    if (came && !before) announce("New inspections have come.");
  } catch (error) {
    if (mine === turn) tellNews("", asProblem(error));
  }
}

function tellNews(words, problem = null) {
  $("history-new").hidden = !words;
  $("history-new").textContent = `Show ${words}`;
  $("history-stale").hidden = !problem;
  $("history-stale").textContent = problem ? `${sentences(problem)[0]} What is shown may be old.` : "";
}

async function showNew() {
  await load();
  $("history-rows").querySelector("a")?.focus();
}

// One inspection.

async function open() {
  const mine = turn;
  const id = opened;
  $("history-back").href = at("", query);
  loading(true);
  step();
  try {
    const { detail, etag } = await remembered(id);
    if (mine !== turn) return;
    fine();
    past.draw($("history-detail"), detail, etag);
    if (list?.query !== query || place() < 0) await findAround(detail, mine);
  } catch (error) {
    if (mine === turn) tellProblem(asProblem(error));
  }
  if (mine !== turn) return;
  loading(false);
  step();
}

/** While another inspection is on its way, nothing of the one that is still shown can be pressed. */
function loading(is) {
  $("history-detail").setAttribute("aria-busy", String(is));
  $("history-detail").inert = is;
}

/** A link has brought the person here: which inspections are beside this one? */
async function findAround({ id, time }, mine) {
  let found = { query, ...(await find(query, { limit: PAGE })) };
  if (!found.inspections.some((one) => one.id === id)) {
    const until = new Date(new Date(time).getTime() + 1).toISOString();
    found = { query, partial: true, ...(await find(changed({ until, cursor: null }), { limit: PAGE })) };
  }
  if (mine === turn) list = found;
}

const place = () => list?.inspections.findIndex(({ id }) => id === opened) ?? -1;

/** Says which steps there are. */
function step() {
  const index = place();
  $("history-left").disabled = index < 0 || (index === 0 && Boolean(list.partial));
  $("history-right").disabled = index < 0 || (index === list.inspections.length - 1 && !list.next);
}

/** Shows the inspection beside this one, if need be of the page beside this one. Back still leads to the list. */
async function go(by) {
  const button = $(by < 0 ? "history-left" : "history-right");
  if (button.disabled) return;
  const wanted = place() + by;
  if (list.inspections[wanted]) return location.replace(at(list.inspections[wanted].id, query));
  const mine = turn;
  const other = by > 0 ? changed({ cursor: list.next }) : (newer.get(list.query) ?? query);
  try {
    const found = await find(other, { limit: PAGE });
    if (mine !== turn) return;
    if (by > 0) newer.set(other, list.query);
    list = { query: other, ...found };
    const again = place(); // new ones may have come before it
    const next = again >= 0 ? list.inspections[again + by] : list.inspections.at(by > 0 ? 0 : -1);
    if (next) location.replace(at(next.id, other));
    else announce(by < 0 ? "This is the newest one." : "This is the oldest one.");
  } catch (error) {
    if (mine === turn) tellProblem(asProblem(error));
  }
}

// Problems.

function fine() {
  wrong = null;
  $("history-problem").hidden = true;
  $("history-found").hidden = false;
}

/** Says why nothing is shown, and what to do. What passes is tried again by itself. */
function tellProblem(problem) {
  const [what, todo] = problem.kind === "invalid-request" ? ["The server cannot search for this.", "Correct the filters, or remove them."] : sentences(problem);
  const said = `${what} ${problem.detail}`;
  const place = $("history-problem");
  if (!wrong || place.dataset.said !== said) {
    announce(`${what} ${todo}`);
    place.dataset.said = said;
    place.replaceChildren(
      h("h2", {}, what),
      h("p", {}, todo),
      problem.detail ? aside(`The server says: ${problem.detail}`) : "",
      h("button", { className: "quiet", onclick: retry }, "Try again"));
  }
  wrong = problem;
  place.hidden = false;
  $("history-found").hidden = true;
  $("history-detail").replaceChildren();
}

const passes = ({ status }) => status === 0 || status >= 500;

const retry = () => {
  turn += 1;
  return opened ? open() : load();
};

function tick() {
  if (!isOpen() || document.hidden || document.querySelector("dialog[open]")) return;
  if (wrong) passes(wrong) && retry();
  else if (!opened && list?.query === query && !new URLSearchParams(query).has("cursor")) lookForNew();
}

function pressed(event) {
  const { target, key } = event;
  if (!isOpen() || !opened || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
  if (target.closest("input, select, textarea, dialog, .scroll")) return;
  const by = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (by) {
    event.preventDefault();
    go(by);
  } else past.pressed(event);
}

export function start() {
  $("history-form").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  for (const name of ["category", "decision", "label"]) $(`find-${name}`).addEventListener("change", search);
  $("history-rows").addEventListener("keydown", moveAmongRows);
  $("history-csv").addEventListener("click", download);
  $("history-new").addEventListener("click", showNew);
  $("history-left").addEventListener("click", () => go(-1));
  $("history-right").addEventListener("click", () => go(1));
  addEventListener("keydown", pressed);
  past.start({ labelled: (id, label) => list?.inspections.filter((one) => one.id === id).forEach((one) => (one.label = label)) });
  server.addEventListener("change", () => isOpen() && !opened && listCategories());
  setInterval(tick, LOOK_MS);
}
