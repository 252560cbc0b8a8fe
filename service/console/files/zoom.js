// Zoom of a large picture: wheel, two fingers, double-click, and keys. Each new picture begins whole.

const MOST = 16;
const STEP = 1.5;
const CLOSER = 3; // of a double-click
const MOVE = 60; // pixels

const views = new WeakMap(); // frame -> {scale, x, y}; x and y are shares of the frame
const others = new WeakMap(); // frame -> the one beside it

function change(frame, to) {
  const view = { ...viewOf(frame), ...to };
  const within = (value) => Math.min(0, Math.max(1 - view.scale, value));
  view.x = within(view.x);
  view.y = within(view.y);
  for (const one of [frame, others.get(frame)].filter(Boolean)) {
    views.set(one, view);
    one.style.transform = view.scale > 1 ? `translate(${100 * view.x}%, ${100 * view.y}%) scale(${view.scale})` : "";
    one.style.setProperty("--zoom", view.scale);
    one.parentNode?.classList.toggle("zoomed", view.scale > 1);
  }
}

/** Two frames show the same place from now on, that of the first one. */
export function together(frame, other) {
  others.set(frame, other).set(other, frame);
  change(frame, {});
}

const viewOf = (frame) => views.get(frame) ?? { scale: 1, x: 0, y: 0 };

/** Multiplies the scale; the place under this point of the window, or the middle of what is seen, stays where it is. */
function zoom(frame, factor, point) {
  const { scale, x, y } = viewOf(frame);
  const box = frame.getBoundingClientRect();
  const [left, top] = point ? [(point.clientX - box.left) / frame.offsetWidth, (point.clientY - box.top) / frame.offsetHeight] : [0.5 - x, 0.5 - y];
  const next = Math.min(MOST, Math.max(1, scale * factor));
  change(frame, { scale: next, x: x + left * (1 - next / scale), y: y + top * (1 - next / scale) });
}

const move = (frame, right, down) => change(frame, { x: viewOf(frame).x + right / frame.offsetWidth, y: viewOf(frame).y + down / frame.offsetHeight });

/** Lets the person zoom what a stage shows. */
export function zoomable(stage) {
  stage.classList.add("zoomable");
  stage.title = "Zoom: wheel, two fingers, double-click, keys + and -";
  const fingers = new Map();
  const frameOf = () => stage.querySelector(".frame");
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return { size: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY), clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 };
  };
  stage.addEventListener("wheel", (event) => {
    const frame = frameOf();
    if (!frame || (event.deltaY > 0 && viewOf(frame).scale === 1)) return; // the page scrolls
    event.preventDefault();
    zoom(frame, 1.002 ** -event.deltaY, event);
  }, { passive: false });
  stage.addEventListener("dblclick", (event) => {
    const frame = frameOf();
    if (frame) viewOf(frame).scale > 1 ? change(frame, { scale: 1 }) : zoom(frame, CLOSER, event);
  });
  stage.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, event);
    if (frameOf() && viewOf(frameOf()).scale > 1) event.preventDefault(); // no dragging of the image itself
  });
  stage.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    const frame = frameOf();
    if (!before || !frame) return;
    const from = fingers.size === 2 ? spread() : null;
    fingers.set(event.pointerId, event);
    if (from) zoom(frame, spread().size / from.size, spread());
    else if (!event.target.closest(".board")) move(frame, event.clientX - before.clientX, event.clientY - before.clientY);
  });
  for (const name of ["pointerup", "pointercancel", "pointerleave"]) stage.addEventListener(name, ({ pointerId }) => fingers.delete(pointerId));
  stage.addEventListener("touchmove", (event) => event.touches.length > 1 && event.preventDefault(), { passive: false });
  stage.addEventListener("dragstart", (event) => event.preventDefault());
}

addEventListener("keydown", (event) => {
  const { key, target, shiftKey } = event;
  const frame = [...document.querySelectorAll(".zoomable > .frame")].find((one) => one.offsetParent);
  if (!frame || event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select, textarea, dialog, .scroll")) return;
  const arrow = { ArrowLeft: [MOVE, 0], ArrowRight: [-MOVE, 0], ArrowUp: [0, MOVE], ArrowDown: [0, -MOVE] }[key];
  if (key === "+" || key === "=") zoom(frame, STEP);
  else if (key === "-") zoom(frame, 1 / STEP);
  else if (key === "0") change(frame, { scale: 1 });
  else if (shiftKey && arrow && viewOf(frame).scale > 1) move(frame, ...arrow);
  else return;
  event.preventDefault();
});
