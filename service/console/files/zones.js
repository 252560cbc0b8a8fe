// Zones, places that are ignored, and tiles: over the picture, as a table, and in words.

import { cardOf } from "./cards.js";
import { $, aside, count, h, heads, icon, key, panelOf, significant, svg } from "./dom.js";
import { hatching, naming, outline } from "./shapes.js";

const NAMED = 3; // zones that a sentence names

const isRejected = ({ decision }) => decision === "anomalous";
const quoted = (name) => `“${name}”`;

/** Which zones rejected the part, as a sentence; nothing where none did. */
export function rejectingZones({ zones }) {
  const names = (zones ?? []).filter(isRejected).map(({ name }) => quoted(name));
  if (!names.length) return "";
  if (names.length === 1) return `The zone ${names[0]} rejected it.`;
  const more = names.length > NAMED ? [`${names.length - NAMED + 1} more`] : [];
  const listed = names.slice(0, more.length ? NAMED - 1 : NAMED);
  const [last, ...before] = [...listed, ...more].reverse();
  return `The zones ${before.reverse().join(", ")} and ${last} rejected it.`;
}

/** The table of the zones, and what is to be said of the tiles; null for a category without both. */
export function zonesPanel(stage, answer) {
  const { zones, tiles } = answer;
  if (!zones && !tiles) return null;
  const about = tiles ? aside(aboutTiles(tiles)) : null;
  if (!zones) return panelOf("Tiles", about);
  const gone = h("p", { className: "small muted", hidden: true }, "The outlines of this version are not at hand any more.");
  cardOf(answer).then((card) => (gone.hidden = Boolean(card?.preprocessing.region)));
  const point = (index, on) => stage.querySelector(`[data-zone="${index}"]`)?.classList.toggle("on", on);
  const rows = zones.map((zone, index) =>
    h("tr", { "data-decision": zone.decision, onmouseenter: () => point(index, true), onmouseleave: () => point(index, false) },
      h("th", { scope: "row" }, zone.name),
      h("td", {}, significant(zone.score)),
      h("td", {}, significant(zone.threshold)),
      h("td", {}, h("span", { className: "decision" }, icon(zone.decision), zone.decision))),
  );
  return panelOf(count(zones.length, "zone"),
    h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Zones" },
      h("table", { className: "zone-table" },
        heads("Name", "score", "threshold", "decision"),
        h("tbody", {}, rows))),
    about, gone);
}

function aboutTiles(tiles) {
  const rejected = tiles.filter(isRejected).length;
  return rejected ? `${rejected} of ${count(tiles.length, "tile")} rejected: the dashed boxes in the picture.` : `None of ${count(tiles.length, "tile")} rejected.`;
}

/** Draws them over the picture that a stage shows.
 * @returns what there is to see: `region`, null where there is none or it is not known any more, and `tiles` */
export async function drawZones(stage, { answer, file, bare }) {
  const frame = stage.querySelector(".frame");
  if (!(file || bare) || !(answer?.zones || answer?.tiles)) return null;
  const preparation = answer.zones ? (await cardOf(answer))?.preprocessing : null;
  const region = preparation?.region ?? null;
  if (frame.parentNode !== stage) return null; // another image is shown by now
  frame.append(drawing(answer, region, preparation?.alignment));
  return { region, tiles: answer.tiles };
}

/** The same with a switch that hides them, and what they mean; for the page Inspect. */
export async function showZones(stage, item) {
  const { answer, file } = item;
  const parts = [answer?.zones && "zones", answer?.tiles && "tiles"].filter(Boolean);
  $("zone-controls").hidden = !(parts.length && file);
  const words = parts.join(" and ");
  $("zones-words").textContent = words && `${words[0].toUpperCase()}${words.slice(1)}`;
  const seen = await drawZones(stage, item);
  if (seen) $("zones-key").replaceChildren(zonesKey(seen, answer));
}

/** What the strokes of `drawZones` mean. */
export const zonesKey = ({ region, tiles }, answer) =>
  key(
    ...[
      region && ["stroke zone", "zone"],
      region && answer.zones.some(isRejected) && ["stroke rejected", "zone that rejected"],
      region?.ignored.length && ["swatch ignored", "ignored"],
      tiles?.some(isRejected) && ["stroke tile", "tile that rejected"],
    ].filter(Boolean),
  );

function drawing(answer, region, reference) {
  const { image: { width, height }, zones, tiles } = answer;
  const rejected = (tiles ?? []).filter(isRejected);
  const found = svg("svg", { class: "zones", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": described(zones, region, tiles) });
  if (region) found.append(...outlines(answer, region, reference));
  found.append(...rejected.map(({ box: { x, y, width: w, height: t } }) => svg("g", { class: "tile" }, ...["halo", "line"].map((name) => svg("rect", { class: name, x, y, width: w, height: t })))));
  return found;
}

function outlines({ zones, image, alignment }, region, reference) {
  const { width, height } = image;
  const { pattern, fill } = hatching(width, height);
  const named = naming(width, height);
  const place = placing(region, alignment ? reference : image, alignment?.matrix);
  const onPicture = (polygon) => polygon.map(place);
  const ignored = region.ignored.map(onPicture).map((polygon) => svg("g", { class: "ignored" }, fill(polygon), ...outline(polygon)));
  const verdicts = new Map(zones.map((zone, index) => [zone.name, { ...zone, index }]));
  const drawn = region.zones.filter(({ name }) => verdicts.has(name)).map(({ name, outlines: polygons }) => {
    const { index, decision } = verdicts.get(name);
    const placed = polygons.map(onPicture);
    const words = isRejected({ decision }) ? `✕ ${name}` : name;
    return svg("g", { class: "zone", "data-zone": index, "data-decision": decision }, ...placed.flatMap(outline), named(words, placed));
  });
  return [pattern, ...ignored, ...drawn];
}

/** From pixels of the picture on which a region was drawn to those of this one, where the part lies in the pose of the matrix. */
function placing(region, { width, height }, matrix = [[1, 0, 0], [0, 1, 0]]) {
  const moved = (x, y) => matrix.map(([a, b, c]) => a * x + b * y + c);
  return ([x, y]) => moved(((x + 0.5) * width) / region.width - 0.5, ((y + 0.5) * height) / region.height - 0.5);
}

function described(zones, region, tiles) {
  return [
    zones && `Zones: ${zones.map(({ name, decision }) => `${name} ${decision}`).join(", ")}.`,
    region?.ignored.length && `${count(region.ignored.length, "place")} ignored.`,
    tiles && `${tiles.filter(isRejected).length} of ${count(tiles.length, "tile")} rejected.`,
  ].filter(Boolean).join(" ");
}

export function start() {
  const shade = () => $("stage").classList.toggle("bare", !$("zones").checked);
  $("zones").addEventListener("change", shade);
  shade();
}
