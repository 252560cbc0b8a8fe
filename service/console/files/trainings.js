// Trainings that the server runs: start one, see how far it is, cancel it.

import { ANSWER_MS, asProblem, json } from "./api.js";
import { change, pathOf, repeat, section, teller, wordsOf } from "./changing.js";
import { announce, ask, count, dated, focusOn, h, significant } from "./dom.js";
import { lastSaid, look, server } from "./server.js";
import { uploads } from "./uploads.js";

/** The section of a category, which may be one that does not exist yet: {element, end}. */
export function trainings(category, fresh) {
  const told = teller();
  const files = uploads(category);
  files.element.hidden = false;
  const verb = fresh ? "Train" : "Train again";
  const teacher = h("input", { type: "text", required: true, value: "compact", maxLength: 64, autocomplete: "off", spellcheck: false });
  const epochs = h("input", { type: "number", required: true, min: 1, value: 300 });
  const state = h("div", { className: "stack" });
  const start = h("button", { type: "submit", id: "training-start", hidden: true }, verb);
  const cancel = h("button", { id: "training-cancel", hidden: true, onclick: stop }, "Cancel the training");
  let running = null; // the job that runs, of whichever category
  let drawn = "";
  let watched = ""; // the id of the job of this category that was seen to run

  async function read() {
    if (lastSaid().kind === "unreachable") return;
    try {
      const { jobs } = await json("v1/jobs", { limit: ANSWER_MS });
      draw(jobs);
    } catch (error) {
      const { kind } = asProblem(error);
      if (kind === "unreachable") return;
      if (kind === "trainings-off") {
        loop.end();
        form.hidden = files.element.hidden = true;
      }
      start.hidden = cancel.hidden = true;
      state.replaceChildren(h("p", {}, wordsOf(error)));
      drawn = "";
    }
  }

  function draw(jobs) {
    running = jobs.find((one) => one.status === "running") ?? null;
    const last = jobs.find((one) => one.category === category) ?? null;
    const now = JSON.stringify([running, last]);
    if (now === drawn) return;
    drawn = now;
    const focused = document.activeElement;
    start.hidden = Boolean(running);
    cancel.hidden = running?.category !== category;
    if (focused === start && start.hidden) focusOn(cancel);
    if (focused === cancel && cancel.hidden) focusOn(start);
    const elsewhere = running && running.category !== category;
    state.replaceChildren(
      ...(elsewhere ? [h("p", {}, "A training of ", h("a", { href: `#/categories/${encodeURIComponent(running.category)}` }, running.category), " runs, and there is one at a time.")] : []),
      ...(last ? describe(last) : []),
    );
    if (last && last.id === watched && last.status !== "running") {
      watched = "";
      told.say("");
      announce(`The training of ${category}: ${ENDS[last.status]}.`);
      look().then(() => server.dispatchEvent(new Event("change"))); // a candidate may be there
    } else if (last?.status === "running") watched = last.id;
  }

  async function begin() {
    if (running) return;
    if (files.busy()) return told.say("Wait until the images are uploaded, or stop the upload.", true);
    const order = fresh && { teacher: teacher.value.trim(), epochs: epochs.valueAsNumber };
    if (await change(start, told, pathOf(category, "trainings"), "POST", order)) told.say("The training runs. You can leave this page; it goes on.");
    loop.now();
  }

  async function stop() {
    const { id } = running;
    if (!(await ask("Cancel the training?", "What it has learned so far is lost. The version in force stays as it is.", "Cancel the training"))) return;
    await change(cancel, told, `v1/jobs/${id}`, "DELETE");
    loop.now();
  }

  const intro = h("p", { className: "muted" }, fresh ? "At least 8 photographs of good parts, usually 100 to 500. The result is a candidate." : "With the same settings, on the original images if the server has them, on uploaded ones, and on kept pictures that are labelled good. The result is a candidate.");
  const form = h("form", { className: "stack", onsubmit: (event) => (event.preventDefault(), begin()) },
    fresh ? [h("label", { className: "small" }, "Teacher; “compact” is always there ", teacher), h("label", { className: "small ways" }, "Epochs, which are passes over the images ", epochs)] : null,
    h("div", { className: "buttons" }, start, cancel));
  const element = section("part-training", fresh ? "Upload and train" : verb, intro, files.element, state, form, told.element);
  const loop = repeat(read, 2000);
  return { element, end: loop.end };
}

const ENDS = { done: "it is done, and its candidate is there", failed: "it failed", cancelled: "it was cancelled", lost: "the server ended meanwhile, so it is lost" };

function describe({ status, started, ended, labelled_images: labelled, uploaded_images: uploaded, with_original_images: originals, epochs, epochs_done: done, loss, model_version: version, message }) {
  const images = [originals && "the original images", uploaded && count(uploaded, "uploaded image"), labelled && count(labelled, "labelled image")].filter(Boolean).join(" and ");
  const lost = loss == null ? "" : `, loss ${significant(loss)}`;
  if (status === "running") {
    const far = epochs ? `epoch ${done} of ${epochs}${lost}` : "it prepares the images";
    return [h("p", {}, `It trains on ${images}, since ${dated(started)}: ${far}.`), h("progress", { "aria-label": "Epochs of the training", ...(epochs && { max: epochs, value: done }) })];
  }
  const epoch = epochs ? ` It did ${done} of ${count(epochs, "epoch")}${lost}.` : "";
  return [
    h("p", {}, `The last training, on ${images}, of ${dated(ended ?? started)}: ${ENDS[status]}${version ? ` (${version})` : ""}.${epoch}`),
    message ? h("pre", {}, message) : null,
  ].filter(Boolean);
}
