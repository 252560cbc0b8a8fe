// Prometheus' text format, and what two scrapes tell together.

/** Name -> [{labels, value}] of a text in Prometheus' format. */
export function parse(text) {
  const families = new Map();
  for (const line of text.split("\n")) {
    const found = /^(inspect_\w+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!found) continue;
    const [, name, inside = "", value] = found;
    const labels = {};
    for (const [, label, quoted] of inside.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[label] = quoted.replace(/\\(.)/g, (_, one) => (one === "n" ? "\n" : one));
    if (!families.has(name)) families.set(name, []);
    families.get(name).push({ labels, value: Number(value) });
  }
  return families;
}

const fits = (labels, wanted) => Object.entries(wanted).every(([name, test]) => (Array.isArray(test) ? test.includes(labels[name]) : labels[name] === test));

/** Sum of a metric's series with these labels. */
export const sum = (scrape, name, wanted = {}) => (scrape.get(name) ?? []).reduce((total, { labels, value }) => total + (fits(labels, wanted) ? value : 0), 0);

export const growth = (from, to, name, wanted) => sum(to, name, wanted) - sum(from, name, wanted);

/** Quantile of what a histogram has observed between two scrapes, as Prometheus computes it: linear within a bucket;
 * null if it has observed nothing. */
export function quantile(from, to, name, q) {
  const edges = [...new Set((to.get(`${name}_bucket`) ?? []).map(({ labels }) => labels.le))]
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
