// The page Region: draws zones and places to ignore on a picture of a good part, and gives them as a file. The server is not
// changed by it.

import { json } from "./api.js";
import { newBoard } from "./board.js";
import * as drawing from "./drawing.js";
import { $, announce, aside, count, focusOn, h, save, svg } from "./dom.js";
import { sentences } from "./errors.js";
import { server, lastSaid } from "./server.js";
import { hatching, naming, openLine, outline } from "./shapes.js";

const CLOSE_AT = 12; // CSS pixels around the first corner where a click closes the polygon
const DOT = { visible: 6, reach: 14 }; // CSS pixels, radius
const MOST_DOTS = 200; // corners that can be moved one by one
const FILE = "region.json";

let picture = null; // { name, url, width, height }
let selected = null; // id of the shape whose corners can be moved
let cursor = null; // where the keys are, a point
let held = null; // the corner that a finger or the mouse has

const { board, scaled, pointAt, middle, stepped, cross } = newBoard(
  { class: "zones board", tabindex: 0, role: "application", "aria-label": "Drawing area", "aria-describedby": "region-keys" },
  () => drawing.drawn().size,
  { click, pointerdown: grab, pointermove: move, pointerup: release, pointercancel: () => (held = null), keydown: press });

// What is said.

/** Says what happened, or what is wrong, to everybody. */
function say(text, isWrong = false) {
  $("region-said").textContent = text;
  $("region-said").classList.toggle("wrong", isWrong);
  announce(text);
}

const at = ([x, y]) => `${Number(x.toFixed(1))}, ${Number(y.toFixed(1))}`;

function titleOf({ id, kind, name }) {
  if (kind === "zone") return `zone ${name}`;
  const ignored = drawing.drawn().shapes.filter((shape) => shape.kind === "ignored");
  return `ignored place ${ignored.findIndex((shape) => shape.id === id) + 1}`;
}

function extentOf({ polygons }) {
  const points = polygons.flat();
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const least = (values) => values.reduce((a, b) => Math.min(a, b));
  const most = (values) => values.reduce((a, b) => Math.max(a, b));
  const many = polygons.length > 1 ? `${polygons.length} polygons, ` : "";
  return `${many}${count(points.length, "corner")}, from ${at([least(xs), least(ys)])} to ${at([most(xs), most(ys)])}`;
}

// Pictures and regions to begin with.

export const isOpen = () => !$("page-region").hidden;

/** Takes the first of these files as the picture. */
export async function take([file]) {
  if (!file) return;
  const url = URL.createObjectURL(file);
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    URL.revokeObjectURL(url);
    return say("This browser cannot show this kind of file. Save the picture as PNG or JPEG.", true);
  }
  const { naturalWidth: width, naturalHeight: height } = image;
  if (!drawing.fit(width, height)) {
    URL.revokeObjectURL(url);
    const [w, t] = drawing.drawn().size;
    return say(`This picture has ${width} × ${height} pixels, and what is drawn belongs on one of the shape ${w} × ${t}. Choose “Start again” first.`, true);
  }
  if (picture) URL.revokeObjectURL(picture.url);
  picture = { name: file.name || "pasted picture", url, width, height };
  cursor = null;
  frame();
  draw();
  say(`${picture.name}, ${width} × ${height} pixels. Click the corners of a zone.`);
}

async function load() {
  const name = $("region-category").value;
  let detail;
  try {
    detail = await json(`v1/categories/${encodeURIComponent(name)}`);
  } catch (problem) {
    return say(sentences(problem).join(" "), true);
  }
  const region = detail.card?.preprocessing.region;
  if (!detail.card) return say(`The category ${name} is refused; its region is not known.`, true);
  if (!region) return say(`The category ${name} has no region yet: the whole picture counts.`, true);
  if (picture && Math.abs((picture.width * region.height) / (picture.height * region.width) - 1) > 0.01) {
    return say(`The region of ${name} was drawn on a picture of ${region.width} × ${region.height} pixels; this picture has another shape. Choose another picture.`, true);
  }
  drawing.open(region, detail.card.zone_thresholds);
  selected = null;
  frame();
  draw();
  const ignored = region.ignored.length ? ` and ${count(region.ignored.length, "ignored place")}` : "";
  say(`The region of ${name}: ${count(region.zones.length, "zone")}${ignored}.${picture ? "" : " Choose a picture to see them on a part."}`);
}

