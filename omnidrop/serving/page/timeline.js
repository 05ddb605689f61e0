// What was kept and attended along a clip, drawn from an answer document.

import { h, s } from "./dom.js";
import { clock, number, share, span } from "./words.js";

const SHADES = 9;
const MOST_COLUMNS = 240;
const MOST_ROWS = 40;
const MOST_TABLE_ROWS = 200;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];
const KINDS = ["video", "audio"];

const sum = (values) => values.reduce((all, value) => all + value, 0);

/** Neighbours joined, so that at most `most` groups are left: [first, end) of each. */
function bins(count, most) {
  const groups = Math.min(count, most);
  return Array.from({ length: groups }, (_, i) => [
    Math.floor((i * count) / groups),
    Math.floor(((i + 1) * count) / groups),
  ]);
}

/** Parts of the clip: times, the share kept of each kind (mean of all layers), the attention. */
export function parts(trace, most = MOST_COLUMNS) {
  return bins(trace.chunks.length, most).map(([first, end]) => {
    const group = trace.chunks.slice(first, end);
    const part = { start: group[0].start, end: group.at(-1).end };
    for (const kind of KINDS) {
      const total = sum(group.map((c) => c[`${kind}_total`]));
      const layers = group[0][kind].length;
      const entering = Array.from({ length: layers }, (_, i) => sum(group.map((c) => c[kind][i])));
      part[kind] = { total, entering, kept: total && layers ? sum(entering) / (total * layers) : null };
    }
    const known = group.filter((c) => c.relevance !== null);
    part.attended = known.length ? sum(known.map((c) => c.relevance)) : null;
    return part;
  });
}

function boxes(kind, list) {
  const drawn = list.map(([x, y, w, t]) => `M${x} ${y}h${w}v${t}h${-w}z`).join("");
  return s("path", { class: kind, d: drawn });
}

function stretched(extent, rows, tall, ...shapes) {
  const [start, end] = extent;
  return s(
    "svg",
    {
      class: "cells",
      viewBox: `${start} 0 ${end - start} ${rows}`,
      preserveAspectRatio: "none",
      height: tall,
      "aria-hidden": "true",
    },
    s("rect", { class: "track", x: start, width: end - start, height: rows }),
    ...shapes,
  );
}

/** One kind of tokens: layers from top to bottom, stronger where more tokens enter the layer. */
function heat(found, kind, extent) {
  const rows = bins(found[0][kind].entering.length, MOST_ROWS);
  const shades = new Map();
  rows.forEach(([top, bottom], y) => {
    let open = null;
    for (const part of found) {
      const { total, entering } = part[kind];
      const mean = sum(entering.slice(top, bottom)) / (bottom - top);
      const shade = total && mean ? Math.min(SHADES, 1 + Math.floor((SHADES * mean) / total)) : 0;
      if (open && open.shade === shade && Math.abs(open.box[0] + open.box[2] - part.start) < 1e-6) {
        open.box[2] = part.end - open.box[0];
        continue;
      }
      open = { shade, box: [part.start, y, part.end - part.start, 1] };
      if (!shade) continue;
      if (!shades.has(shade)) shades.set(shade, []);
      shades.get(shade).push(open.box);
    }
  });
  const drawn = [...shades].map(([shade, list]) => boxes(`${kind} s${shade}`, list));
  return stretched(extent, rows.length, Math.max(44, Math.min(2.6 * rows.length, 64)), ...drawn);
}

function attention(found, moments, extent) {
  const top = Math.max(...found.map((p) => p.attended ?? 0)) || 1;
  const within = (p) => moments.some((m) => p.start < m.end - 1e-6 && p.end > m.start + 1e-6);
  const box = (p) => [p.start, 1 - p.attended / top, p.end - p.start, p.attended / top];
  const seen = found.filter((p) => p.attended > 0);
  const shapes = [
    boxes("plain", seen.filter((p) => !within(p)).map(box)),
    boxes("moment", seen.filter(within).map(box)),
  ];
  return stretched(extent, 1, 40, ...shapes);
}

function axis([start, end]) {
  const step = STEPS.find((one) => (end - start) / one <= 6) ?? STEPS.at(-1);
  const words = [];
  for (let at = Math.ceil(start / step) * step; at <= end + 1e-6; at += step) {
    const place = (at - start) / (end - start);
    const anchor = place < 0.04 ? "start" : place > 0.94 ? "end" : "middle";
    const x = `${(100 * place).toFixed(2)}%`;
    words.push(s("text", { x, y: 12, "text-anchor": anchor }, clock(at)));
  }
  return s("svg", { class: "axis", height: 16, "aria-hidden": "true" }, words);
}

/** The drawing in a sentence. */
function sentence(found, trace, extent) {
  const kept = KINDS.filter((kind) => trace[`${kind}_tokens`]).map((kind) => {
    const all = trace[`${kind}_tokens`] * trace[`kept_${kind}`].length;
    return `${kind} ${share(sum(trace[`kept_${kind}`]) / all, 0)}`;
  });
  const most = found.reduce((a, b) => ((b.attended ?? 0) > (a.attended ?? 0) ? b : a));
  const attended = most.attended ? ` Most attended: ${span(most.start, most.end)}, ${share(most.attended, 0)}.` : "";
  return `From ${span(...extent)}, kept on average over the layers: ${kept.join(", ")}.${attended}`;
}

