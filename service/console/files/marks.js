// Boxes on the picture of an inspection, which say where the fault is. The pages History and Review use them.

import { newBoard } from "./board.js";
import { announce, focusOn, h, keyed, svg } from "./dom.js";
import { boxed } from "./shapes.js";

const NEAR = 5; // CSS pixels: a shorter way is a click

/** The boxes for the next label of `seen`, {detail, etag}: those of the label with the version `base`, until they are `changed`. */
function marksOf(seen) {
  const [now] = seen.detail.labels;
  if (!seen.marks?.changed) seen.marks = { boxes: now?.boxes ?? [], base: now?.version };
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
  const people = labels.map(({ actor, reviewer }) => `${actor}\n${reviewer}`);
  const last = labels.filter(({ version }, index) => people.indexOf(people[index]) === index && version !== base);
  return last.flatMap(({ boxes, reviewer, actor }) => boxes.map((box) => [box, reviewer || actor || "another person"]));
}

const described = ({ x, y, width, height }) => `${width} × ${height} pixels at ${x}, ${y}`;

/** Lets a person mark places on the pictures that a stage shows one after the other.
 * @param place where the button and the list of the boxes are */
export function markable(stage, place) {
  let seen = null; // the inspection that is shown
  let on = false; // whether the board takes boxes
  let begun = null; // the first corner of a box
  let cursor = null; // the other one, or where the keys are
  let held = null; // which corner the pointer sets
  const size = () => [seen.detail.image.width, seen.detail.image.height];
  const { board, scaled, pointAt, middle, stepped, cross } = newBoard({ class: "marks", role: "application", "aria-label": "Picture, to mark the fault" }, size, {
    pointerdown(event) {
      if (!on || event.button) return;
      if (!event.isPrimary) return giveUp(); // two fingers zoom
      focusOn(board);
      board.setPointerCapture(event.pointerId);
      held = begun ? "second" : "first";
      if (!begun) begin(pointAt(event));
    },
    pointermove(event) {
      if (!begun || !event.isPrimary) return;
      cursor = pointAt(event);
      draw();
    },
    pointerup(event) {
      const [x, y] = pointAt(event);
      const isNear = begun && Math.hypot(x - begun[0], y - begun[1]) < scaled(NEAR);
      if (held && !isNear) end([x, y]);
      else if (held === "second") giveUp();
      held = null;
    },
    pointercancel: giveUp,
    dblclick: (event) => on && event.stopPropagation(),
    keydown(event) {
      if (!on || event.ctrlKey || event.metaKey || event.altKey) return;
      const { key } = event;
      const removes = key === "Backspace" || key === "Delete";
      const to = stepped(cursor ?? middle(), event);
      if (to) {
        cursor = to;
        draw();
        announce(begun ? described(boxTo(cursor)) : cursor.join(", "));
      } else if (event.repeat) return;
      else if (key === " " || (key === "Enter" && begun)) (begun ? end : begin)(cursor ?? middle());
      else if ((removes || key === "Escape") && begun) giveUp();
      else if (key === "Escape") {
        toggle(false);
        button.focus();
      } else if (removes) {
        const { length } = marksOf(seen).boxes;
        if (length) remove(length - 1);
      } else return;
      event.preventDefault();
      event.stopPropagation(); // they have another meaning elsewhere
    },
  });
  const button = keyed("Mark the fault", "b", () => toggle());
  const help = h("p", { className: "small" }, "Drag over the fault, or click two corners. Keys: arrows (Shift: one pixel), Space sets a corner, Backspace removes a box, Esc ends.");
  const list = h("ul", { className: "small", "aria-label": "Marked places" });

  function boxTo([x, y]) {
    const [left, top] = begun;
    return { x: Math.min(left, x), y: Math.min(top, y), width: Math.abs(left - x) + 1, height: Math.abs(top - y) + 1 };
  }

  function draw() {
    const { boxes } = marksOf(seen);
    const others = otherBoxes(seen);
    const one = (name, box, words) => svg("g", { class: name }, ...boxed(box, words, Math.max(...size())));
    board.setAttribute("viewBox", `0 0 ${size().join(" ")}`);
    board.replaceChildren(
      ...others.map(([box, name]) => one("other", box, name)),
      ...boxes.map((box, index) => one("mark", box, index + 1)),
      begun ? one("begun", boxTo(cursor), "") : "",
      on && cursor ? cross(cursor) : "");
    list.replaceChildren(
      ...boxes.map((box, index) => h("li", {}, `Box ${index + 1}: ${described(box)}`,
        button.hidden ? null : h("button", { className: "tiny", "aria-label": `Remove box ${index + 1}`, onclick: () => remove(index) }, "Remove"))),
      ...others.map(([box, name]) => h("li", { className: "muted" }, `${name}: ${described(box)}`)));
  }

  function change(boxes, words) {
    seen.marks = { ...marksOf(seen), boxes, changed: true };
    draw();
    announce(words);
  }

  function remove(index) {
    change(marksOf(seen).boxes.toSpliced(index, 1), `Box ${index + 1} is removed.`);
    if (!on) button.focus();
  }

  function begin(point) {
    begun = cursor = point;
    draw();
    announce(`Corner at ${point.join(", ")}. Set the opposite one.`);
  }

  function end(point) {
    const { boxes } = marksOf(seen);
    const box = boxTo(point);
    begun = null;
    change([...boxes, box], `Box ${boxes.length + 1}: ${described(box)}.`);
  }

  function giveUp() {
    begun = held = null;
    draw();
  }

  /** Begins to take boxes, or ends it. */
  function toggle(to = !on) {
    if (button.hidden) return;
    on = to;
    cursor = null;
    button.ariaPressed = String(on);
    help.hidden = board.ariaHidden = !on;
    board.classList.toggle("board", on);
    board.setAttribute("tabindex", on ? 0 : -1);
    giveUp();
    if (!on) return;
    focusOn(board);
    announce(help.textContent);
  }

  return {
    toggle,

    /** Shows the boxes of an inspection on the picture that is in the stage. Without a picture none are taken. */
    show(next, hasPicture) {
      seen = next;
      place.replaceChildren(button, help, list);
      stage.querySelector(".frame").append(board);
      button.hidden = false;
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
