// Boxes on the picture of an inspection, which say where the fault is. The pages History and Review use them.

import { newBoard } from "./board.js";
import { announce, h, svg } from "./dom.js";
import { boxed } from "./shapes.js";

const MOST = 100; // boxes of a label
const NEAR = 5; // CSS pixels: a shorter way is a click

/** The boxes that go with the next label of `seen`, {detail, etag}: `boxes`, those of the label with the version `base` until
 * they are `changed` here. */
export function marksOf(seen) {
  const [now] = seen.detail.labels;
  if (!seen.marks?.changed) seen.marks = { boxes: now?.boxes ?? [], base: now?.version, changed: false };
  return seen.marks;
}

/** The boxes to send with a label; null if it is that of a good part, and a person has just marked a fault. */
export function boxesFor(seen, label) {
  const { boxes, changed } = marksOf(seen);
  if (label !== "normal") return boxes;
  return changed && boxes.length ? null : [];
}

/** Boxes of other labels, the last one of each person: [box, by whom]. */
function otherBoxes({ detail: { labels }, marks: { base } }) {
  const person = ({ actor, reviewer }) => JSON.stringify([actor, reviewer]);
  const people = labels.map(person);
  const last = labels.filter((label, index) => people.indexOf(people[index]) === index && label.version !== base);
  return last.flatMap(({ boxes, reviewer, actor }) => boxes.map((box) => [box, reviewer || actor || "somebody else"]));
}

const described = ({ x, y, width, height }) => `${width} × ${height} pixels at ${x}, ${y}`;

/** Lets a person mark places on the pictures that a stage shows one after the other.
 * @param place where the button and the list of the boxes are */