/** What was kept and attended in the part of a moment, in a line. */
function line(part) {
  const words = [span(part.start, part.end)];
  for (const kind of KINDS) {
    if (part[kind].total) words.push(`${kind} ${share(part[kind].kept, 0)} kept`);
  }
  if (part.attended !== null) words.push(`${share(part.attended)} of the attention`);
  return words.join(" · ");
}

function numbers(trace, jump) {
  const found = parts(trace, MOST_TABLE_ROWS);
  const measured = found.some((p) => p.attended !== null);
  const kinds = KINDS.filter((kind) => trace[`${kind}_tokens`]);
  const head = ["Time", ...kinds.flatMap((kind) => [`${kind} tokens`, "kept"]), measured && "attended"];
  const rows = found.map((p) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, h("button", { type: "button", class: "link", on: { click: () => jump(p.start, p.end) } },
        h("span", { class: "unseen" }, "Play "), span(p.start, p.end))),
      kinds.map((kind) => [h("td", {}, number(p[kind].total)), h("td", {}, share(p[kind].kept))]),
      measured && h("td", {}, share(p.attended)),
    ),
  );
  return h(
    "table",
    { class: "numbers" },
    h("caption", { class: "unseen" }, "Tokens kept, the mean of all layers, and attention by part of the clip"),
    h("thead", {}, h("tr", {}, head.filter(Boolean).map((word) => h("th", { scope: "col" }, word)))),
    h("tbody", {}, rows),
  );
}

function legend() {
  const shades = Array.from({ length: SHADES }, (_, i) =>
    s("svg", { class: "key", viewBox: "0 0 1 1", "aria-hidden": "true" }, s("rect", { class: `plain s${i + 1}`, width: 1, height: 1 })),
  );
  return [
    "First layer at the top. Tokens that enter a layer: ",
    h("span", { class: "shades" }, "0 % ", shades, " 100 %"),
  ];
}

/**
 * The timeline below the player.
 *
 * `show` draws an answer, `at` moves the line of the player, `limit` marks the part asked about.
 */
export class Timeline {
  constructor({ chart, here, table, legend: words }, { seek, jump }) {
    Object.assign(this, { chart, here, table, words, seek, jump });
    this.found = [];
    this.extent = [0, 1];
    this.time = 0;
    this.hovered = null;
  }

  show(trace, length) {
    this.found = parts(trace);
    const last = this.found.at(-1)?.end ?? 1;
    this.extent = [0, Math.max(length || 0, last)];
    const rows = KINDS.filter((kind) => trace[`${kind}_tokens`]).map((kind) => [
      kind,
      heat(this.found, kind, this.extent),
    ]);
    if (this.found.some((p) => p.attended !== null)) {
      rows.push(["attended", attention(this.found, trace.moments, this.extent)]);
    }
    this.line = s("rect", { class: "playhead", y: 0, width: 2, height: "100%" });
    this.shades = [0, 1].map(() => s("rect", { class: "outside", y: 0, height: "100%" }));
    const over = s("svg", { class: "over", "aria-hidden": "true" }, this.shades, this.line);
    over.addEventListener("pointermove", (event) => this.hover(this.timeOf(event)));
    over.addEventListener("pointerleave", () => this.hover(null));
    over.addEventListener("click", (event) => this.seek(this.timeOf(event)));
    this.over = over;
    this.chart.replaceChildren(
      h("p", { class: "unseen" }, sentence(this.found, trace, this.extent)),
      ...rows.flatMap(([name, drawn]) => [h("span", { class: "corner", "aria-hidden": "true" }, name), drawn]),
      h("span"),
      axis(this.extent),
      over,
    );
    this.words.replaceChildren(...legend());
    this.table.replaceChildren(numbers(trace, this.jump));
    this.at(this.time);
  }

  limit(start, end) {
    if (!this.line) return;
    const [first, last] = [this.place(start ?? this.extent[0]), this.place(end ?? this.extent[1])];
    this.shades[0].setAttribute("width", `${100 * first}%`);
    this.shades[1].setAttribute("x", `${100 * last}%`);
    this.shades[1].setAttribute("width", `${100 * (1 - last)}%`);
  }

  at(time) {
    this.time = time;
    if (!this.line) return;
    this.line.setAttribute("x", `${(100 * this.place(time)).toFixed(3)}%`);
    this.tell();
  }

  hover(time) {
    this.hovered = time;
    this.tell();
  }

  tell() {
    const time = this.hovered ?? this.time;
    const part = this.found.find((p) => time < p.end && time >= p.start) ?? this.found.at(-1);
    if (part && this.told !== part) this.here.textContent = line(part);
    this.told = part;
  }

  place(time) {
    const [start, end] = this.extent;
    return Math.min(Math.max((time - start) / (end - start), 0), 1);
  }

  timeOf(event) {
    const box = this.over.getBoundingClientRect();
    const [start, end] = this.extent;
    const part = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    return start + part * (end - start);
  }
}
