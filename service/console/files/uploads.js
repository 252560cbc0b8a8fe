// Training images of a category: sent one after the other, counted, and removed.

import { ANSWER_MS, Problem, asProblem, json, pause } from "./api.js";
import { change, pathOf, teller, wordsOf } from "./changing.js";
import { ask, count, focusOn, h } from "./dom.js";
import { sentences } from "./errors.js";

const OF_THE_FILE = ["empty-body", "too-many-bytes", "too-many-pixels", "unsupported-media-type", "not-decodable", "decoder-lost", "file-gone"]; // another file may do
const made = new Map(); // category -> what sends its images; it goes on while other pages are looked at

/** {element, busy, read}: `busy` says whether images are being sent. */
export function uploads(category) {
  if (!made.has(category)) made.set(category, make(category));
  const found = made.get(category);
  found.read();
  return found;
}

function make(category) {
  const path = pathOf(category, "training-images");
  const told = teller();
  const there = h("p");
  const bar = h("progress", { "aria-label": "Files that were sent", hidden: true });
  const refused = h("ul", { className: "stack small" });
  const input = h("input", { id: "training-files", type: "file", multiple: true, accept: "image/*", onchange: () => take(input.files) });
  const pick = h("div", { className: "drop" }, h("p", { className: "call" }, "Drop photographs of good parts here"), h("span", { className: "pick" }, input, h("label", { htmlFor: "training-files", className: "button" }, "Choose photographs")));
  const stop = h("button", { hidden: true, onclick: () => stopped.abort() }, "Stop the upload");
  const remove = h("button", { className: "quiet", hidden: true, onclick: empty }, "Remove uploaded images");
  const waiting = [];
  let stopped = null; // while images are sent, what stops them
  pick.take = take;

  const busy = () => Boolean(stopped);
  const say = ({ images, bytes }) => {
    there.textContent = `${count(images, "image is", "images are")} uploaded, ${(bytes / 1e6).toFixed(1)} MB.`;
    remove.hidden = !images || busy();
  };
  const read = () => json(path, { limit: ANSWER_MS }).then(say, (error) => (there.textContent = wordsOf(error)));

  function draw() {
    const focused = document.activeElement;
    pick.hidden = remove.hidden = busy();
    bar.hidden = stop.hidden = !busy();
    if (focused === input || focused === stop) focusOn(busy() ? stop : input);
  }

  /** Sends files, after those that wait already. */
  async function take(files) {
    bar.max = files.length + (busy() && bar.max);
    waiting.push(...files);
    input.value = ""; // so that the same files can be chosen again
    if (busy() || !waiting.length) return;
    stopped = new AbortController();
    const { signal } = stopped;
    bar.value = 0;
    refused.replaceChildren();
    draw();
    told.say("The upload runs. You can look at other pages meanwhile, but keep this tab open.");
    let [done, old, why] = [0, 0, ""];
    while (waiting.length && !why) {
      const { name } = waiting[0];
      try {
        const answer = await send(waiting[0], signal);
        done += 1;
        old += !answer.is_new;
        say(answer);
      } catch (error) {
        const problem = asProblem(error);
        if (signal.aborted) why = "Stopped.";
        else if (problem.status === 429) {
          await pause(1000 * problem.retryAfter);
          continue;
        } else if (OF_THE_FILE.includes(problem.kind)) refused.append(h("li", {}, h("b", {}, name), `: ${wordsOf(problem)}`));
        else why = problem.kind === "unreachable" ? sentences(problem)[0] : `${name}: ${wordsOf(problem)}`;
      }
      waiting.shift();
      bar.value += 1;
    }
    waiting.length = 0;
    stopped = null;
    draw();
    const no = refused.children.length;
    const words = [why, `${done} of ${count(bar.max, "file")} uploaded${old ? `, ${old} of them there before` : ""}.`, no && `${no} refused.`, why && "Choose the same files again to go on: what is there is not stored twice."];
    told.say(words.filter(Boolean).join(" "), Boolean(no || why));
    await read();
  }

  async function send(file, signal) {
    const body = await file.arrayBuffer().catch(() => Promise.reject(new Problem("file-gone")));
    return json(path, { method: "POST", body, headers: { "Content-Type": file.type || "application/octet-stream" }, signal });
  }

  async function empty() {
    if (!(await ask("Remove uploaded images?", `All that were uploaded for ${category} are removed from the server. What was trained on them stays.`, "Remove them"))) return;
    if (await change(remove, told, path, "DELETE")) {
      told.say("They are removed.");
      focusOn(input); // the button goes
    }
    read();
  }

  return { element: h("div", { className: "stack" }, there, pick, bar, h("div", { className: "buttons" }, stop, remove), told.element, refused), busy, read };
}
