// The strip of the session's images: small pictures with their verdicts, filtered, ordered, and as a CSV file.

import { $, count, focusOn, h, icon, save } from "./dom.js";
import { thumbnail } from "./picture.js";
import { KEPT, canBeSentAgain, csv, items, pending } from "./session.js";
import { badgeOf, worstFirst } from "./standing.js";

const FILTERS = ["all", "anomalous", "normal", "failed"];
const SHOWN = 300;

const begun = []; // images that were sent, in that order
const tiles = new Map(); // image of the strip -> its <li>
let marked = null;
let filter = "all";
let pick = null;

const matches = (item) => !item.gone && (filter === "all" || item.state === filter);

export function changed(item) {
  if (item.state === "waiting" || item.begun) return;
  item.begun = true;
  begun.push(item);
  if (!item.file) return;
  thumbnail(item.file).then((picture) => {
    item.thumbnail = item.gone ? null : picture;
    if (tiles.has(item)) illustrate(item, tiles.get(item));
  });
}

/** Marks the image that is shown large, or none. */
export function mark(item) {
  marked = item;
  for (const [one, tile] of tiles) bringUp(one, tile);
  if (!tiles.has(marked)) $("tiles").querySelector("button")?.setAttribute("tabindex", "0");
}

function makeTile(item) {
  const tile = h("li", {}, h("button", { tabIndex: -1, onclick: () => pick(item) }, h("span", { className: "thumb" }), h("span", { className: "badge" }), h("span", { className: "name" }, item.name)));
  tiles.set(item, tile);
  illustrate(item, tile);
  return tile;
}

function illustrate(item, tile) {
  if (!item.thumbnail || tile.url) return;
  tile.url = URL.createObjectURL(item.thumbnail);
  tile.querySelector(".thumb").append(h("img", { src: tile.url, alt: "" }));
}

function bringUp(item, tile) {
  const button = tile.firstChild;
  if (tile.dataset.state !== item.state) {
    tile.dataset.state = item.state;
    const { useless, sign, words } = badgeOf(item);
    tile.dataset.useless = useless;
    button.children[1].replaceChildren(icon(sign));
    button.title = button.ariaLabel = `${item.name}: ${words}`;
  }
  const current = item === marked;
  button.tabIndex = current ? 0 : -1;
  if (current) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
}

/** The images that are wanted, in their order: the newest first, or the worst. */
function wantedItems() {
  const found = begun.filter(matches).reverse();
  if ($("order").value === "newest") return found.slice(0, SHOWN);
  return [...worstFirst(found), ...found.filter((item) => !item.answer)].slice(0, SHOWN);
}

/** Shows the images that match; tiles that stay are not touched, so that they keep the focus. */
function arrange() {
  const wanted = new Set(wantedItems());
  for (const [item, tile] of tiles) {
    if (wanted.has(item)) continue;
    if (tile.url) URL.revokeObjectURL(tile.url);
    tile.remove();
    tiles.delete(item);
  }
  const focused = document.activeElement;
  let next = $("tiles").firstChild;
  for (const item of wanted) {
    const tile = tiles.get(item) ?? makeTile(item);
    if (tile === next) next = next.nextSibling;
    else $("tiles").insertBefore(tile, next);
  }
  if (focused !== document.activeElement) focusOn(focused); // it was moved
  mark(marked);
}

function moveAmongTiles(event) {
  const buttons = [...$("tiles").querySelectorAll("button")];
  const at = buttons.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  buttons[Math.min(Math.max(to, 0), buttons.length - 1)]?.focus();
}

export function recount() {
  const found = { all: items.length, anomalous: 0, normal: 0, failed: 0, waiting: 0, sending: 0 };
  for (const item of items) found[item.state] += 1;
  while (begun[0]?.gone) begun.shift();
  $("strip").hidden = items.length === 0;
  for (const name of FILTERS) $("filter").querySelector(`[value=${name}] + span b`).textContent = found[name].toLocaleString("en");
  const sendable = items.filter(canBeSentAgain).length;
  $("retry").hidden = sendable === 0 || pending() > 0;
  $("retry").textContent = `Send ${sendable} failed again`;
  const all = items.length < KEPT.records ? "all" : `the newest ${KEPT.records.toLocaleString("en")}`;
  $("strip-note").textContent = found[filter] > SHOWN ? `${SHOWN} of ${count(found[filter], "image")} are shown; the CSV file has ${all}.` : "";
  arrange();
}

/** Shows the anomalous images, the worst first. */
export function showWorst() {
  $("filter").querySelector("[value=anomalous]").checked = true;
  filter = "anomalous";
  $("order").value = "worst";
  recount();
  $("strip").scrollIntoView();
  focusOn($("tiles").querySelector("button"));
}

const download = () =>
  save(`inspection-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.csv`, ["\ufeff", csv(items)], "text/csv");

export function start({ pick: picking }) {
  pick = picking;
  $("filter").append(
    ...FILTERS.map((name) =>
      h("label", {}, h("input", { type: "radio", name: "filter", value: name, checked: name === "all", onchange: () => ((filter = name), recount()) }), h("span", {}, `${name[0].toUpperCase()}${name.slice(1)} `, h("b", {}, "0"))),
    ),
  );
  $("order").addEventListener("change", recount);
  $("csv").addEventListener("click", download);
  $("tiles").addEventListener("keydown", moveAmongTiles);
}
