// This session's images: sent a few at a time, kept as records, and written out as CSV. Nothing leaves the tab.

import { Problem, asProblem, call, pause, untilBack } from "./api.js";
import { heard } from "./server.js";
import { isDone, ratio } from "./standing.js";

const AT_ONCE = 4;
const TRIES = 3; // of what may pass by itself, other than a full or absent server
export const KEPT = { records: 10_000, pictures: 40 };
const TYPES = ["image/png", "image/jpeg", "image/bmp", "image/tiff", "image/webp"];

/** Tells of `change` (detail: the item) and `count`. Items that are let go have `gone`, and no more is told of them. */
export const session = new EventTarget();
const tell = (name, item) => session.dispatchEvent(new CustomEvent(name, { detail: item }));

export const items = []; // newest last
const waiting = [];
const pictured = []; // answered items that still have their picture
let looked = new Set(); // items whose pictures are kept before all others
let sending = 0;
let numbers = 0;
let stopped = new AbortController();

export const pending = () => waiting.length + sending;

const made = (name, category, more) => ({ number: ++numbers, name, category, time: new Date(), state: "waiting", ...more });

/** Takes images of a category; `localize` is the API's parameter. */
export function add(files, category, localize) {
  const added = [...files].map((file) => made(file.name || "pasted image", category, { file, localize }));
  items.push(...added);
  waiting.push(...added);
  for (const item of added) tell("change", item);
  forgetOldest();
  pump();
  return added;
}

/** Keeps a record of an image that could not even be sent. */
export function addFailed(name, category, problem) {
  const item = made(name, category, { file: null });
  items.push(item);
  fail(item, problem);
  tell("count");
  return [item];
}

/** Keeps records of the views of a part, which were sent and judged together.
 * @param part {id, answer, decision}: what the person calls it, the id of its answer, and the verdict on all views */
export function addPart(views, part, requestId) {
  for (const { name, category, file, state, answer, localization, problem, time } of views) {
    const item = made(name, category, { file, answer, localization, problem, time, part, requestId });
    items.push(item);
    set(item, state);
  }
  forgetOldest();
  tell("count");
}

function forgetOldest() {
  while (items.length > KEPT.records && isDone(items[0])) letGo(items.shift());
}

/** Of these the pictures are kept before all others; where they are too many, of the worst. */
export function keepPicturesOf(group) {
  looked = new Set(group);
}

/** A view of a part is judged with the others, on the page Part. */
export const canBeSentAgain = (item) => item.state === "failed" && item.file !== null && !item.part;

/** Sends failed images again that are still at hand, and returns them. */
export function again(failed) {
  const sent = failed.filter(canBeSentAgain);
  for (const item of sent) {
    Object.assign(item, { state: "waiting", problem: null, requestId: null });
    waiting.push(item);
    tell("change", item);
  }
  pump();
  return sent;
}

/** Gives up what waits. What the server has already is stopped too. */
export function stop() {
  stopped.abort();
  stopped = new AbortController();
  for (const item of waiting.splice(0)) fail(item, new Problem("stopped"));
  tell("count");
}

export function clear() {
  for (const item of items.splice(0)) letGo(item);
  pictured.length = 0;
  stop();
  tell("count");
}

function pump() {
  while (sending < AT_ONCE && waiting.length) {
    const item = waiting.shift();
    sending += 1;
    send(item, stopped.signal).finally(() => {
      sending -= 1;
      pump();
      tell("count");
    });
  }
  tell("count");
}

async function send(item, signal) {
  let tries = 0;
  while (!signal.aborted) {
    try {
      set(item, "sending");
      await inspect(item, signal);
      set(item, item.answer.decision);
      return;
    } catch (error) {
      if (error.name === "AbortError") break;
      const problem = asProblem(error);
      if (problem.kind === "unreachable" || problem.kind === "shutting-down") {
        if ((tries += 1) > TRIES) return fail(item, problem);
        set(item, "waiting");
        await Promise.race([untilBack(), end(signal)]);
      } else if (problem.status === 429 || (["device-lost", "out-of-memory"].includes(problem.kind) && (tries += 1) < TRIES)) {
        set(item, "waiting");
        const seconds = problem.retryAfter * (0.75 + 0.5 * Math.random()); // not all at the same moment
        await Promise.race([pause(1000 * seconds), end(signal)]);
      } else {
        return fail(item, problem);
      }
    }
  }
  fail(item, new Problem("stopped"));
}

const end = (signal) => new Promise((resolve) => (signal.aborted ? resolve() : signal.addEventListener("abort", resolve, { once: true })));

async function inspect(item, signal) {
  let body;
  try {
    body = await item.file.arrayBuffer();
  } catch {
    throw new Problem("file-gone");
  }
  const type = TYPES.includes(item.file.type) ? item.file.type : "application/octet-stream";
  const response = await call(`v1/categories/${encodeURIComponent(item.category)}/inspect?localize=${item.localize}`, {
    method: "POST",
    body,
    headers: { "Content-Type": type },
    signal,
  });
  const { localization, ...answer } = await response.json();
  Object.assign(item, { answer, localization, time: new Date(), requestId: response.headers.get("X-Request-ID") });
  heard(answer);
}

function fail(item, problem) {
  Object.assign(item, { problem, requestId: problem.requestId, time: new Date() });
  set(item, "failed");
}

function set(item, state) {
  if (item.gone) return;
  item.state = state;
  if (item.answer && item.file) pictured.push(item);
  if (pictured.length > KEPT.pictures) forgetPicture();
  tell("change", item);
}

function forgetPicture() {
  const least = (a, b) => (ratio(b.answer) < ratio(a.answer) ? b : a);
  const leaving = pictured.find((item) => !looked.has(item)) ?? pictured.reduce(least);
  pictured.splice(pictured.indexOf(leaving), 1);
  Object.assign(leaving, { file: null, localization: null });
}

function letGo(item) {
  Object.assign(item, { gone: true, file: null, localization: null, thumbnail: null });
}

/** Everything that is known of the session's images, RFC 4180. */
export function csv(listed) {
  const head = ["file", "category", "time", "score", "threshold", "decision", "model_version", "request_id", "error", "calibration", "separates", "part_id", "part_answer", "part_decision"];
  const rows = listed.map((item) => [
    item.name,
    item.category,
    item.time.toISOString(),
    item.answer?.score,
    item.answer?.threshold,
    item.answer?.decision,
    item.answer?.model_version,
    item.requestId,
    item.problem ? [item.problem.kind, item.problem.detail].filter(Boolean).join(": ") : "",
    item.answer?.calibration,
    item.answer?.separates, // empty where no faulty part was ever seen
    item.part?.id,
    item.part?.answer, // the same for all views of a part
    item.part?.decision,
  ]);
  return [head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function cell(value) {
  if (value == null) return "";
  let text = String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`; // or a spreadsheet takes it for a formula
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
