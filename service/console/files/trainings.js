// Trainings that the server runs: start one, see how far it is, cancel it.

import { ANSWER_MS, json } from "./api.js";
import { change, pathOf, repeat, section, teller, wordsOf } from "./changing.js";
import { announce, ask, count, dated, h, significant } from "./dom.js";
import { asProblem } from "./labels.js";
import { lastSaid, look } from "./server.js";

/** The section of a category: {element, end}. */
export function trainings(category) {
  const told = teller();
  const state = h("div", { className: "stack" });
  const start = h("button", { type: "button", id: "training-start", hidden: true, onclick: begin }, "Train again");
  const cancel = h("button", { type: "button", id: "training-cancel", hidden: true, onclick: stop }, "Cancel the training");
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
      if (kind === "trainings-off") loop.end();
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
    if (focused === start && start.hidden) cancel.focus({ preventScroll: true });
    if (focused === cancel && cancel.hidden) start.focus({ preventScroll: true });
    const elsewhere = running && running.category !== category;
    state.replaceChildren(
      ...(elsewhere ? [h("p", {}, "A training of ", h("a", { href: `#/categories/${encodeURIComponent(running.category)}` }, running.category), " runs, and there is one at a time.")] : []),
      ...(last ? describe(last) : []),
    );
    if (last && last.id === watched && last.status !== "running") {
      watched = "";
      told.say("");
      announce(`The training of ${category}: ${ENDS[last.status]}.`);
      look(); // a candidate may be there
    } else if (last?.status === "running") watched = last.id;
  }

  async function begin() {
    if (await change(start, told, pathOf(category, "trainings"), "POST")) told.say("The training runs. You can leave this page; it goes on.");
    loop.now();
  }

  async function stop() {
    const { id } = running;
    if (!(await ask("Cancel the training?", "What it has learned so far is lost. The version in force stays as it is.", "Cancel the training"))) return;
    await change(cancel, told, `v1/jobs/${id}`, "DELETE");
    loop.now();
  }

  const intro = h("p", { className: "muted" }, "With the same settings, on the original images if the server has them, on uploaded ones, and on kept pictures that are labelled good. The result is a candidate.");
  const element = section("part-training", "Train again", intro, state, h("div", { className: "buttons" }, start, cancel), told.element);
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
    message && status !== "done" ? h("p", { className: "message" }, h("code", {}, message)) : null,
  ].filter(Boolean);
}