/** The frame of the picture, in its shape. */
function frame() {
  const [width, height] = drawing.drawn().size ?? [picture?.width ?? 0, picture?.height ?? 0];
  $("region-stage").hidden = $("region-tools").hidden = !width;
  if (!width) return;
  const place = h("div", { className: "frame" });
  place.style.setProperty("--shape", `${width} / ${height}`);
  place.style.setProperty("--ratio", width / height);
  if (picture) place.append(h("img", { src: picture.url, alt: `Photograph ${picture.name}` }));
  place.append(board);
  $("region-stage").replaceChildren(place);
}

// The drawing.

function draw() {
  const { size, shapes, begun } = drawing.drawn();
  if (!shapes.some(({ id }) => id === selected)) selected = null;
  listShapes();
  tellOfFile();
  $("region-undo").disabled = !drawing.canUndo();
  $("region-close").disabled = (begun?.length ?? 0) < 3;
  $("region-clear").disabled = !shapes.length && !begun;
  if (size) drawBoard();
}

function drawBoard() {
  const { size: [width, height], shapes, begun } = drawing.drawn();
  const focused = document.activeElement?.dataset?.corner;
  board.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const { pattern, fill } = hatching(width, height);
  const named = naming(width, height);
  board.replaceChildren(
    pattern,
    ...shapes.map((shape) =>
      svg("g", { class: shape.kind === "zone" ? "zone" : "ignored", "data-shape": shape.id, "data-selected": shape.id === selected },
        ...shape.polygons.flatMap((polygon) => [...(shape.kind === "ignored" ? [fill(polygon)] : []), ...outline(polygon)]),
        ...(shape.kind === "zone" ? [named(shape.name, shape.polygons)] : []))),
    ...(begun ? [beginning(begun)] : []),
    ...shapes.filter(({ id }) => id === selected && !begun).flatMap(dots),
    cursor ? cross(cursor) : "",
  );
  if (focused) focusOn(board.querySelector(`[data-corner="${focused}"]`));
}

function beginning(points) {
  const first = circle("first", points[0], scaled(points.length < 3 ? DOT.visible : CLOSE_AT));
  return svg("g", { class: "begun" }, ...openLine(points), first, ...points.slice(1).map((point) => circle("dot", point, scaled(DOT.visible))));
}

const circle = (name, [x, y], r) => svg("circle", { class: name, cx: x + 0.5, cy: y + 0.5, r });

/** The corners of a shape, to be moved by hand or with the arrow keys. */
function dots(shape) {
  if (shape.polygons.flat().length > MOST_DOTS) return [];
  return shape.polygons.flatMap((polygon, index) =>
    polygon.map((point, corner) =>
      svg("g", { class: "corner", tabindex: 0, role: "button", "data-corner": `${index}-${corner}`, "aria-label": `Corner ${corner + 1} of ${titleOf(shape)}, at ${at(point)}` },
        circle("reach", point, scaled(DOT.reach)), circle("dot", point, scaled(DOT.visible)))));
}

// With mouse and finger.

function click(event) {
  if (held) return; // it ended a move
  cursor = pointAt(event);
  const { begun } = drawing.drawn();
  const isFirst = begun?.length >= 3 && Math.hypot(...begun[0].map((value, axis) => value - cursor[axis])) <= scaled(CLOSE_AT);
  if (isFirst) close();
  else addCorner(cursor);
}

function addCorner(point) {
  drawing.addCorner(point);
  selected = null;
  draw();
  const { length } = drawing.drawn().begun;
  const next = ["Go on with the next one.", "Go on with the next one.", "To close the polygon, click its first corner or press Enter."][Math.min(length, 3) - 1];
  say(`Corner ${length} at ${at(point)}. ${next}`);
}

