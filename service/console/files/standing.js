// How far a verdict can be relied on: whether it is still current, and whether its category has earned trust.

import { clock } from "./dom.js";
import { sentences } from "./errors.js";
import { lastSaid, summaryOf } from "./server.js";

const SILENT_MS = 30_000; // after that long without an answer nothing is known of the server
const OLD_MS = 120_000; // after that long a verdict is hardly of the part that lies there now

export const isVerdict = (item) => item.state === "normal" || item.state === "anomalous";
export const isDone = (item) => isVerdict(item) || item.state === "failed";

/** How many times the threshold a score is: what orders images from the worst to the best. It decides nothing. */
export const ratio = ({ score, threshold, decision }) => (threshold > 0 ? score / threshold : decision === "anomalous" ? Infinity : 0);

export const worstFirst = (items) => items.filter((item) => item.answer).sort((a, b) => ratio(b.answer) - ratio(a.answer));

/** Whether two answers, or an answer and a category of the list, come of the same rule. The version says so; a threshold that
 * was changed by hand in the card is noticed too. */
export const sameRule = (a, b) => a.model_version === b.model_version && a.threshold === b.threshold && a.calibration === b.calibration;

const since = (time, now) => Math.abs(now - time); // a clock that was set back must not make anything young

/** Why verdicts that were given together are not current, or null while they are.
 * @param chosen the category that the next image is for
 * @returns {{cause: "server" | "category" | "choice" | "version" | "age", text: string} | null} */
export function outdated(items, chosen, now = Date.now()) {
  const { kind, at } = lastSaid();
  if (kind !== "ready" && kind !== "unknown") return { cause: "server", text: sentences(lastSaid())[0] };
  if (since(at, now) > SILENT_MS) return { cause: "server", text: at ? `The server last answered at ${clock(at)}.` : "The server has not answered yet." };
  for (const { category, answer } of items) {
    if (category !== chosen) return { cause: "choice", text: `The next image is for ${chosen}, not for ${category}.` };
    const summary = summaryOf(category);
    if (!summary) return { cause: "category", text: `The category ${category} is not there any more.` };
    if (summary.status !== "ready") return { cause: "category", text: `The category ${category} is refused now.` };
    if (answer && !sameRule(summary, answer)) return { cause: "version", text: `${category} has another version now.` };
  }
  const newest = Math.max(...items.map((item) => item.time.getTime()));
  if (since(newest, now) > OLD_MS) return { cause: "age", text: "No image has come since." };
  return null;
}

/** Why the verdicts of a category need care, or null: `tag` for lists, `title` and `text` for everything else.
 * @param told a category of the list, or an answer */
export function doubtOf(told) {
  if (!told?.calibration) return null;
  if (told.separates === false) {
    return {
      kind: "useless",
      tag: "does not separate",
      title: "Does not separate faulty parts from good ones.",
      text: "On the images of its calibration its scores were little better than chance, or there were too few images to know. Do not decide about parts by its verdicts. Calibrate it with more images of faulty parts; if it stays so, train it longer or with more images.",
    };
  }
  if (told.calibration === "youden" || told.separates) return null; // real faults were there
  const from = {
    synthetic: "The threshold comes from good parts, and from defects that the software itself pasted on their images.",
    manual: "The threshold was set by hand.",
  }[told.calibration] ?? "The threshold comes from the scores of good parts alone.";
  return {
    kind: "unproven",
    tag: "not calibrated with real faults",
    title: "Not calibrated with real faults.",
    text: `${from} Nobody knows yet how many real faults it misses. Treat its verdicts with care, and calibrate it with images of faulty parts.`,
  };
}

/** Whether an image has a verdict that its category cannot give. */
export const isUseless = (item) => isVerdict(item) && doubtOf(item.answer)?.kind === "useless";

/** How a small picture shows its verdict: its sign, and the words for those who do not see it. */
export function badgeOf(item) {
  const useless = isUseless(item);
  const words = item.state === "failed" ? "no verdict" : item.state;
  return { useless, sign: useless ? "failed" : item.state === "sending" ? "waiting" : item.state, words: useless ? `${words}, do not rely on this` : words };
}
