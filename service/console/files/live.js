// The page Live: the service's own metrics of the last minutes, asked for while the page is looked at.

import { ANSWER_MS, call, pause } from "./api.js";
import { lines } from "./charts.js";
import { tagOf } from "./categories.js";
import { $, clock, count, h, heads, key, milliseconds, percent, significant } from "./dom.js";
import { sentences } from "./errors.js";
import { growth, parse, quantile, series, sum } from "./metrics.js";
import { summaryOf } from "./server.js";
import { doubtOf } from "./standing.js";

const EVERY_MS = 2000;
const KEPT_SECONDS = 900;
const SPAN_SECONDS = 10; // over which each point of a line is taken
const IMAGES = "inspect_images_total";
const SECONDS = "inspect_image_duration_seconds";
const DECIDED = { outcome: ["normal", "anomalous"] };

let scrapes = []; // [seconds, metrics], oldest first
let looking = null;
let charts = [];
let figures = null;

export async function show() {
  const turn = (looking = Symbol("looking"));
  while (looking === turn) {
    if (!document.hidden) await scrape(turn);
    await pause(EVERY_MS);
  }
}

export function end() {
  looking = null;
  charts.forEach((one) => one.end());
  charts = [];
  figures = null;
  $("live-body").replaceChildren();
}

async function scrape(turn) {
  try {
    const metrics = parse(await (await call("metrics", { headers: { Accept: "text/plain" }, limit: ANSWER_MS })).text());
    if (looking !== turn) return;
    const now = Date.now() / 1000;
    const last = scrapes.at(-1);
    if (last && sum(metrics, IMAGES) < sum(last[1], IMAGES)) scrapes = []; // the server has restarted
    scrapes.push([now, metrics]);
    while (scrapes[0][0] < now - KEPT_SECONDS) scrapes.shift();
    $("live-note").hidden = true;
    $("live-body").classList.remove("stale");
    draw();
  } catch (problem) {
    if (looking !== turn) return;
    const elsewhere = problem.kind === "not-found";
    const [what, todo] = elsewhere
      ? ["The metrics are on a port of their own.", "The server was started with INSPECT_METRICS_PORT, so this page cannot read them. Prometheus and the Grafana dashboard show the same figures."]
      : sentences(problem);
    const last = !elsewhere && figures && scrapes.at(-1);
    $("live-note").replaceChildren(h("h2", {}, what), h("p", {}, todo), ...(last ? [h("p", {}, `The figures below are of ${clock(1000 * last[0])}.`)] : []));
    $("live-note").hidden = false;
    $("live-body").classList.add("stale");
    if (elsewhere) end();
  }
}

/** The scrape that lies this many seconds before another, or the oldest after that without a long gap. */
function before(index, seconds) {
  let at = index;
  while (at > 0 && scrapes[index][0] - scrapes[at - 1][0] <= seconds) at -= 1;
  return scrapes[at];
}

function draw() {
  if (!figures) build();
  const last = scrapes.length - 1;
  const [now, metrics] = scrapes[last];
  const [since, first] = before(last, Number($("window").value));
  const span = now - since;
  const rate = span > 0 ? growth(first, metrics, IMAGES, DECIDED) / span : null;
  const batches = growth(first, metrics, "inspect_batch_size_images_count");
  const seconds = (q) => {
    const found = quantile(first, metrics, SECONDS, q);
    return found === null ? "–" : milliseconds(1000 * found);
  };
  const put = (name, text, more = "") => {
    figures[name].children[1].textContent = text;
    figures[name].children[2].textContent = more;
  };
  put("throughput", rate === null ? "–" : significant(rate), "images per second");
  put("p50", seconds(0.5), "half are faster");
  put("p99", seconds(0.99), "99 of 100 are faster");
  put("queue", String(sum(metrics, "inspect_queue_depth_images")), `${sum(metrics, "inspect_in_flight_images")} of ${sum(metrics, "inspect_in_flight_limit_images")} places taken`);
  put("batch", batches > 0 ? significant(growth(first, metrics, "inspect_batch_size_images_sum") / batches, 2) : "–", "images the device takes at once");
  put("refused", growth(first, metrics, "inspect_rejections_total").toLocaleString("en"), "problems answered");
  $("live-span").textContent = span > 0 ? `Over the last ${count(Math.round(span), "second")}; p50 and p99 are of the time from the arrival of an image to its answer.` : "Collecting the first figures.";
  decisions(first, metrics);
  const serving = series("inspect_build_info").findLast(({ place }) => metrics[place])?.labels;
  if (serving) $("live-build").textContent = `eca-inspect ${serving.version}, torch ${serving.torch}, on ${serving.device} with ${serving.precision} networks. Device ${sum(metrics, "inspect_device_up") ? "up" : "down"}, replaced ${count(sum(metrics, "inspect_device_restarts_total"), "time")}.`;
  charts.forEach((one) => one.update());
}

