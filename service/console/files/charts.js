// What is drawn with uPlot, in the page's colours, light and dark.

/* global uPlot */

const charts = new Set();
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const FONT = "12px system-ui, sans-serif";

/** Draws a chart that fits its element and is drawn again when the colours change.
 * @param make colours of the page -> [options of uPlot without a size, data]
 * @returns {{update: function, end: function}} `update` draws it again from `make`. */
export function chart(element, height, make) {
  let plot = null;
  const draw = () => {
    const [options, data] = make(colour);
    plot?.destroy();
    plot = new uPlot(
      { width: element.clientWidth || 300, height, legend: { show: false }, cursor: { show: false }, ...options },
      data,
      element,
    );
  };
  const size = new ResizeObserver(() => {
    if (plot && element.clientWidth && plot.width !== element.clientWidth) plot.setSize({ width: element.clientWidth, height });
  });
  draw();
  size.observe(element);
  const kept = {
    update: draw,
    end: () => {
      size.disconnect();
      plot?.destroy();
      charts.delete(kept);
    },
  };
  charts.add(kept);
  return kept;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((one) => one.update()));

export const axis = (colours, more = {}) => ({
  stroke: colours("--muted"),
  font: FONT,
  labelFont: FONT,
  labelSize: 18,
  grid: { stroke: colours("--line"), width: 1 },
  ticks: { stroke: colours("--line"), width: 1, size: 4 },
  ...more,
});

/** Lines across the chart with a word at their top. `marks`: [value on x, word, colour, whether dashed]. */
const vertical = (marks) => (plot) => {
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.font = `600 ${12 * ratio}px system-ui, sans-serif`;
  marks.forEach(([value, word, stroke, dashed], index) => {
    const x = Math.round(plot.valToPos(value, "x", true));
    ctx.strokeStyle = ctx.fillStyle = stroke;
    ctx.lineWidth = 2 * ratio;
    ctx.setLineDash(dashed ? [5 * ratio, 4 * ratio] : []);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top - (14 + 15 * index) * ratio);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const left = x + ctx.measureText(word).width + 5 * ratio > ctx.canvas.width;
    ctx.textAlign = left ? "right" : "left";
    ctx.fillText(word, x + (left ? -5 : 5) * ratio, bbox.top - (4 + 15 * index) * ratio);
  });
  ctx.restore();
};

/** Five to ten round numbers of a range. */
function ticks([from, to], logarithmic) {
  const found = [];
  if (!logarithmic) {
    const rough = (to - from) / 5;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((one) => one * power >= rough);
    for (let at = Math.ceil(from / step); at * step <= to; at += 1) found.push(at * step);
    return found;
  }
  for (let power = Math.floor(Math.log10(from)); 10 ** power <= to; power += 1) {
    for (const digit of to / from > 30 ? [1, 3] : [1, 2, 3, 5, 7]) found.push(digit * 10 ** power);
  }
  return found.filter((one) => from <= one && one <= to);
}

/** Calibration scores as two histograms, with marks on the scale of scores.
 * @param marks colours -> see `vertical` */
export function histogram(element, height, { edges, normal, anomalous }, marks, axes = true) {
  return chart(element, height, (colours) => {
    const found = marks(colours);
    const values = [edges[0], edges.at(-1), ...found.map(([value]) => value)];
    const [lowest, highest] = [Math.min(...values), Math.max(...values)];
    const logarithmic = lowest > 0 && highest / lowest > 5;
    const room = logarithmic ? (highest / lowest) ** 0.03 : 0.03 * (highest - lowest || 1);
    const range = logarithmic ? [lowest / room, highest * room] : [lowest - room, highest + room];
    const closed = (counts) => [...counts, 0];
    const bars = (label, name) => ({
      label,
      stroke: colours(name),
      fill: `${colours(name)}55`,
      width: 1.5,
      points: { show: false },
      paths: uPlot.paths.stepped({ align: 1 }),
    });
    return [
      {
        padding: [8 + 15 * found.length, 12, 0, axes ? 8 : 12],
        scales: { x: { time: false, distr: logarithmic ? 3 : 1, range }, y: { range: (_, __, max) => [0, (max || 1) * 1.04] } },
        axes: [
          axis(colours, { label: axes ? "score" : undefined, size: 28, space: 44, splits: () => ticks(range, logarithmic), filter: (_, splits) => splits, values: (_, splits) => splits.map((one) => String(Number(one.toPrecision(3)))) }),
          axis(colours, { show: axes, label: "images", size: 46 }),
        ],
        series: [{}, bars("normal", "--good"), bars("anomalous", "--bad")],
        hooks: { draw: [vertical(found)] },
      },
      [edges, closed(normal), closed(anomalous)],
    ];
  });
}

/** ROC points as they are, joined as scikit-learn means them, and points to mark: [x, y, colour, size]. */
export function roc(element, height, curve, marks) {
  return chart(element, height, (colours) => [
    {
      padding: [12, 16, 0, 8],
      scales: { x: { time: false, range: [-0.01, 1.01] }, y: { range: [-0.01, 1.02] } },
      axes: [axis(colours, { label: "false alarms, share of normal", size: 28 }), axis(colours, { label: "found, share of anomalous", size: 46 })],
      series: [{}, { stroke: colours("--accent"), width: 2, points: { show: false } }],
      hooks: {
        draw: [
          (plot) => {
            const { ctx } = plot;
            for (const [x, y, name, size] of marks()) {
              ctx.beginPath();
              ctx.arc(plot.valToPos(x, "x", true), plot.valToPos(y, "y", true), size * devicePixelRatio, 0, 2 * Math.PI);
              ctx.lineWidth = 2.5 * devicePixelRatio;
              ctx.strokeStyle = colours(name);
              ctx.fillStyle = colours("--panel");
              ctx.fill();
              ctx.stroke();
            }
          },
        ],
      },
    },
    [curve.false_alarm_rate, curve.detection_rate],
  ]);
}

/** Lines over time. `series`: [label, colour variable, dash or none]; `data` -> uPlot's, seconds first. */
export function lines(element, height, series, data, unit) {
  return chart(element, height, (colours) => [
    {
      padding: [10, 12, 0, 4],
      scales: { y: { range: (_, __, max) => [0, max > 0 ? max * 1.1 : 1] } },
      axes: [
        axis(colours, { size: 28, space: 70, values: (_, splits) => splits.map((one) => new Date(1000 * one).toLocaleTimeString("en-GB")) }),
        axis(colours, { size: 54, values: (_, splits) => splits.map((one) => `${Number(one.toPrecision(3))}${unit}`) }),
      ],
      series: [{}, ...series.map(([label, name, dash]) => ({ label, stroke: colours(name), width: 2, dash, points: { show: false } }))],
    },
    data(),
  ]);
}
