// The candidate of a category, compared on live pictures with the version in force.

import { ANSWER_MS, asProblem, json } from "./api.js";
import { change, pathOf, repeat, section, teller, wordsOf } from "./changing.js";
import { announce, aside, ask, count, dated, focusOn, h, heads, percent, record, significant } from "./dom.js";
import { LABELS, pictureOf, remembered } from "./labels.js";
import { wordOf } from "./panels.js";
import { lastSaid, server, summaryOf } from "./server.js";

const FIRST = 12; // changed decisions that are shown without asking
const SMALL = 96; // pixels

/** The section of a category, which may be one that does not exist yet: {element, end}. */
export function candidate(category, fresh) {
  const told = teller();
  const body = h("div", { className: "stack" });
  const list = h("ul", { className: "changed", "aria-label": "Changed decisions, newest first" });
  const more = h("button", { className: "quiet", hidden: true, onclick: () => ((all = true), drawList()) });
  const promote = h("button", { id: "candidate-promote", className: "primary", hidden: true, onclick: put }, "Put it in force");
  const drop = h("button", { id: "candidate-drop", hidden: true, onclick: take }, "Drop it");
  const rows = new Map(); // id -> the row, so that its picture is asked for once
  let found = null;
  let drawn = "";
  let all = false;

  async function read() {
    if (lastSaid().kind === "unreachable") return;
    try {
      found = fresh || summaryOf(category)?.candidate ? await json(pathOf(category, "candidate"), { limit: ANSWER_MS }) : null;
    } catch (error) {
      if (asProblem(error).kind === "unreachable") return;
      found = ["no-candidate", "unknown-category"].includes(asProblem(error).kind) ? null : { problem: wordsOf(error) };
    }
    const now = JSON.stringify(found);
    if (now === drawn) return;
    const before = drawn && JSON.parse(drawn);
    drawn = now;
    draw();
    if (before === null && found?.model_version) announce(`${category} has the candidate ${found.model_version} now.`);
    if (before?.status === "scoring" && found?.status === "complete") announce(`The candidate has scored all ${count(found.wanted, "inspection")}.`);
  }

  function draw() {
    const focused = document.activeElement;
    body.replaceChildren(...describe(found, fresh));
    promote.hidden = !found?.model_version || found.status === "refused";
    drop.hidden = !found || Boolean(found.problem);
    drawList();
    if (focused.isConnected && focused !== document.activeElement) focusOn(focused);
  }

  function drawList() {
    const changed = found?.comparison?.changed ?? [];
    const shown = all ? changed : changed.slice(0, FIRST);
    list.replaceChildren(
      ...shown.map((one) => {
        const said = JSON.stringify(one);
        const kept = rows.get(one.id);
        if (kept?.said !== said) rows.set(one.id, { said, element: row(one, kept?.element.querySelector(".thumb")) });
        return rows.get(one.id).element;
      }),
    );
    more.hidden = shown.length === changed.length;
    more.textContent = `Show all ${changed.length}`;
  }

  function done(text) {
    told.say(text);
    focusOn(element.querySelector("h3")); // the buttons go
  }

  const version = () => (found.model_version ? `?version=${encodeURIComponent(found.model_version)}` : "");

  async function put() {
    const { labelled } = found.comparison ?? {};
    const untold = found.status === "scoring" ? ` It has scored only ${found.scored} of ${found.wanted} inspections.` : "";
    const unproven = labelled && labelled.proven !== "candidate" ? " The labels do not show that it is better." : "";
    if (!(await ask("Put the candidate in force?", `Version ${found.model_version} then decides about every part of ${category}.${untold}${unproven}${fresh ? "" : " The version of now is kept: you can go back to it."}`, "Put it in force"))) return;
    const name = found.model_version;
    if (await change(promote, told, pathOf(category, `candidate/promote${version()}`), "POST")) done(`${name} is in force now.${fresh ? "" : " The version before is kept: see Versions."}`);
    loop.now();
  }

  async function take() {
    if (!(await ask("Drop the candidate?", `Its files are removed from the server${found.model_version ? `, and ${found.model_version} cannot be brought back` : ""}.${fresh ? "" : " The version in force stays as it is."}`, "Drop it"))) return;
    if (await change(drop, told, pathOf(category, `candidate${version()}`), "DELETE")) done("The candidate is dropped.");
    loop.now();
  }

  const element = section("part-candidate", fresh ? "Candidate" : "Candidate in the shadow", body, list, more, h("div", { className: "buttons" }, promote, drop), told.element);
  const loop = repeat(read, fresh ? 60_000 : 3000); // one that comes of a training here is told of
  server.addEventListener("change", loop.now);
  const end = () => (loop.end(), server.removeEventListener("change", loop.now));
  return { element, end };
}

