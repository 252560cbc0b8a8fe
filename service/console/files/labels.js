// Inspections of the history as the server gives them, and labels as it takes them. The pages History and Review use them.

import { ANSWER_MS, Problem, asProblem, call } from "./api.js";
import { dated } from "./dom.js";
import { sentences } from "./errors.js";
import { boxesFor } from "./marks.js";

const WIDTH = 1280; // pixels of the picture that is asked for
const REVIEWER = "eca-inspect-reviewer";
export const CHOICES = [["normal", "Good", "g"], ["anomalous", "Faulty", "f"], ["unsure", "Unsure", "u"]];
export const LABELS = Object.fromEntries(CHOICES.map(([label, word]) => [label, word.toLowerCase()]));

export const pathOf = (id, what = "") => `v1/inspections/${encodeURIComponent(id)}${what}`;
export const said = (error) => sentences(asProblem(error)).join(" ");

/** Everything that is kept of an inspection, and the version of its label: {detail, etag}. */
export async function remembered(id) {
  const response = await call(pathOf(id), { limit: ANSWER_MS });
  return { detail: await response.json(), etag: response.headers.get("ETag") };
}

const png = async (path, signal) => (await call(path, { headers: { Accept: "image/png" }, signal })).blob();

export const pictureOf = ({ id }, signal, width = WIDTH) => png(pathOf(id, `/image?width=${width}`), signal);
export const heatOf = ({ id }, signal) => png(pathOf(id, "/heatmap"), signal);

export function notKept({ image, localization, zones, tiles }) {
  const places = localization || zones || tiles ? " What is drawn here shows the places only." : "";
  const why = image.kept_share === 0 ? "The server's rule for keeping images leaves it out." : image.kept_share < 1 ? "The server keeps only a sample of such images." : "It has been removed, or is still on its way.";
  return `The image was not kept. ${why}${places}`;
}

export const reviewer = () => sessionStorage.getItem(REVIEWER) ?? "";
export const rememberReviewer = (name) => sessionStorage.setItem(REVIEWER, name);

export const byWhom = ({ reviewer: name, actor, time }) => [name && `by ${name}`, actor && `key ${actor}`, dated(time)].filter(Boolean).join(", ");

/** Labels an inspection where nobody has changed its label since, with the boxes that are on its picture; `seen`,
 * {detail, etag}, then has the new one.
 * @throws {Problem} otherwise. If it is `label-changed`, `seen` has what another person said. */
export async function give(seen, label) {
  const boxes = boxesFor(seen, label.label);
  if (!boxes) throw new Problem("marked-good", 0, "");
  await changed(seen, { method: "PUT", body: JSON.stringify({ ...label, boxes }), headers: { "Content-Type": "application/json" } }, async (response) => {
    seen.detail.labels.unshift(await response.json());
    seen.etag = response.headers.get("ETag");
    seen.marks = null;
  });
}

/** Takes the label of an inspection back, its boxes stay on the picture; as `give`. */
export async function takeBack(seen) {
  const { boxes } = seen.detail.labels[0];
  await changed(seen, { method: "DELETE" }, async () => Object.assign(seen, await remembered(seen.detail.id)));
  if (boxes.length) seen.marks = { boxes, changed: true };
}

async function changed(seen, { headers, ...options }, done) {
  const path = pathOf(seen.detail.id, "/label");
  try {
    await done(await call(path, { ...options, headers: { ...headers, "If-Match": seen.etag }, limit: ANSWER_MS }));
  } catch (error) {
    const problem = asProblem(error);
    if (problem.kind === "label-changed") {
      const now = await remembered(seen.detail.id).catch(() => null);
      if (now) Object.assign(seen.detail, { label: now.detail.label, labels: now.detail.labels });
      if (now) seen.etag = now.etag;
    }
    throw problem;
  }
}

/** Why a label was not taken, in words. */
export const refusal = (problem) =>
  problem.kind === "label-changed" ? "Another person has labelled this meanwhile. Look at that label, and decide again." : [...sentences(problem), problem.status === 403 ? problem.detail : ""].filter(Boolean).join(" ");
