// Charts as SVG, in the colours of the style sheet, so that they follow light and dark by themselves.

import { svg } from "./dom.js";

/** Draws a chart that fits its element, and again when its width changes.
 * @param make width in pixels -> what the chart consists of
 * @returns {{update: function, end: function}} `update` draws it again from `make`. */
function chart(element, height, make) {
  let width = 0;
  const draw = () => {
    width = element.clientWidth || 300;
    element.replaceChildren(svg("svg", { width, height, "aria-hidden": "true" }, ...make(width)));
  };
  const size = new ResizeObserver(() => element.clientWidth && element.clientWidth !== width && draw());
  draw();
  size.observe(element);
  return { update: draw, end: () => (size.disconnect(), element.replaceChildren()) };
}

const colour = (name) => `var(${name})`;
const path = (points, stroke, more = {}) =>
  svg("path", { d: points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join(""), stroke: colour(stroke), fill: "none", ...more });
const words = (x, y, text, more = {}) => svg("text", { x, y, "text-anchor": "middle", ...more }, text);
const short = (value) => String(Number(value.toPrecision(3)));

/** Some round numbers of a range. */
function ticks([from, to], logarithmic) {
  const found = [];
  if (!logarithmic) {
    const rough = (to - from) / 5;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((one) => one * power >= 0.9 * rough);
    for (let at = Math.ceil(from / step); at * step <= to; at += 1) found.push(at * step);
    return found;
  }
  for (let power = Math.floor(Math.log10(from)); 10 ** power <= to; power += 1) {
    for (const digit of to / from > 30 ? [1, 3] : [1, 2, 3, 5, 7]) found.push(digit * 10 ** power);
  }
  return found.filter((one) => from <= one && one <= to);
}

/** Grid, axes and their numbers.
 * @param size [width, height] of the chart, and `room` [top, right, bottom, left] around the plot, pixels
 * @param across, up `{range, at, write, label, logarithmic}`; `at` are the places of the numbers. `up` has numbers if it has
 * `label` or `write`
 * @returns {object} `parts` to be drawn; `x` and `y`: a value -> pixels; `bottom`: where the x axis is */
function plot([width, height], [top, right, bottom, left], across, up) {
  const place = ({ range: [from, to], logarithmic }, begin, end) => {
    const scale = logarithmic ? Math.log : (value) => value;
    return (value) => begin + ((scale(value) - scale(from)) / (scale(to) - scale(from))) * (end - begin);
  };
  const [x, y] = [place(across, left, width - right), place(up, height - bottom, top)];
  const base = height - bottom;
  const parts = [];
  let free = 0; // where the next number has room
  for (const value of across.at ?? ticks(across.range, across.logarithmic)) {
    const [at, text] = [x(value), (across.write ?? short)(value)];
    parts.push(path([[at, top], [at, base + 4]], "--line"));
    if (at < free) continue;
    parts.push(words(at, base + 18, text));
    free = at + 7 * text.length + 8;
  }
  if (across.label) parts.push(words((left + width - right) / 2, height - 6, across.label));
  for (const value of up.label || up.write ? ticks(up.range) : []) {
    parts.push(path([[left - 4, y(value)], [width - right, y(value)]], "--line"), words(left - 8, y(value) + 4, (up.write ?? short)(value), { "text-anchor": "end" }));
  }
  if (up.label) parts.push(words(0, 0, up.label, { transform: `translate(14 ${(top + base) / 2}) rotate(-90)` }));
  return { parts, x, y, bottom: base };
}

/** Calibration scores as two histograms, with marks on the scale of scores.
 * @param marks -> [score, word, colour variable, whether dashed][]: lines across the chart with a word at their top */
