// An image with its heat map and its regions over it.

import { h, svg } from "./dom.js";
import { boxed } from "./shapes.js";

const LARGEST = 1280; // pixels of a side of the coloured heat map
const NORMAL = 64; // value of the heat map that normal parts reach

/** Colour of each value of the heat map, RGBA: clear below half of what normal parts reach, then yellow to dark red. */
const COLOURS = (() => {
  const stops = [
    [0, 255, 224, 102, 0],
    [NORMAL / 2, 255, 224, 102, 0],
    [NORMAL, 255, 214, 10, 130],
    [128, 255, 122, 0, 205],
    [192, 220, 30, 30, 235],
    [255, 128, 0, 64, 250],
  ];
  const table = new Uint8ClampedArray(4 * 256);
  for (let value = 0, stop = 0; value < 256; value += 1) {
    while (value > stops[stop + 1][0]) stop += 1;
    const [from, to] = [stops[stop], stops[stop + 1]];
    const share = (value - from[0]) / (to[0] - from[0]);
    for (let part = 0; part < 4; part += 1) table[4 * value + part] = from[part + 1] + share * (to[part + 1] - from[part + 1]);
  }
  return table;
})();

const urls = new WeakMap(); // of each stage, the address of its picture

/** Lets go of the picture in a stage. */
export function forgetPictureIn(stage) {
  stage.querySelector("img")?.removeAttribute("src");
  stage.replaceChildren();
  if (urls.has(stage)) URL.revokeObjectURL(urls.get(stage));
  urls.delete(stage);
}

/** Shows an item in the stage, and lets go of the picture before. Where a part is anomalous and no region stands out,
 * a ring marks the strongest place of the heat map. Of a `bare` item there is no picture, only what is drawn over it. */
export async function showPicture(stage, item) {
  const { width = 4, height = 3 } = item.answer?.image ?? {};
  const frame = h("div", { className: "frame" });
  frame.style.setProperty("--shape", `${width} / ${height}`);
  frame.style.setProperty("--ratio", width / height);
  forgetPictureIn(stage);
  stage.append(frame);
  if (item.file) {
    urls.set(stage, URL.createObjectURL(item.file));
    const image = h("img", { src: urls.get(stage), alt: `Photograph ${item.name}` });
    frame.append(image);
    image.decode().then(
      () => {
        if (item.answer) return;
        frame.style.setProperty("--shape", `${image.naturalWidth} / ${image.naturalHeight}`);
        frame.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
      },
      () => image.replaceWith(h("p", { className: "missing" }, item.answer ? "This browser cannot show this kind of file." : "No picture to show.")),
    );
  } else if (!item.bare) {
    frame.append(h("p", { className: "missing" }, "The picture has been let go to save memory."));
  }
  if (!item.localization) return;
  const { heatmap_png: heat, regions, peak } = item.localization;
  const drawing = svg("svg", { class: "outlines", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  frame.append(drawing);
  drawing.append(...outlines(regions, width, height));
  if (!regions.length && item.answer.decision === "anomalous") drawing.append(ring(peak, width, height));
  if (heat) await showHeat(stage, new Blob([Uint8Array.from(atob(heat), (letter) => letter.charCodeAt(0))]), item.answer.image);
}

/** Colours a heat map, a PNG, over the picture in a stage, below the outlines. */
export async function showHeat(stage, png, { width, height }) {
  const canvas = h("canvas", { className: "heat", "aria-hidden": "true" });
  const frame = stage.querySelector(".frame");
  frame.insertBefore(canvas, frame.querySelector("svg"));
  const scale = Math.min(1, LARGEST / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const size = { resizeWidth: canvas.width, resizeHeight: canvas.height, resizeQuality: "medium", colorSpaceConversion: "none" };
  const bitmap = await createImageBitmap(png, size);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const { data } = pixels;
  for (let at = 0; at < data.length; at += 4) {
    const value = 4 * data[at];
    for (let part = 0; part < 4; part += 1) data[at + part] = COLOURS[value + part];
  }
  context.putImageData(pixels, 0, 0);
}

function ring({ x, y }, width, height) {
  const shape = { cx: x + 0.5, cy: y + 0.5, r: Math.max(width, height) / 16 };
  return svg("g", {}, svg("circle", { class: "halo", ...shape }), svg("circle", { class: "line", ...shape }));
}

function outlines(regions, width, height) {
  return regions.map(({ box }, index) => svg("g", { "data-region": index }, ...boxed(box, `${index + 1}`, Math.max(width, height))));
}

let thumbnails = Promise.resolve();

/** A small JPEG of an image file, or null if the browser cannot read it. One at a time: large ones need much memory. */
export function thumbnail(file, side = 96) {
  const next = thumbnails.then(async () => {
    try {
      const bitmap = await createImageBitmap(file);
      const scale = side / Math.min(bitmap.width, bitmap.height);
      const canvas = new OffscreenCanvas(side, side);
      const [width, height] = [bitmap.width * scale, bitmap.height * scale];
      canvas.getContext("2d").drawImage(bitmap, (side - width) / 2, (side - height) / 2, width, height);
      bitmap.close();
      return await canvas.convertToBlob({ type: "image/jpeg", quality: 0.75 });
    } catch {
      return null;
    }
  });
  thumbnails = next;
  return next;
}
