// The page as a whole: which part of it is shown, whether the server is there, and its key.

import { connection, forgetKey, hasKey, keyDeclined, openKeyDialog, pause, untilBack } from "./api.js";
import * as categories from "./categories.js";
import { $, announce, focusOn, h } from "./dom.js";
import { sentences } from "./errors.js";
import * as remembered from "./history.js";
import * as inspect from "./inspect.js";
import * as intake from "./intake.js";
import * as live from "./live.js";
import * as part from "./part.js";
import * as region from "./region.js";
import * as review from "./review.js";
import { lastSaid, look, server } from "./server.js";

const TITLES = { inspect: "Inspect", part: "Part", history: "History", review: "Review", categories: "Categories", region: "Region", live: "Live" };
const LOOK_MS = 5000;

let said = "";

/** What is wrong, and what to do; or nothing. It is said once, however often it is found. */
function banner([what = "", todo = ""]) {
  if (said === `${what} ${todo}`) return;
  said = `${what} ${todo}`;
  $("banner").hidden = !what;
  $("banner").replaceChildren(...(what ? [h("strong", {}, what), ` ${todo}`] : []));
}

function state(name, text) {
  $("server-state").dataset.state = name;
  $("server-state").textContent = text;
}

// Pages.

let first = true;

function decoded(name) {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

function route() {
  const [, page, name = ""] = /^#\/(\w+)\/?(.*)$/.exec(location.hash) ?? [];
  const shown = page in TITLES ? page : "inspect";
  document.title = `${TITLES[shown]} · eca-inspect`;
  for (const one of Object.keys(TITLES)) $(`page-${one}`).hidden = one !== shown;
  for (const link of document.querySelectorAll("[data-page]")) {
    if (link.dataset.page === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  live.end();
  categories.end();
  if (shown !== "history") remembered.end();
  review.end();
  const left = shown === "history" ? remembered.show(name) : null;
  if (shown === "live") live.show();
  if (shown === "part") part.show();
  if (shown === "review") review.show(decoded(name));
  if (shown === "categories") categories.show(decoded(name));
  if (shown === "region") region.show(decoded(name));
  if (left) left.focus();
  else if (!first) {
    scrollTo(0, 0);
    focusOn($(`title-${shown}`));
  }
  first = false;
}

// The server.

function tell() {
  const { kind, status } = lastSaid();
  if (kind === "ready") state("ready", "Ready");
  else if (kind === "unreachable") state("away", "Not answering");
  else if (kind === "no-category") state("trouble", "No category");
  else state("trouble", status === 401 ? "Key needed" : status ? "Trouble" : "Not ready");
  banner(["ready", "no-category"].includes(kind) ? [] : sentences(lastSaid()));
}

server.addEventListener("change", tell);
connection.addEventListener("back", () => announce("The server is back."));
connection.addEventListener("key", () => {
  const button = $("key-button");
  button.hidden = !hasKey() && !keyDeclined();
  button.textContent = hasKey() ? "Forget key" : "Enter key";
});

$("key-button").addEventListener("click", async () => {
  if (hasKey()) forgetKey();
  else await openKeyDialog("It answers only to those who show one.");
  await look();
  route();
});

/** Pictures that come from anywhere belong to the page that is shown where it takes some, else they are to be inspected. */
intake.start((files, at) => {
  const own = at?.closest(".drop")?.take;
  if (own) return own(files);
  const taker = [part, region].find((page) => page.isOpen());
  if (taker) return taker.take(files);
  location.hash = "#/inspect";
  inspect.take(files);
});

addEventListener("hashchange", route);
addEventListener("offline", () => untilBack());

addEventListener("visibilitychange", () => document.hidden || look());
addEventListener("pageshow", ({ persisted }) => persisted && look());

connection.dispatchEvent(new Event("key"));
inspect.start();
part.start();
region.start();
remembered.start();
review.start();
route();
await look();
for (;;) {
  await pause(LOOK_MS);
  const idle = document.hidden || document.querySelector("dialog[open]") || lastSaid().kind === "unreachable"; // its end looks
  if (!idle) await look();
}
