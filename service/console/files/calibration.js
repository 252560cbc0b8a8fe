// A new threshold from the labels of the history: first tried, then put in force.

import { change, pathOf, section, teller } from "./changing.js";
import { aside, count, dated, focusOn, h, heads, significant } from "./dom.js";
import { METHODS } from "./versions.js";

/** The section of a category: {element, update, end}. */
export function calibration(category) {
  const told = teller();
  const result = h("div", { className: "stack" });
  const choice = (value, ...words) => h("label", { className: "check" }, h("input", { type: "radio", name: "calibration-way", value, checked: value === "youden" }), h("span", {}, words));
  const number = (id, name, more) => h("input", { id, type: "number", "aria-label": name, step: "any", min: 0, ...more });
  const share = number("calibration-share", "False alarms, percent", { value: 5, max: 100 });
  const threshold = number("calibration-threshold", "Threshold");
  const sure = h("input", { type: "checkbox" });
  const reason = h("input", { id: "calibration-reason", type: "text", maxLength: 2000, autocomplete: "off" });
  const attempt = h("button", { type: "submit", id: "calibration-try" }, "Try it, change nothing");
  const put = h("button", { id: "calibration-put", className: "primary", hidden: true, onclick: serve }, "Put it in force");
  const form = h("form", { className: "stack", noValidate: true, onsubmit: (event) => (event.preventDefault(), dry()), oninput: forget },
    h("fieldset", { className: "ways" }, h("legend", { className: "small muted" }, "The threshold is to be"),
      choice("youden", "where the fewest parts are judged wrongly (Youden index); it takes good and faulty parts"),
      choice("alarms", "where at most ", share, " % of good parts are rejected"),
      h("label", { className: "check indented" }, sure, "with 95 % confidence, not on average"),
      choice("manual", "exactly ", threshold, ", which a person chose")),
    h("label", { className: "small" }, "Why, for the log of changes ", reason),
    h("div", { className: "buttons" }, attempt, put));
  let before = null; // the card in force
  let tried = null; // the order that was tried

  function order() {
    const way = form.elements["calibration-way"].value;
    const why = reason.value.trim();
    const orders = { youden: { method: "youden" }, alarms: { max_false_alarms: share.valueAsNumber / 100, with_confidence: sure.checked }, manual: { threshold: threshold.valueAsNumber } };
    return { ...orders[way], ...(why && { reason: why }) };
  }

  /** What was tried is no longer what the form says. */
  function forget({ target } = {}) {
    if (target === reason) return;
    const way = target?.type === "number" && target.closest("label").querySelector("[type=radio]");
    if (way) way.checked = true;
    tried = null;
    put.hidden = true;
    result.replaceChildren();
    told.say("");
  }

  function wrong() {
    const way = form.elements["calibration-way"].value;
    const value = way === "alarms" ? share.valueAsNumber : threshold.valueAsNumber;
    if (way === "alarms" && !(value > 0 && value < 100)) return "The share must be above 0 % and below 100 %.";
    return way === "manual" && !(value > 0) ? "The threshold must be a number above 0." : "";
  }

  async function dry() {
    forget();
    if (wrong()) return told.say(wrong(), true);
    const asked = order();
    const found = await change(attempt, told, pathOf(category, "calibrations"), "POST", { ...asked, dry_run: true });
    if (!found) return;
    tried = asked;
    result.replaceChildren(...describe(found));
    if (before?.calibration.review && !found.review) result.append(h("p", {}, "The review band of the version in force goes: this page sets none."));
    put.hidden = false;
    told.say(`Tried, nothing is changed. The threshold would be ${significant(found.threshold, 4)}.`);
  }

  async function serve() {
    const why = reason.value.trim();
    if ("threshold" in tried && !why) {
      reason.focus();
      return told.say("Write why, for the log of changes: a threshold that a person chooses needs it.", true);
    }
    const made = await change(put, told, pathOf(category, "calibrations"), "POST", { ...tried, ...(why && { reason: why }) });
    if (!made) return;
    forget();
    told.say(`The threshold ${significant(made.threshold, 4)} is in force, as version ${made.model_version}. The version before is kept: see Versions.`);
    focusOn(attempt);
  }

  function update({ card }) {
    if (before && card && card.model_version !== before.model_version && tried) forget(); // it was tried on another version
    before = card;
    if (card && !threshold.value) threshold.value = Number(card.calibration.threshold.toPrecision(5));
  }

  const intro = h("p", { className: "muted" }, "From the inspections that people labelled good or faulty. ", h("a", { href: `#/review/?category=${encodeURIComponent(category)}&order=random` }, "Label some"), ": all pictures that are kept, or some of them by chance.");
  return { element: section("part-calibration", "Calibrate from labels", intro, form, result, told.element), update, end() {} };
}

function describe({ before, threshold, calibration: method, labels, error_rates: rates, remarks }) {
  const row = (name, ...cells) => h("tr", {}, h("th", { scope: "row" }, name), cells.map((text) => h("td", {}, text)));
  const from = labels ? `${count(labels.normal, "good part")} and ${count(labels.anomalous, "faulty part")} count, labelled inspections from ${dated(labels.first)} to ${dated(labels.last)}.` : "No label counts.";
  return [
    h("table", { className: "costs" }, heads("", "in force", "tried"),
      h("tbody", {}, row("Threshold", significant(before.threshold, 4), significant(threshold, 4)), row("Method", METHODS[before.calibration], METHODS[method]))),
    h("p", {}, from),
    h("p", {}, rates.text),
    ...remarks.map((text) => aside(text)),
  ];
}