export function histogram(element, height, { edges, normal, anomalous }, marks, axes = true) {
  return chart(element, height, (width) => {
    const found = marks();
    const values = [edges[0], edges.at(-1), ...found.map(([value]) => value)];
    const [lowest, highest] = [Math.min(...values), Math.max(...values)];
    const logarithmic = lowest > 0 && highest / lowest > 5;
    const room = logarithmic ? (highest / lowest) ** 0.03 : 0.03 * (highest - lowest || 1);
    const range = logarithmic ? [lowest / room, highest * room] : [lowest - room, highest + room];
    const most = Math.max(...normal, ...anomalous) || 1;
    const top = 8 + 15 * found.length;
    const { parts, x, y, bottom } = plot(
      [width, height],
      [top, 12, axes ? 46 : 28, axes ? 64 : 12],
      { range, logarithmic, label: axes && "score" },
      { range: [0, 1.04 * most], label: axes && "images" },
    );
    const bars = (counts, name) => {
      const steps = counts.flatMap((value, bin) => [[x(edges[bin]), y(value)], [x(edges[bin + 1]), y(value)]]);
      return path([[steps[0][0], bottom], ...steps, [steps.at(-1)[0], bottom]], name, { fill: colour(name), "fill-opacity": 0.33, "stroke-width": 1.5 });
    };
    const lines = found.flatMap(([value, word, name, dashed], index) => {
      const [at, high] = [Math.round(x(value)), top - 15 * index];
      const left = at + 7 * word.length + 5 > width; // it has no room at the right
      return [
        path([[at, high - 14], [at, bottom]], name, { "stroke-width": 2, "stroke-dasharray": dashed ? "5 4" : "none" }),
        words(at + (left ? -5 : 5), high - 4, word, { "text-anchor": left ? "end" : "start", class: "mark", color: colour(name) }),
      ];
    });
    return [...parts, bars(normal, "--good"), bars(anomalous, "--bad"), ...lines];
  });
}

/** ROC points as they are, joined as scikit-learn means them.
 * @param marks -> [x, y, colour variable, radius][]: points to mark */
export function roc(element, height, curve, marks) {
  return chart(element, height, (width) => {
    const { parts, x, y } = plot(
      [width, height],
      [12, 16, 46, 64],
      { range: [-0.01, 1.01], label: "false alarms, share of normal" },
      { range: [-0.01, 1.02], label: "found, share of anomalous" },
    );
    const line = curve.false_alarm_rate.map((value, index) => [x(value), y(curve.detection_rate[index])]);
    const points = marks().map(([right, high, name, r]) => svg("circle", { cx: x(right), cy: y(high), r, "stroke-width": 2.5, stroke: colour(name), fill: colour("--panel") }));
    return [...parts, path(line, "--accent", { "stroke-width": 2 }), ...points];
  });
}

const DAY = 86_400;
const STEPS = [1, 5, 15, 30, 60, 120, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 60 * DAY];

/** Lines over time.
 * @param series [colour variable, dash or none][]
 * @param data -> columns: seconds, then the values of each series, null where there is none */
export function lines(element, height, series, data, unit = "") {
  return chart(element, height, (width) => {
    const [times, ...columns] = data();
    const range = [times[0], Math.max(times.at(-1), times[0] + 1)];
    const most = Math.max(0, ...columns.flat());
    const step = STEPS.find((one) => ((width - 66) * one) / (range[1] - range[0]) >= 70) ?? STEPS.at(-1);
    const local = 60 * new Date(1000 * range[0]).getTimezoneOffset();
    const at = [];
    for (let time = Math.ceil((range[0] - local) / step) * step + local; time <= range[1]; time += step) at.push(time);
    const day = { day: "numeric", month: "short" };
    const write = (time) => new Date(1000 * time)[step < DAY ? "toLocaleTimeString" : "toLocaleDateString"]("en-GB", step < DAY ? {} : day);
    const { parts, x, y } = plot([width, height], [10, 12, 28, 54], { range, at, write }, { range: [0, most > 0 ? 1.1 * most : 1], write: (value) => `${short(value)}${unit}` });
    const drawn = series.flatMap(([name, dash], index) => {
      const pieces = [[]];
      columns[index].forEach((value, row) => (value == null ? pieces.push([]) : pieces.at(-1).push([x(times[row]), y(value)])));
      return pieces.filter((piece) => piece.length).map((piece) => path([...piece, piece.at(-1)], name, { "stroke-width": piece[1] ? 2 : 5, "stroke-linecap": "round", "stroke-dasharray": dash ?? "none" }));
    });
    return [...parts, ...drawn];
  });
}
