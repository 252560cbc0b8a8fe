// Prometheus' text format, and what two scrapes tell together.

const WANTED = /^inspect_(images_total|rejections_total|image_duration_seconds|batch_size_images|queue_depth|in_flight|build_info|device_)/;
const numbers = new Map(); // a series as it is written -> its place in each scrape
const families = new Map(); // name -> [{labels, place}]

/** The series of a metric: their labels, and their place in each scrape. */
export const series = (name) => families.get(name) ?? [];

/** What the console needs of a text in Prometheus' format: a value for each series. Labels are kept once for all. */
export function parse(text) {
  const values = [];
  for (const line of text.split("\n")) {
    if (!WANTED.test(line)) continue;
    const end = line.lastIndexOf(" ");
    const written = line.slice(0, end);
    if (!numbers.has(written)) numbers.set(written, learn(written, numbers.size));
    values[numbers.get(written)] = Number(line.slice(end));
  }
  return Float64Array.from(values, (value) => value ?? 0);
}

function learn(written, place) {
  const [, name, inside = ""] = /^(\w+)(?:\{(.*)\})?$/.exec(written);
  const labels = {};
  for (const [, label, quoted] of inside.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[label] = quoted.replace(/\\(.)/g, (_, one) => (one === "n" ? "\n" : one));
  if (!families.has(name)) families.set(name, []);
  families.get(name).push({ labels, place });
  return place;
}

const fits = (labels, wanted) => Object.entries(wanted).every(([name, test]) => (Array.isArray(test) ? test.includes(labels[name]) : labels[name] === test));

/** Sum of a metric's series with these labels. */
export const sum = (scrape, name, wanted = {}) => series(name).reduce((total, { labels, place }) => total + (fits(labels, wanted) ? (scrape[place] ?? 0) : 0), 0);

export const growth = (from, to, name, wanted) => sum(to, name, wanted) - sum(from, name, wanted);

/** Quantile of what a histogram has observed between two scrapes, as Prometheus computes it: linear within a bucket;
 * null if it has observed nothing. */
export function quantile(from, to, name, q) {
  const edges = [...new Set(series(`${name}_bucket`).map(({ labels }) => labels.le))]
    .map((le) => [le === "+Inf" ? Infinity : Number(le), growth(from, to, `${name}_bucket`, { le })])
    .sort(([a], [b]) => a - b);
  const all = edges.at(-1)?.[1] ?? 0;
  if (!(all > 0)) return null;
  const wanted = q * all;
  const at = edges.findIndex(([, below]) => below >= wanted);
  const [upper, below] = edges[at];
  const [lower, before] = at > 0 ? edges[at - 1] : [0, 0];
  return upper === Infinity ? lower : lower + ((upper - lower) * (wanted - before)) / (below - before);
}
