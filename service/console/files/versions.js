// The versions of a category: the one in force, and those that a person can go back to.

import { change, pathOf, section, teller } from "./changing.js";
import { ask, dated, h, significant } from "./dom.js";

export const METHODS = {
  youden: "Youden index, with real faults",
  "false-alarm-target": "false-alarm rate that was asked for",
  manual: "set by hand",
  synthetic: "good parts, and defects pasted on them by the software",
  "normal-quantile": "quantile of the scores of good parts",
};

/** The section of a category: {element, update, end}. */
export function versions(category) {
  const told = teller();
  const list = h("ul", { className: "stack" });
  const line = (version, threshold, method, ...more) =>
    h("li", { className: "version" }, h("span", {}, h("b", {}, version), h("small", {}, `threshold ${significant(threshold, 5)}: ${METHODS[method]}`)), more);

  function update({ card, kept_versions: kept }) {
    const rows = kept.map((one) => {
      const { model_version: version, threshold, calibration: method, calibrated, rolled_back: rolled } = one;
      const note = `calibrated ${dated(calibrated)}${rolled ? "; a rollback replaced it" : ""}`;
      const button = h("button", { className: "quiet", "aria-label": `Go back to ${version}`, onclick: () => back(one, button) }, "Go back to it");
      return line(version, threshold, method, h("small", {}, note), button);
    });
    const now = card && line(card.model_version, card.calibration.threshold, card.calibration.method, h("span", { className: "tag" }, "in force"));
    list.replaceChildren(...(now ? [now] : []), ...rows, ...(kept.length ? [] : [h("li", { className: "muted" }, "No earlier version is kept.")]));
  }

  async function back({ model_version: version, threshold }, button) {
    if (!(await ask("Go back to this version?", `Version ${version}, with the threshold ${significant(threshold, 5)}, then decides about every part of ${category}. The version of now is kept.`, "Go back"))) return;
    const answer = await change(button, told, pathOf(category, `rollback?to=${encodeURIComponent(version)}`), "POST");
    if (answer) told.say(`${version} is in force now${answer.persistent ? "." : ", until the server stops: it cannot write to the folder of weights."}`);
  }

  return { element: section("part-versions", "Versions", list, told.element), update, end() {} };
}
