// Small helpers for the page's elements, and how numbers are written.

export const $ = (id) => document.getElementById(id);

/** An element with properties, attributes (those with a dash, and role) and children; null children are left out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  if (tag === "button") element.type = "button"; // if nothing else is said
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else if (value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

/** A button that a key presses as well. */
export const keyed = (words, key, onclick) =>
  h("button", { className: "quiet", hidden: true, "aria-pressed": "false", "aria-keyshortcuts": key, onclick }, words, h("kbd", {}, key));

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** One of the shapes at the top of index.html. */
export const icon = (name) => svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#${name}` }));

export const panelOf = (title, ...children) => h("section", { className: "panel" }, h("h3", {}, title), ...children);

export const aside = (...children) => h("p", { className: "small muted" }, ...children);

/** Gives an element the focus, if there is one, and leaves the page where it is. */
export const focusOn = (element) => element?.focus({ preventScroll: true });

/** A list of names and values. */
export const record = (rows) =>
  h("dl", { className: "record" }, rows.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));

/** The head of a table; a column may be without a name. */
export const heads = (...names) => h("thead", {}, h("tr", {}, names.map((name) => (name ? h("th", { scope: "col" }, name) : h("td")))));

/** A line that explains colours and strokes: [class of the sign, words]. */
export const key = (...entries) => h("p", { className: "small muted key" }, entries.map(([sign, words]) => h("span", {}, h("i", { className: sign }), words)));

export const significant = (value, digits = 3) =>
  value === 0 ? "0" : Math.abs(value) >= 1e5 || Math.abs(value) < 1e-4 ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits)));

export const percent = (share) => `${Number((100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0))} %`;

export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

export const milliseconds = (value) => (value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value >= 100 ? value.toFixed(0) : value.toFixed(1)} ms`);

/** A day and a time of day, as people here write them. */
export const dated = (time) => new Date(time).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });

export const clock = (time) => new Date(time).toLocaleTimeString();

export function ago(time, now = Date.now()) {
  const seconds = Math.max(0, (now - time) / 1000);
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min ago` : `${Math.floor(seconds / 3600)} h ago`;
}

/** Gives the person a file. */
export function save(name, parts, type) {
  const url = URL.createObjectURL(new Blob(parts, { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Says something to those who use a screen reader, when they have heard what they were hearing. */
export function announce(text) {
  $("announcer").textContent = text;
}

/** Asks a person before something is changed. Resolves to whether they want it. */
export function ask(title, text, yes, no = "Leave it") {
  const dialog = $("ask-dialog");
  for (const [id, words] of Object.entries({ title, text, yes, no })) $(`ask-${id}`).textContent = words;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}
