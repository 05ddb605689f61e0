// Elements from nested calls. Every text becomes a text node: nothing is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";
// Joiners of scripts and emoji, soft hyphens, line breaks: characters without a glyph that are needed.
const NEEDED = new Set(["\n", "\t", "\u200c", "\u200d", "\u00ad"]);

/** Text in which every character can be seen: a name cannot look like another one. */
export function shown(value) {
  return String(value).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (c) =>
    NEEDED.has(c) ? c : `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}`,
  );
}

function filled(element, given, children) {
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, run] of Object.entries(value)) element.addEventListener(event, run);
    } else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : shown(child));
  }
  return element;
}

/** An HTML element with attributes and children; null and false leave one out. */
export const h = (name, given = {}, ...children) =>
  filled(document.createElement(name), given, children);

/** An SVG element. */
export const s = (name, given = {}, ...children) =>
  filled(document.createElementNS(SVG, name), given, children);

/** The element of an id. */
export const $ = (id) => document.getElementById(id);

/** A bar of a share, 0 to 1, on a track; its value stands beside it in words. */
export function bar(value, kind = "plain") {
  const part = Math.min(Math.max(Number(value) || 0, 0), 1);
  return s(
    "svg",
    { class: "bar", "aria-hidden": "true" },
    s("rect", { class: "track", width: "100%", height: "100%", rx: 3 }),
    s("rect", { class: kind, width: `${(100 * part).toFixed(2)}%`, height: "100%", rx: 3 }),
  );
}
