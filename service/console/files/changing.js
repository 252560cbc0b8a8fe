// What the sections of the page Categories have in common.

import { asProblem, call } from "./api.js";
import { announce, focusOn, h } from "./dom.js";
import { sentences } from "./errors.js";
import { look } from "./server.js";

export const pathOf = (category, what) => `v1/categories/${encodeURIComponent(category)}/${what}`;

/** A section with a heading that can have the focus. */
export const section = (id, title, ...children) =>
  h("section", { className: "panel task", "aria-labelledby": id }, h("h3", { id, tabIndex: -1 }, title), ...children);

/** What happened, why, and what to do. The server's own words say why. */
export function wordsOf(error) {
  const problem = asProblem(error);
  const [what, todo] = sentences(problem);
  const why = problem.detail && problem.detail !== problem.kind ? problem.detail[0].toUpperCase() + problem.detail.slice(1) : "";
  return [what, why && (/[.!?]$/.test(why) ? why : `${why}.`), todo].filter(Boolean).join(" ");
}

/** A line that tells how a change went. */
export function teller() {
  const element = h("p", { className: "told", hidden: true });
  return {
    element,
    say(text, wrong = false) {
      element.hidden = !text;
      element.textContent = text;
      element.classList.toggle("wrong", wrong);
      if (text) announce(text);
    },
  };
}

/** Calls the server to change something, while its button waits. The list of categories is asked for again.
 * @returns the answer, or null if it was refused, which is told. */
export async function change(button, { say }, path, method, body) {
  const options = body ? { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } } : { method };
  button.disabled = true;
  say("");
  try {
    const response = await call(path, options);
    const answer = response.status === 204 ? {} : await response.json();
    await look();
    return answer;
  } catch (error) {
    say(wordsOf(error), true);
    return null;
  } finally {
    button.disabled = false;
    if (document.activeElement === document.body) focusOn(button);
  }
}

/** Asks the server every few seconds, while the page is looked at, until it is ended.
 * @returns {{now: function, end: function}} `now` asks at once. */
export function repeat(ask, ms = 3000) {
  let timer = 0;
  let ended = false;
  let asking = null;
  const turn = async () => {
    clearTimeout(timer);
    if (!document.hidden) await (asking ??= ask().finally(() => (asking = null)));
    clearTimeout(timer);
    if (!ended) timer = setTimeout(turn, ms);
  };
  turn();
  return { now: turn, end: () => ((ended = true), clearTimeout(timer)) };
}