function close() {
  const kind = document.querySelector("[name=region-kind]:checked").value;
  const shape = drawing.close(kind);
  if (!shape) return say("A polygon needs three corners.", true);
  selected = shape.id;
  draw();
  say(kind === "zone" ? `Closed: ${titleOf(shape)}. Give it a name.` : `Closed: ${titleOf(shape)}.`);
  if (kind === "zone" && !matchMedia("(pointer: coarse)").matches) $(`shape-${shape.id}-name`).select();
}

function grab(event) {
  const corner = event.target.closest(".corner");
  if (!corner) return;
  event.preventDefault();
  const [polygon, index] = corner.dataset.corner.split("-").map(Number);
  held = { polygon, index, id: selected, point: null };
  board.setPointerCapture(event.pointerId);
}

function move(event) {
  if (!held) return;
  held.point = pointAt(event);
  const shape = drawing.drawn().shapes.find(({ id }) => id === held.id);
  const points = shape.polygons[held.polygon].with(held.index, held.point);
  const lines = board.querySelectorAll(`[data-shape="${held.id}"] polygon`);
  const each = lines.length / shape.polygons.length;
  const moved = points.map(([x, y]) => `${x + 0.5},${y + 0.5}`).join(" ");
  [...lines].slice(held.polygon * each, (held.polygon + 1) * each).forEach((line) => line.setAttribute("points", moved));
  for (const one of board.querySelectorAll(`[data-corner="${held.polygon}-${held.index}"] circle`)) {
    one.setAttribute("cx", held.point[0] + 0.5);
    one.setAttribute("cy", held.point[1] + 0.5);
  }
}

function release() {
  if (!held) return;
  if (held.point) put(held.id, held.polygon, held.index, held.point);
  setTimeout(() => (held = null)); // after the click that follows
}

function put(id, polygon, index, point) {
  drawing.setCorner(id, polygon, index, point);
  draw();
  say(point ? `Corner ${index + 1} at ${at(point)}.` : "The corner is gone, unless only three are left.");
}

// With the keyboard.

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const corner = event.target.closest(".corner");
  const done = corner ? pressOnCorner(event, corner) : pressOnBoard(event);
  if (done) event.preventDefault();
}

function pressOnBoard(event) {
  const { begun } = drawing.drawn();
  const to = stepped(cursor ?? middle(), event);
  if (to) {
    cursor = to;
    drawBoard();
    say(at(cursor));
  } else if (event.key === " ") {
    cursor ??= middle();
    addCorner(cursor);
  } else if (event.key === "Enter") close();
  else if (event.key === "Backspace") undo();
  else if (event.key === "Escape" && begun) {
    drawing.giveUp();
    draw();
    say("The polygon that was begun is gone.");
  } else return false;
  return true;
}

function pressOnCorner(event, { dataset }) {
  const [polygon, index] = dataset.corner.split("-").map(Number);
  const point = drawing.drawn().shapes.find(({ id }) => id === selected).polygons[polygon][index];
  const to = stepped(point, event);
  if (to) put(selected, polygon, index, to);
  else if (event.key === "Delete") put(selected, polygon, index, null);
  else return false;
  return true;
}

function undo() {
  const before = drawing.drawn().size;
  drawing.undo();
  if (picture && !drawing.drawn().size) drawing.fit(picture.width, picture.height);
  if (drawing.drawn().size !== before) frame();
  draw();
  say("The last step is undone.");
}

// The list of what is drawn.

function listShapes() {
  const { shapes } = drawing.drawn();
  const focused = document.activeElement?.id;
  $("region-none").hidden = shapes.length > 0;
  $("region-shapes").replaceChildren(...shapes.map(row));
  if (focused?.startsWith("shape-")) focusOn($(focused));
}