/** The categories that were asked for; all of them where they are few. */
function decisions(first, metrics) {
  const found = new Map();
  for (const { labels, place } of series(IMAGES)) {
    const row = found.get(labels.category) ?? { normal: 0, anomalous: 0, problems: 0 };
    row[labels.outcome in row ? labels.outcome : "problems"] += (metrics[place] ?? 0) - (first[place] ?? 0);
    if (labels.category !== "-") found.set(labels.category, row);
  }
  const rows = [...found].filter(([, row]) => found.size <= 20 || row.normal + row.anomalous + row.problems > 0).sort();
  $("live-decisions").replaceChildren(
    ...rows.map(([category, { normal, anomalous, problems }]) => {
      const share = normal + anomalous ? percent(anomalous / (normal + anomalous)) : "–";
      const cells = [normal.toLocaleString("en"), anomalous.toLocaleString("en"), problems.toLocaleString("en"), share];
      const told = summaryOf(category);
      const link = h("a", { href: `#/categories/${encodeURIComponent(category)}` }, category);
      return h("tr", {}, h("th", { scope: "row" }, link, ...(doubtOf(told) ? [" ", tagOf(told)] : [])), cells.map((text) => h("td", {}, text)));
    }),
  );
}

/** One value for each scrape: of it and the scrape ten seconds before. */
const line = (value) =>
  scrapes.map(([time, metrics], index) => {
    const [since, first] = before(index, SPAN_SECONDS);
    return time > since ? value(first, metrics, time - since) : null;
  });

function recent() {
  const start = scrapes.at(-1)[0] - Number($("window").value);
  const from = scrapes.findIndex(([time]) => time >= start);
  return (...columns) => [scrapes.map(([time]) => time), ...columns].map((column) => column.slice(from));
}

function build() {
  const names = { throughput: "Throughput", p50: "p50", p99: "p99", queue: "Queue", batch: "Batch", refused: "Problems" };
  figures = Object.fromEntries(Object.entries(names).map(([name, title]) => [name, h("div", { className: "panel figure" }, h("dt", {}, title), h("dd", { className: "value" }), h("dd", { className: "small muted" }))]));
  const section = (title, ...children) => h("section", { className: "panel" }, h("h2", {}, title), ...children);
  const place = (label) => h("div", { className: "chart", role: "img", "aria-label": label });
  const [throughput, latency, queue] = [place("Images per second over time"), place("p50 and p99 in milliseconds over time"), place("Images in the queue, and batch size, over time")];
  $("live-body").replaceChildren(
    h("dl", { className: "figures" }, Object.values(figures)),
    h("p", { id: "live-span", className: "small muted" }),
    h("div", { className: "pair" },
      section("Images per second", throughput),
      section("Time per image", latency, key(["stroke", "p50"], ["stroke warn dashed", "p99"])),
      section("Queue and batch", queue, key(["stroke", "waiting for the device"], ["stroke warn dashed", "batch size"]))),
    section("Decisions",
      h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Decisions of each category" },
        h("table", {}, heads("Category", "Normal", "Anomalous", "Problems", "Share anomalous"), h("tbody", { id: "live-decisions" })))),
    h("p", { id: "live-build", className: "small muted" }),
  );
  charts = [
    lines(throughput, 170, [["--accent"]], () => recent()(line((first, to, span) => growth(first, to, IMAGES, DECIDED) / span))),
    lines(latency, 170, [["--accent"], ["--warn", "6 4"]], () => recent()(...[0.5, 0.99].map((q) => line((first, to) => quantile(first, to, SECONDS, q)).map((one) => (one === null ? null : 1000 * one)))), " ms"),
    lines(queue, 170, [["--accent"], ["--warn", "6 4"]], () =>
      recent()(
        scrapes.map(([, metrics]) => sum(metrics, "inspect_queue_depth_images")),
        line((first, to) => {
          const batches = growth(first, to, "inspect_batch_size_images_count");
          return batches > 0 ? growth(first, to, "inspect_batch_size_images_sum") / batches : null;
        }),
      )),
  ];
}

$("window").addEventListener("change", () => scrapes.length && figures && draw());