export function markable(stage, place) {
  let seen = null; // the inspection that is shown
  let on = false; // whether the board takes boxes
  let begun = null; // the first corner of a box
  let cursor = null; // the other one, or where the keys are
  let held = null; // where the pointer went down
  const size = () => [seen.detail.image.width, seen.detail.image.height];
  const { board, scaled, pointAt, middle, stepped, cross } = newBoard({ class: "marks" }, size);
  const button = h("button", { type: "button", className: "quiet", hidden: true, "aria-keyshortcuts": "b", onclick: () => toggle() }, "Mark the fault", h("kbd", {}, "b"));
  const help = h("p", { className: "small" }, "Drag over the fault, or click two corners. With keys: arrows (Shift: one pixel), Space for a corner, Backspace removes the last box, Esc ends.");
  const list = h("ul", { className: "small", "aria-label": "Marked places" });

  const boxTo = ([x, y]) => ({ x: Math.min(begun[0], x), y: Math.min(begun[1], y), width: Math.abs(begun[0] - x) + 1, height: Math.abs(begun[1] - y) + 1 });

  function draw() {
    const [width, height] = size();
    const { boxes } = marksOf(seen);
    const others = otherBoxes(seen);
    const one = (name, box, words) => svg("g", { class: name }, ...boxed(box, words, Math.max(width, height)));
    board.setAttribute("viewBox", `0 0 ${width} ${height}`);
    board.replaceChildren(
      ...others.map(([box, name]) => one("other", box, name)),
      ...boxes.map((box, index) => one("mark", box, `${index + 1}`)),
      begun ? one("mark begun", boxTo(cursor), "") : "",
      on && cursor ? cross(cursor) : "");
    list.replaceChildren(
      ...boxes.map((box, index) => h("li", {}, `Box ${index + 1}: ${described(box)}`, removal(index))),
      ...others.map(([box, name]) => h("li", { className: "muted" }, `${name}: ${described(box)}`)));
  }

  function removal(index) {
    const words = { type: "button", className: "quiet tiny", "aria-label": `Remove box ${index + 1}`, onclick: () => remove(index) };
    return button.hidden ? null : h("button", words, "Remove");
  }

  function change(boxes, words) {
    Object.assign(marksOf(seen), { boxes, changed: true });
    draw();
    announce(words);
  }

  function remove(index) {
    change(marksOf(seen).boxes.toSpliced(index, 1), `Box ${index + 1} is removed.`);
    if (!on) button.focus();
  }

  /** The second corner. */
  function end(point) {
    const { boxes } = marksOf(seen);
    const box = boxTo(point);
    begun = null;
    if (boxes.length < MOST) return change([...boxes, box], `Box ${boxes.length + 1}: ${described(box)}.`);
    draw();
    announce(`A label has ${MOST} boxes at most.`);
  }

  function giveUp() {
    begun = held = null;
    draw();
  }

  /** Begins to take boxes, or ends it. */
  function toggle(to = !on) {
    if (button.hidden) return;
    on = to;
    begun = held = cursor = null;
    button.ariaPressed = String(on);
    help.hidden = !on;
    board.classList.toggle("board", on);
    for (const [name, value] of [["role", "application"], ["tabindex", 0], ["aria-label", "Picture, to mark the fault"]]) on ? board.setAttribute(name, value) : board.removeAttribute(name);
    board.ariaHidden = String(!on);
    draw();
    if (on) {
      board.focus({ preventScroll: true });
      announce(help.textContent);
    }
  }

  board.addEventListener("pointerdown", (event) => {
    if (!on) return;
    if (!event.isPrimary) return giveUp(); // two fingers zoom
    if (event.button) return;
    board.focus({ preventScroll: true });
    board.setPointerCapture(event.pointerId);
    held = { at: event, isFirst: !begun };
    cursor = pointAt(event);
    begun ??= cursor;
    draw();
  });
  board.addEventListener("pointermove", (event) => {
    if (!on || !begun || !event.isPrimary) return;
    cursor = pointAt(event);
    draw();
  });
  board.addEventListener("pointerup", (event) => {
    if (!held) return;
    const { at, isFirst } = held;
    held = null;
    const point = pointAt(event);
    const isClick = Math.hypot(event.clientX - at.clientX, event.clientY - at.clientY) < NEAR;
    if (isFirst && isClick) announce(`Corner at ${point.join(", ")}. Click the opposite one.`);
    else if (Math.hypot(point[0] - begun[0], point[1] - begun[1]) < scaled(NEAR)) giveUp(); // twice the same place
    else end(point);
  });
  board.addEventListener("pointercancel", giveUp);
  board.addEventListener("dblclick", (event) => on && event.stopPropagation());
  board.addEventListener("keydown", (event) => {
    if (!on || event.ctrlKey || event.metaKey || event.altKey) return;
    board.classList.add("keys");
    const { key } = event;
    const { boxes } = marksOf(seen);
    const to = stepped(cursor ?? middle(), event);
    if (to) {
      cursor = to;
      draw();
      announce(begun ? described(boxTo(cursor)) : cursor.join(", "));
    } else if (event.repeat) return;
    else if (key === " " || (key === "Enter" && begun)) {
      cursor ??= middle();
      if (begun) end(cursor);
      else {
        begun = cursor;
        draw();
        announce(`Corner at ${begun.join(", ")}.`);
      }
    } else if (["Backspace", "Delete", "Escape"].includes(key) && begun) giveUp();
    else if (key === "Escape") {
      toggle(false);
      button.focus();
    } else if (["Backspace", "Delete"].includes(key)) boxes.length && remove(boxes.length - 1);
    else return;
    event.preventDefault();
    event.stopPropagation(); // they have another meaning elsewhere
  });

  return {
    toggle,

    /** Shows the boxes of an inspection on the picture that is in the stage. Without a picture none are taken. */
    show(next, hasPicture) {
      seen = next;
      button.hidden = false;
      place.replaceChildren(button, help, list);
      stage.querySelector(".frame").append(board);
      toggle(false);
      button.hidden = !hasPicture;
      draw();
    },

    /** After a label was given, or was not taken. */
    renew: () => seen && draw(),

    forget() {
      seen = null;
      button.hidden = true;
      place.replaceChildren();
    },
  };
}
