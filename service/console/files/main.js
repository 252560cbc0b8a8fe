// The page as a whole: which part of it is shown, whether the server is there, and its key.

import { connection, forgetKey, hasKey, json, keyDeclined, openKeyDialog, pause, readiness, untilBack } from "./api.js";
import * as categories from "./categories.js";
import { $, announce, h } from "./dom.js";
import { sentences } from "./errors.js";
import * as inspect from "./inspect.js";
import * as live from "./live.js";

const TITLES = { inspect: "Inspect", categories: "Categories", live: "Live" };
const LOOK_MS = 10_000;

function banner(...content) {
  $("banner").hidden = content.length === 0;
  $("banner").replaceChildren(...content);
}

function state(name, text) {
  $("server-state").dataset.state = name;
  $("server-state").textContent = text;
}

// Pages.

let first = true;

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
  if (shown === "live") live.show();
  if (shown === "categories") categories.show(decodeURIComponent(name));
  if (!first) {
    scrollTo(0, 0);
    $(`title-${shown}`).focus({ preventScroll: true });
  }
  first = false;
}

// The server.

async function refresh() {
  try {
    const { categories: listed } = await json("v1/categories");
    inspect.showCategories(listed);
    const ready = await readiness();
    if (ready === "ready") state("ready", "Ready");
    else state("trouble", ready === "no-category" ? "No category" : "Not ready");
    if (!["ready", "away", "no-category"].includes(ready)) banner(h("strong", {}, sentences({ kind: ready })[0]), ` ${sentences({ kind: ready })[1]}`);
    else banner();
  } catch (problem) {
    const [what, todo] = sentences(problem);
    if (problem.kind === "unreachable") {
      await untilBack();
      return refresh();
    }
    state("trouble", problem.status === 401 ? "Key needed" : "Trouble");
    banner(h("strong", {}, what), ` ${todo}`);
  }
}

connection.addEventListener("gone", () => {
  const [what, todo] = sentences({ kind: "unreachable" });
  state("away", "Not answering");
  banner(h("strong", {}, what), ` ${todo}`);
});
connection.addEventListener("back", () => {
  state("ready", "Ready");
  banner();
  announce("The server is back.");
  refresh();
});
connection.addEventListener("key", () => {
  const button = $("key-button");
  button.hidden = !hasKey() && !keyDeclined();
  button.textContent = hasKey() ? "Forget key" : "Enter key";
});

$("key-button").addEventListener("click", async () => {
  if (hasKey()) forgetKey();
  else await openKeyDialog("It answers only to those who show one.");
  await refresh();
  route();
});

addEventListener("hashchange", route);
addEventListener("offline", () => untilBack());

connection.dispatchEvent(new Event("key"));
inspect.start();
route();
await refresh();
for (;;) {
  await pause(LOOK_MS);
  if (!document.hidden && !document.querySelector("dialog[open]")) await refresh();
}
