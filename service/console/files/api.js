// The API as the console calls it: keys, problems, and a server that may be gone for a while.

import { $ } from "./dom.js";

const STORED = "eca-inspect-key";
const RETURN_MS = 2000;
export const ANSWER_MS = 15_000; // that long the server may take over a question about itself

/** An error of the contract, or of the way there: `unreachable`, `file-gone`. */
export class Problem extends Error {
  constructor(kind, status = 0, detail = "", requestId = null, retryAfter = 1) {
    super(detail || kind);
    Object.assign(this, { kind, status, detail, requestId, retryAfter });
  }
}

export const asProblem = (error) => (error instanceof Problem ? error : new Problem("console", 0, String(error)));

/** Tells of `gone`, `back` and `key`, so that the page can say so. */
export const connection = new EventTarget();
const tell = (name) => connection.dispatchEvent(new Event(name));

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The answer of a call that went well.
 * @param options of `fetch`, and `limit`: how many milliseconds each attempt may take.
 * @throws {Problem} otherwise. */
export async function call(path, { limit, ...options } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(STORED);
    const headers = { Accept: "application/json", ...options.headers, ...(key && { "X-API-Key": key }) };
    let response;
    try {
      response = await fetch(path, { cache: "no-store", ...(limit && { signal: AbortSignal.timeout(limit) }), ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem("unreachable");
    }
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status === 401 && (await askForKey(key))) continue;
    throw problem;
  }
}

export const json = async (path, options) => (await call(path, options)).json();

async function problemOf(response) {
  const { status, headers } = response;
  const requestId = headers.get("X-Request-ID");
  const retryAfter = Number(headers.get("Retry-After")) || 1;
  try {
    const body = await response.json();
    return new Problem(body.type.split(":").pop(), status, body.detail, requestId, retryAfter);
  } catch {
    // Not the service's own answer, so a proxy's: of 502 to 504 it says that the service behind it is away.
    return new Problem(status >= 502 && status <= 504 ? "unreachable" : `status-${status}`, status, "", requestId, retryAfter);
  }
}

// Keys.

let asking = null;
let declined = false;

export const hasKey = () => sessionStorage.getItem(STORED) !== null;
export const keyDeclined = () => declined;

/** Asks once for all calls that wait; false if the person does not want to, and then does not ask again by itself. */
async function askForKey(sent) {
  if (sessionStorage.getItem(STORED) !== sent) return true; // another call has got one meanwhile
  if (declined) return false;
  asking ??= openKeyDialog(
    sent ? "The server does not know this key. It may have been revoked or mistyped." : "It answers only to those who show one.",
  ).finally(() => (asking = null));
  return asking;
}

export function openKeyDialog(reason) {
  const dialog = $("key-dialog");
  const input = $("key-input");
  $("key-reason").textContent = reason;
  input.value = "";
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    const listeners = new AbortController();
    const { signal } = listeners;
    const end = (key) => {
      listeners.abort();
      dialog.close();
      declined = !key;
      if (key) sessionStorage.setItem(STORED, key);
      input.value = "";
      tell("key");
      resolve(Boolean(key));
    };
    const submit = (event) => {
      event.preventDefault();
      end(input.value.trim());
    };
    $("key-form").addEventListener("submit", submit, { signal });
    $("key-cancel").addEventListener("click", () => end(""), { signal });
    dialog.addEventListener("cancel", (event) => (event.preventDefault(), end("")), { signal });
  });
}

export function forgetKey() {
  sessionStorage.removeItem(STORED);
  declined = false;
  tell("key");
}

// A server that is gone.

let returning = null;

/** Whether images can be answered: `ready`, or the kind of problem that the probe tells. */
export async function readiness() {
  try {
    await call("readyz", { limit: ANSWER_MS });
    return "ready";
  } catch (problem) {
    return problem.kind ?? "console";
  }
}

/** Resolves when the server is there and does not end. All who wait share one probe. */
export function untilBack() {
  returning ??= (async () => {
    tell("gone");
    while (["unreachable", "shutting-down", "device-busy"].includes(await readiness())) await pause(RETURN_MS);
    tell("back");
  })().finally(() => (returning = null));
  return returning;
}
