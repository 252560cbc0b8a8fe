// The cards of what decided: asked for once for each version.

import { json } from "./api.js";
import { sameRule } from "./standing.js";

const KEPT = 20;

let cards = new Map(); // category, version and threshold -> promise of the card

/** The card of what decided, or null where it does not serve any more. */
export function cardOf(answer) {
  const { category, model_version: version, threshold } = answer;
  const name = `${category} ${version} ${threshold}`;
  if (!cards.has(name)) {
    const asked = json(`v1/categories/${encodeURIComponent(category)}`)
      .catch(() => null)
      .then((found) => (found?.card && sameRule(found, answer) ? found.card : null));
    cards = new Map([...cards].slice(-KEPT)).set(name, asked);
    asked.then((card) => card ?? cards.delete(name)); // it may be back later
  }
  return cards.get(name);
}
