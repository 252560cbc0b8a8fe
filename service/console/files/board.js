// A board over a picture, on which a person draws with mouse, finger and keys. Points are whole pixels of the picture.

import { svg } from "./dom.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STRIDES = 50; // arrow keys go that part of the longer side at a time
const ARM = 12; // CSS pixels

/** @param size gives the pixels of the picture, [width, height]
 * @param does what happens at each event */
export function newBoard(attributes, size, does) {
  const board = svg("svg", attributes);
  board.addEventListener("pointerdown", () => board.classList.remove("keys"));
  board.addEventListener("keydown", () => board.classList.add("keys"));
  for (const [event, deed] of Object.entries(does)) board.addEventListener(event, deed);
  const inside = (point) => point.map((value, axis) => Math.min(size()[axis] - 1, Math.max(0, Math.round(value))));

  /** CSS pixels as pixels of the picture. */
  const scaled = (length) => (length * size()[0]) / (board.getBoundingClientRect().width || 1);

  return {
    board,
    scaled,
    middle: () => inside(size().map((length) => length / 2 - 0.5)),

    /** The pixel under a pointer. */
    pointAt({ clientX, clientY }) {
      const { left, top } = board.getBoundingClientRect();
      return inside([scaled(clientX - left) - 0.5, scaled(clientY - top) - 0.5]);
    },

    /** Where an arrow key leads from a point; null if it is another key. */
    stepped([x, y], { key, shiftKey }) {
      const [across, down] = ARROWS[key] ?? [];
      const stride = shiftKey ? 1 : Math.max(1, Math.round(Math.max(...size()) / STRIDES));
      return ARROWS[key] ? inside([x + across * stride, y + down * stride]) : null;
    },

    /** Shows where the keys are. */
    cross([x, y]) {
      const arm = scaled(ARM);
      const d = `M${x + 0.5 - arm} ${y + 0.5}h${2 * arm}M${x + 0.5} ${y + 0.5 - arm}v${2 * arm}`;
      return svg("g", { class: "cursor", "aria-hidden": "true" }, svg("path", { class: "halo", d }), svg("path", { class: "line", d }));
    },
  };
}
