// A good part beside the one that a person judges, with the same zoom.

import { ANSWER_MS, json } from "./api.js";
import { announce, dated, h, keyed } from "./dom.js";
import { byWhom, pathOf, pictureOf, said } from "./labels.js";
import { forgetPictureIn, showPicture } from "./picture.js";
import { together, zoomable } from "./zoom.js";

/** @param pair what is around the stage; the good part comes into it
 * @param place where the button comes */
export function comparable(stage, pair, place) {
  const other = h("div", { className: "stage" });
  const words = h("p", { className: "small muted" });
  const good = h("figure", { hidden: true, "aria-label": "A good part" }, other, words);
  const button = keyed("Compare with a good part", "c", toggle);
  let seen = null; // the inspection that is shown, {detail}
  let on = false;
  let left = new AbortController();
  pair.classList.add("beside");
  pair.append(good);
  place.append(button);
  zoomable(other);

  async function draw() {
    const { signal } = left;
    let told;
    try {
      const found = await json(pathOf(seen.detail.id, "/nearest-good"), { signal, limit: ANSWER_MS });
      const file = await pictureOf(found, signal);
      if (signal.aborted) return;
      const name = found.part_id ? `part ${found.part_id}` : "no part id";
      showPicture(other, { name: `of a good part, ${name}`, file, answer: found });
      told = found.said ? `Labelled good ${byWhom(found.said)}` : "Accepted, nobody has labelled it";
      words.replaceChildren(`${told}. Inspected ${dated(found.time)}, `, h("a", { href: `#/history/${found.id}` }, name), ".");
      together(...[stage, other].map((one) => one.querySelector(".frame")));
    } catch (error) {
      if (signal.aborted) return;
      words.textContent = told = said(error);
    }
    announce(told);
  }

  function forget() {
    left.abort();
    left = new AbortController();
    words.textContent = "";
    forgetPictureIn(other);
    button.hidden = true;
    seen = null;
  }

  /** The picture of an inspection is in the stage. */
  function show(next) {
    forget();
    seen = next;
    button.hidden = false;
    button.ariaPressed = String(on);
    good.hidden = !on;
    pair.classList.toggle("both", on);
    if (on) draw();
  }

  function toggle() {
    if (!seen) return;
    on = !on;
    show(seen);
  }

  return { show, toggle, forget };
}
