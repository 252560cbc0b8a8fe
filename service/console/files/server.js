// What the server last said of itself: whether it answers images, and which categories it has.

import { ANSWER_MS, connection, json, readiness, untilBack } from "./api.js";

/** Tells of `change`. */
export const server = new EventTarget();

let said = { kind: "unknown", status: 0, categories: null, at: 0 };

/** `kind` is `ready` or a kind of problem, with its `status`; `at` is when the server last answered, milliseconds. */
export const lastSaid = () => said;

export const summaryOf = (category) => said.categories?.find((one) => one.category === category);

function say(news) {
  const before = JSON.stringify({ ...said, at: 0 });
  said = { ...said, status: 0, ...news };
  if (JSON.stringify({ ...said, at: 0 }) !== before) server.dispatchEvent(new Event("change"));
}

/** An image was answered: the server is there, and if its version is another one than the list says, the list is old. */
export function heard({ category, model_version: version, threshold }) {
  said.at = Date.now();
  const listed = summaryOf(category);
  if (said.categories && (listed?.model_version !== version || listed.threshold !== threshold)) look();
}

let looking = null;

/** Asks the server. All who ask at the same time share one question. */
export function look() {
  looking ??= ask().finally(() => (looking = null));
  return looking;
}

async function ask() {
  try {
    const { categories } = await json("v1/categories", { limit: ANSWER_MS });
    const kind = await readiness();
    if (kind === "unreachable") untilBack();
    say({ kind, categories, at: kind === "unreachable" ? said.at : Date.now() });
  } catch (problem) {
    if (problem.kind === "unreachable") untilBack(); // asks again when it is over
    say({ kind: problem.kind ?? "console", status: problem.status ?? 0 });
  }
}

connection.addEventListener("gone", () => say({ kind: "unreachable" }));
connection.addEventListener("back", look);
