// A board over a picture, on which a person draws with mouse, finger and keys. Its points are whole pixels of the picture. The
// pages Region, Review and History use it.

import { svg } from "./dom.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STRIDES = 50; // arrow keys go that part of the longer side at a time
const ARM = 12; // CSS pixels

/** @param size pixels of the picture, [width, height]. It is a function: the picture may change. */
export function newBoard(attributes, size) {
  const board = svg("svg", attributes);
  const inside = (point) => point.map((value, axis) => Math.min(size()[axis] - 1, Math.max(0, Math.round(value))));
  board.addEventListener("pointerdown", () => board.classList.remove("keys"));

  /** CSS pixels as pixels of the picture. */
  const scaled = (length) => (length * size()[0]) / (board.getBoundingClientRect().width || 1);

  return {
    board,
    scaled,

    /** The pixel under a pointer. */
    pointAt({ clientX, clientY }) {
      const { left, top, width, height } = board.getBoundingClientRect();
      return inside([((clientX - left) / width) * size()[0] - 0.5, ((clientY - top) / height) * size()[1] - 0.5]);
    },

    middle: () => inside(size().map((length) => Math.floor(length / 2))),

    /** Where an arrow key leads from a point; null if it is another key. */
    stepped([x, y], { key, shiftKey }) {
      if (!ARROWS[key]) return null;
      const stride = shiftKey ? 1 : Math.max(1, Math.round(Math.max(...size()) / STRIDES));
      return inside([x + ARROWS[key][0] * stride, y + ARROWS[key][1] * stride]);
    },

    /** Shows where the keys are. */
    cross([left, top]) {
      const [x, y, arm] = [left + 0.5, top + 0.5, scaled(ARM)];
      const path = `M${x - arm} ${y}h${2 * arm}M${x} ${y - arm}v${2 * arm}`;
      return svg("g", { class: "cursor", "aria-hidden": "true" }, svg("path", { class: "halo", d: path }), svg("path", { class: "line", d: path }));
    },
  };
}