function describe(found, fresh) {
  if (!found && fresh) return [h("p", { className: "muted" }, "There is none yet.")];
  if (!found) return [h("p", { className: "muted" }, "There is none. “Train again” makes one, and so does “eca-inspect train --candidate”. It then scores what is inspected anyway, and decides nothing.")];
  if (found.problem) return [h("p", {}, found.problem)];
  if (found.status === "refused") return [h("p", {}, `The candidate cannot be used. ${fresh ? "" : "The version in force goes on. "}The reason:`), h("p", {}, h("code", {}, found.reason))];
  const { comparison, error_rates: rates, training, scored, wanted, skipped, failed } = found;
  const words = {
    alone: "There is no version in force to compare it with. How many faulty parts it finds is not known: it has seen none.",
    off: "Nothing is compared: the server keeps no history, or INSPECT_SHADOW_INSPECTIONS is 0.",
    scoring: `${scored.toLocaleString("en")} of ${count(wanted, "inspection")} scored. It decides nothing.`,
    complete: `It has scored all ${count(wanted, "inspection")} that it was to score. It decides nothing.`,
  }[found.status];
  const lost = [skipped && `${count(skipped, "image was", "images were")} left out because the server was busy`, failed && `it failed on ${count(failed, "image")}`].filter(Boolean).join("; ");
  return [
    h("p", {}, words),
    found.status === "scoring" ? h("progress", { max: wanted, value: scored, "aria-label": "Inspections that the candidate has scored" }) : null,
    lost && aside(`${lost[0].toUpperCase()}${lost.slice(1)}.`),
    record([
      ["Version", found.model_version],
      ["Threshold", significant(found.threshold, 5)],
      ["Trained on", `${count(training.images, "image")}, and ${training.held_out} held out; ${count(training.epochs, "epoch")}`],
    ]),
    h("p", {}, rates.text),
    ...(comparison ? compared(comparison) : []),
  ].filter(Boolean);
}

function compared({ inspections, agreement, to_anomalous: stricter, to_normal: milder, labelled, changed }) {
  if (!inspections) return [h("p", {}, "No inspection has been judged by both yet.")];
  const cell = (part, whole) => h("td", {}, whole ? `${part} of ${whole} (${percent(part / whole)})` : "none labelled");
  const line = (name, whole, ...parts) => h("tr", {}, h("th", { scope: "row" }, name), parts.map((part) => cell(part, whole)));
  return [
    h("p", {}, `Both have judged ${count(inspections, "inspection")} and agree on ${percent(agreement)}. Only the candidate rejects ${stricter}, only the version in force rejects ${milder}.`),
    h("table", { className: "costs" }, heads("", "in force", "candidate"),
      h("tbody", {},
        line("False alarms", labelled.normal, labelled.false_alarms, labelled.candidate_false_alarms),
        line("Misses", labelled.anomalous, labelled.misses, labelled.candidate_misses))),
    h("p", {}, proof(labelled)),
    changed.length ? h("p", {}, h("strong", {}, "Changed decisions: look at these, and label them")) : null,
  ];
}

/** McNemar's test in plain words. */
function proof({ normal, anomalous, only_in_force_right: old, only_candidate_right: fresh, p_value: p, proven }) {
  if (!(normal + anomalous)) return "None of them is labelled yet, so nobody knows which version is right. Label the changed ones, all of them.";
  if (!(old + fresh)) return `On the ${count(normal + anomalous, "labelled one")} both are right equally often.`;
  const share = p < 0.001 ? "less than 0.1 %" : percent(p);
  const found = `Of the labelled ones, only the candidate is right about ${fresh}, and only the version in force about ${old}. Two equally good versions would differ so much in ${share} of such comparisons`;
  return proven ? `${found}: the ${proven === "candidate" ? proven : "version in force"} is better, and that is hardly chance.` : `${found}, so it may be chance. Label more.`;
}

function row(one, thumb) {
  const scores = (score, threshold) => `${significant(score)} / ${significant(threshold)}`;
  const [old, fresh] = [wordOf(one), wordOf({ decision: one.candidate_decision })];
  const label = LABELS[one.label] ?? "not labelled";
  const place = thumb ?? h("span", { className: "thumb" });
  if (!thumb) illustrate(place, one.id);
  return h("li", {}, h("a", { href: `#/history/${one.id}`, "aria-label": `In force ${old}, candidate ${fresh}, ${label}, ${dated(one.time)}` }, place,
    h("span", {}, h("b", {}, `${old} → ${fresh}`), h("small", {}, `${scores(one.score, one.threshold)} → ${scores(one.candidate_score, one.candidate_threshold)}`), h("small", {}, `${label}, ${dated(one.time)}`))));
}

/** A small picture, if it is kept. Without it the row says enough. */
async function illustrate(place, id) {
  const detail = await remembered(id).catch(() => null);
  if (!detail?.detail.image.kept) return;
  const png = await pictureOf({ id }, null, SMALL).catch(() => null);
  if (!png) return;
  const src = URL.createObjectURL(png);
  place.append(h("img", { src, alt: "", onload: () => URL.revokeObjectURL(src) }));
}
