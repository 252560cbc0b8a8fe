// A region that is drawn: zones, places to ignore, the polygon that is begun, and the way back. It knows nothing of the page.

const NAME = /^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$/;
const MOST = { zones: 32, points: 20_000 };
const SHAPE_TOLERANCE = 0.01; // of width over height
const EMPTY = { size: null, shapes: [], begun: null };

let now = EMPTY;
let before = [];
let numbers = 0;

/** What is drawn: `size`, [width, height] of the picture; `shapes`, each with `id`, `kind` (`zone` or `ignored`), `polygons`
 * and, of a zone, `name` and `threshold` as they are typed; `begun`, the corners of the polygon that is not closed yet. */
export const drawn = () => now;

export const canUndo = () => before.length > 0;

function change(news) {
  before.push(now);
  now = { ...now, ...news };
}

export function undo() {
  now = before.pop() ?? now;
}

/** Forgets all that is drawn; it can be undone. */
export const clear = () => change({ shapes: [], begun: null });

/** What is drawn belongs on a picture of this size from now on. While there are polygons, one of the same shape is as good.
 * @returns whether the picture has the right shape */
export function fit(width, height) {
  if (now.shapes.length || now.begun) {
    const [w, t] = now.size;
    return Math.abs((width * t) / (height * w) - 1) <= SHAPE_TOLERANCE;
  }
  if (now.size?.[0] !== width || now.size[1] !== height) before = []; // what was drawn before lay on another picture
  now = { ...now, size: [width, height] };
  return true;
}

const zones = () => now.shapes.filter(({ kind }) => kind === "zone");
const same = ([a, b], [c, d]) => a === c && b === d;

export function addCorner(point) {
  const begun = now.begun ?? [];
  if (!begun.length || !same(begun.at(-1), point)) change({ begun: [...begun, point] });
}

export const giveUp = () => now.begun && change({ begun: null });

/** The closed polygon as a zone or a place to ignore; null while it has fewer than three corners. */
export function close(kind) {
  if ((now.begun?.length ?? 0) < 3) return null;
  const shape = { id: (numbers += 1), kind, polygons: [now.begun] };
  if (kind === "zone") Object.assign(shape, { name: freeName(), threshold: "" });
  change({ shapes: [...now.shapes, shape], begun: null });
  return shape;
}

function freeName() {
  const names = new Set(zones().map(({ name }) => name));
  let number = 1;
  while (names.has(`zone ${number}`)) number += 1;
  return `zone ${number}`;
}

const edit = (id, news) => change({ shapes: now.shapes.map((shape) => (shape.id === id ? { ...shape, ...news } : shape)) });

export const rename = (id, name) => edit(id, { name });
export const setThreshold = (id, threshold) => edit(id, { threshold });
export const remove = (id) => change({ shapes: now.shapes.filter((shape) => shape.id !== id) });

/** Moves a corner of a closed polygon, or removes it where there is no point; three have to stay. */
export function setCorner(id, polygon, corner, point = null) {
  const { polygons } = now.shapes.find((shape) => shape.id === id);
  const points = polygons[polygon].toSpliced(corner, 1, ...(point ? [point] : []));
  if (points.length >= 3) edit(id, { polygons: polygons.with(polygon, points) });
}

/** Begins with the region of a card, in place of what is drawn. */
export function open({ width, height, zones: found, ignored }, thresholds) {
  change({
    size: [width, height],
    begun: null,
    shapes: [
      ...found.map(({ name, outlines }) => ({ id: (numbers += 1), kind: "zone", name, threshold: String(thresholds[name] ?? ""), polygons: outlines })),
      ...ignored.map((polygon) => ({ id: (numbers += 1), kind: "ignored", polygons: [polygon] })),
    ],
  });
}

/** What has to be mended before there can be a file, in sentences. */
export function wrong() {
  const names = zones().map(({ name }) => name);
  const points = now.shapes.flatMap(({ polygons }) => polygons.flat()).length;
  return [
    ...(now.shapes.length ? [] : ["Nothing is drawn yet."]),
    ...(now.begun ? ["A polygon is not closed yet."] : []),
    ...names.filter((name) => !isName(name)).map((name) => `“${name}” is no name for a zone. A name has up to 64 letters, digits, spaces and . _ - and begins with a letter or a digit.`),
    ...[...new Set(names.filter((name, index) => names.indexOf(name) < index))].map((name) => `Two zones are called “${name}”.`),
    ...zones().filter(({ threshold }) => !isThreshold(threshold)).map(({ name, threshold }) => `The threshold of “${name}” is no number above 0: “${threshold}”.`),
    ...(names.length > MOST.zones ? [`There are more than ${MOST.zones} zones.`] : []),
    ...(points > MOST.points ? [`The polygons have more than ${MOST.points.toLocaleString("en")} corners.`] : []),
  ];
}

export const isName = (name) => NAME.test(name);
export const isThreshold = (text) => text.trim() === "" || (Number(text) > 0 && Number.isFinite(Number(text)));

/** The file that `eca-inspect train --region` and `eca-inspect region` read. */
export function written() {
  const [width, height] = now.size;
  const of = ({ name, threshold, polygons }) => ({
    name,
    ...(polygons.length === 1 ? { polygon: polygons[0] } : { polygons }),
    ...(threshold.trim() && { threshold: Number(threshold) }),
  });
  const ignored = now.shapes.filter(({ kind }) => kind === "ignored").flatMap(({ polygons }) => polygons);
  const text = JSON.stringify({ width, height, zones: zones().map(of), ignored }, null, 2);
  return `${text.replace(/\[\s+([-\d.e]+),\s+([-\d.e]+)\s+\]/g, "[$1, $2]")}\n`; // a corner in a line
}