function row(shape) {
  const fields = shape.kind === "zone" ? [
    field(shape, "name", "Name", drawing.isName, drawing.rename),
    field(shape, "threshold", "Threshold", drawing.isThreshold, drawing.setThreshold, { inputMode: "decimal", placeholder: "the category’s" }),
  ] : [h("strong", {}, titleOf(shape)[0].toUpperCase() + titleOf(shape).slice(1))];
  return h("li", { "data-shape": shape.id, "data-selected": shape.id === selected },
    h("div", { className: "fields" }, fields),
    aside(extentOf(shape)),
    h("div", { className: "buttons" },
      h("button", { className: "quiet tiny", id: `shape-${shape.id}-corners`, "aria-label": `Show the corners of ${titleOf(shape)}`, onclick: () => showCorners(shape) }, "Corners"),
      h("button", { className: "quiet tiny", id: `shape-${shape.id}-delete`, "aria-label": `Delete ${titleOf(shape)}`, onclick: () => remove(shape) }, "Delete")));
}

function field(shape, name, label, isRight, set, more = {}) {
  const id = `shape-${shape.id}-${name}`;
  const input = h("input", { id, type: "text", value: shape[name], autocomplete: "off", spellcheck: false, ...more });
  const check = () => input.setAttribute("aria-invalid", String(!isRight(input.value)));
  check();
  input.addEventListener("change", () => {
    set(shape.id, input.value);
    check();
    afterTyping();
  });
  input.addEventListener("keydown", ({ key }) => key === "Enter" && board.focus()); // which ends the typing
  return h("label", { htmlFor: id }, h("span", {}, label), input);
}

/** The list stays as it is, so that a click on one of its buttons that ended the typing finds it. */
function afterTyping() {
  drawBoard();
  tellOfFile();
  $("region-undo").disabled = !drawing.canUndo();
}

function showCorners(shape) {
  select(shape.id);
  const first = board.querySelector(".corner");
  if (!first) return say(`It has more than ${MOST_DOTS} corners; draw it anew to change it.`, true);
  first.focus();
}

function select(id) {
  if (selected === id) return;
  selected = id;
  for (const item of $("region-shapes").children) item.dataset.selected = item.dataset.shape === String(id);
  drawBoard();
}

function remove(shape) {
  const title = titleOf(shape);
  drawing.remove(shape.id);
  draw();
  say(`Deleted: ${title}.`);
  $("region-undo").focus();
}

// The file.

function tellOfFile() {
  const wrong = drawing.wrong();
  const name = $("region-category").value || "my-part";
  $("region-save").disabled = wrong.length > 0;
  $("region-wrong").replaceChildren(...wrong.map((sentence) => h("li", {}, sentence)));
  $("region-train").textContent = `eca-inspect train my-part --normal photos/good --region ${FILE}`;
  $("region-change").textContent = `eca-inspect region ${name} ${FILE} --normal photos/more-good`;
}

function listCategories() {
  const select = $("region-category");
  const names = (lastSaid().categories ?? []).map(({ category }) => category);
  if (JSON.stringify([...select.options].map(({ value }) => value)) === JSON.stringify(names)) return;
  const before = select.value;
  select.replaceChildren(...names.map((value) => h("option", { value }, value)));
  select.value = names.includes(before) ? before : (names[0] ?? "");
  $("region-load").disabled = names.length === 0;
  tellOfFile();
}

/** Shows the page; a category may be named to begin with. */
export function show(name) {
  listCategories();
  if ([...$("region-category").options].some(({ value }) => value === name)) $("region-category").value = name;
  draw();
}

export function start() {
  $("region-picture").addEventListener("change", (event) => {
    take([...event.target.files]);
    event.target.value = "";
  });
  $("region-load").addEventListener("click", load);
  $("region-category").addEventListener("change", tellOfFile);
  $("region-undo").addEventListener("click", undo);
  $("region-close").addEventListener("click", close);
  $("region-clear").addEventListener("click", () => {
    drawing.clear();
    draw();
    say("Nothing is drawn any more.");
  });
  $("region-save").addEventListener("click", () => {
    save(FILE, [drawing.written()], "application/json");
    say(`${FILE} is downloaded.`);
  });
  $("region-shapes").addEventListener("focusin", ({ target }) => select(Number(target.closest("li").dataset.shape)));
  $("page-region").addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key !== "z" || event.target.matches("input[type=text]")) return;
    event.preventDefault();
    undo();
  });
  new ResizeObserver(() => drawing.drawn().size && !held && drawBoard()).observe(board);
  server.addEventListener("change", listCategories);
}
