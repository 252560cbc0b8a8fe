// Polygons and boxes on a picture: their lines, their hatching, and names that do not cover each other.
//
// Points of polygons are as in a card: in pixels, whole numbers are the middles of pixels. What is drawn here has the corner of the
// first pixel at 0, so a point lies half a pixel further.

import { svg } from "./dom.js";

const LONGEST = 24; // letters of a name on a picture
const LETTER_WIDTH = 0.6; // of its height

let patterns = 0;

const corners = (points) => points.map(([x, y]) => `${x + 0.5},${y + 0.5}`).join(" ");

/** A closed line that is seen on dark and on light. */
export const outline = (points) =>
  ["halo", "line"].map((name) => svg("polygon", { class: name, "fill-rule": "evenodd", points: corners(points) }));

/** The same while it is still open. */
export const openLine = (points) => ["halo", "line"].map((name) => svg("polyline", { class: name, points: corners(points) }));

/** A box with words at it, on a picture whose longer side has so many pixels. */
export function boxed({ x, y, width, height }, words, side) {
  const letter = side / 26;
  const label = svg("text", { "font-size": letter, x, y: y > letter * 1.2 ? y - letter * 0.25 : y + height + letter }, words);
  return [...["halo", "line"].map((name) => svg("rect", { class: name, x, y, width, height })), label];
}

/** Fills of the size of a picture: `pattern` goes into the drawing once, `fill(points)` makes a hatched polygon. */
export function hatching(width, height) {
  const step = Math.max(width, height) / 50;
  const id = `hatching-${(patterns += 1)}`;
  const stripe = (x, name) => svg("rect", { class: name, x, y: 0, width: step / 2, height: step });
  return {
    pattern: svg("pattern", { id, width: step, height: step, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, stripe(0, "dark"), stripe(step / 2, "light")),
    fill: (points) => svg("polygon", { class: "hatched", "fill-rule": "evenodd", fill: `url(#${id})`, points: corners(points) }),
  };
}

/** Makes names that stand at the top of their polygons, inside the picture and below each other. */
export function naming(width, height) {
  const letter = Math.max(width, height) / 30;
  const taken = [];
  return (text, polygons) => {
    const [left, top] = polygons.flat().reduce((a, b) => (b[1] < a[1] || (b[1] === a[1] && b[0] < a[0]) ? b : a));
    const words = text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text;
    const long = words.length * letter * LETTER_WIDTH;
    const x = Math.max(0.2 * letter, Math.min(left + 0.5, width - long));
    let y = top + 0.5 > 1.2 * letter ? top + 0.5 - 0.3 * letter : top + 0.5 + letter;
    const covers = (one) => Math.abs(one.y - y) < letter && x < one.x + one.long && one.x < x + long;
    for (let turn = 0; turn < taken.length && taken.some(covers); turn += 1) y += 1.1 * letter;
    taken.push({ x, y, long });
    return svg("text", { "font-size": letter, x, y }, words);
  };
}
