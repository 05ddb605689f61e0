// One question and its answer, as an article.

import { bar, h } from "./dom.js";
import { clock, duration, fault, flops, number, percent, share, size, span } from "./words.js";

const LONG = 60;
const LITTLE_MASS = 0.05;

/** How a question was asked, in words, where it is not the default. */
export function asked(entry) {
  const { budget, method, start, end, choices, check, evidence } = entry.asked;
  const known = start !== undefined || end !== undefined;
  const part = start === undefined ? `up to ${clock(end ?? 0, null)}` : `from ${clock(start, null)}`;
  return [
    known && (start !== undefined && end !== undefined ? span(start, end) : part),
    budget !== undefined && `budget ${share(budget, 0)}`,
    method && `method ${method}`,
    choices && `${choices.length} choices`,
    check && "compared",
    evidence && "moments tested",
  ].filter(Boolean);
}

function head(entry) {
  const words = asked(entry);
  return h(
    "header",
    {},
    h("h3", { class: "question", dir: "auto" }, entry.question),
    words.length > 0 && h("p", { class: "muted small" }, words.join(" · ")),
  );
}

function sure(report) {
  if (report.probability === null) {
    return report.doubt && h("p", { class: "warn" }, `How sure it is, is not known: ${report.doubt}.`);
  }
  const calibrated = report.probability_source.startsWith("calibrated");
  const own = report.choices.length ? "among the choices" : "probability of this answer";
  const note = calibrated ? report.probability_source : "not calibrated";
  return h(
    "p",
    { class: "sure" },
    bar(report.probability, calibrated ? "good" : "plain"),
    h("span", {}, h("strong", {}, percent(report.probability)), ` ${calibrated ? "likely right" : own}`),
    h("span", { class: "muted small" }, note),
  );
}

function check(report) {
  if (report.unpruned_text === null) return null;
  const other = report.unpruned_text.trim();
  if (other === report.text.trim()) return h("p", {}, "Same answer with every token: ", h("strong", {}, "yes"), ".");
  return h("p", { class: "warn" }, "With every token kept the answer is another: ",
    other ? h("q", { dir: "auto" }, other) : "no words", ".");
}

function choices(report) {
  if (!report.choices.length) return null;
  const rows = report.choices.map((choice, place) =>
    h("li", {}, h("span", { dir: "auto" }, choice.text), bar(choice.probability, place ? "plain" : "video"),
      h("span", { class: "number" }, percent(choice.probability))),
  );
  const little = report.choice_mass !== null && report.choice_mass < LITTLE_MASS;
  return [
    h("ul", { class: "choices", "aria-label": "Choices" }, rows),
    little && h("p", { class: "warn" },
      `None of them fits well: of all answers that the model could give, these together have ${percent(report.choice_mass)}.`),
  ];
}

function proof(report, moment) {
  const told = report.left_out.find((one) => one.moment.start === moment.start && one.moment.end === moment.end);
  if (!told) return null;
  const odds = `${percent(told.whole)} → ${percent(told.probability)}`;
  const words = told.changed
    ? ["Without it: ", told.text.trim() ? h("q", { dir: "auto" }, told.text) : "no words", ` (${odds}).`]
    : [`Without it the answer is the same (${odds}).`];
  return h("p", { class: "muted small" }, words);
}

function moments(report, act) {
  const found = report.trace.moments;
  if (!found.length) return h("p", { class: "muted small" }, "Which moments it came from is not known.");
  const rows = found.map((moment) => {
    const name = span(moment.start, moment.end);
    const play = h(
      "button",
      { type: "button", class: "moment-play", on: { click: () => act.jump(moment.start, moment.end) } },
      h("span", { class: "unseen" }, "Play "), h("span", { class: "time" }, name),
    );
    return h("li", {}, h("div", { class: "row-moment" }, play, bar(moment.share, "moment"),
      h("span", { class: "number" }, share(moment.share, 0))), proof(report, moment));
  });
  return [h("h4", {}, "Where it came from"), h("ol", { class: "moments", "aria-label": "Moments" }, rows)];
}

function facts(trace) {
  const { memory } = trace;
  const of = (part, whole, show) => [show(part), " ", h("small", {}, `of ${show(whole)}`)];
  const av = trace.audio_tokens + trace.video_tokens;
  const rows = [
    av && ["Kept", `${share(trace.realised_budget)} of ${number(av)} tokens`],
    av && ["Method", `${trace.method.name}${trace.asked_budget < 1 ? `, ${share(trace.asked_budget, 0)} asked` : ""}`],
    ["First token after", duration(trace.ttft)],
    ["Prefill", of(trace.flops_prefill, trace.flops_prefill_unpruned, flops)],
    ["KV cache", of(memory.kv_cache, memory.kv_cache_unpruned, size)],
    memory.device === null
      ? ["Peak memory", size(memory.host)]
      : ["Peak device memory", size(memory.device)],
    ["Prompt", `${number(trace.text_tokens)} text, ${number(trace.audio_tokens)} audio, ${number(trace.video_tokens)} video`],
    ["Model", `${trace.model.name}, ${trace.model.device}`],
  ].filter(Boolean);
  return h("dl", { class: "facts" }, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function done(entry, act) {
  const { report } = entry;
  const text = report.text.trim();
  const kind = !text ? "answer none" : text.length > LONG ? "answer long" : "answer";
  const seen = new Set(act.noticesBefore(entry));
  // What the proof found stands below each moment.
  const proven = (notice) => report.left_out.length > 0 && notice.startsWith("Evidence:");
  const notices = report.trace.notices.filter((notice) => !seen.has(notice) && !proven(notice));
  return [
    h("p", { class: kind, dir: "auto" }, text || "The model ended without a word."),
    report.thinking && h("details", {}, h("summary", {}, "What it thought"),
      h("p", { class: "thoughts", dir: "auto" }, report.thinking)),
    sure(report),
    check(report),
    choices(report),
    notices.length > 0 && h("ul", { class: "notices", "aria-label": "Notices" }, notices.map((notice) => h("li", { dir: "auto" }, notice))),
    moments(report, act),
    h("div", { class: "here" }),
    h("details", {}, h("summary", {}, "What it cost ",
      h("span", { class: "muted" }, `${share(report.trace.realised_budget, 0)} kept, first token after ${duration(report.trace.ttft)}`)),
      facts(report.trace)),
  ];
}

const REMEDIES = {
  again: ["Try again", "again"],
  anyway: ["Ask anyway", "anyway"],
  key: ["Give the key", "key"],
  choose: ["Choose a clip", "choose"],
};

function failed(entry, act) {
  const { text, remedy } = fault(entry.error);
  const [name, run] = REMEDIES[remedy] ?? [];
  return [
    entry.text && h("p", { class: "answer long", dir: "auto" }, entry.text),
    h("p", { class: entry.error.name === "AbortError" ? "muted" : "warn", dir: "auto" }, text),
    name && h("p", { class: "remedy" }, h("button", { type: "button", class: "main", on: { click: () => act[run](entry) } }, name)),
  ];
}

function running(entry) {
  return [
    h("p", { class: "answer long running", "aria-busy": "true", dir: "auto" }, entry.text),
    h("p", { class: "muted small wait" }, entry.waiting),
  ];
}

function actions(entry, act) {
  const button = (word, run, more = {}) => h("button", { type: "button", class: "link", ...more, on: { click: () => run(entry) } }, word);
  const about = h("span", { class: "unseen" }, `: ${entry.question}`);
  return h(
    "p",
    { class: "row actions" },
    entry.report && button(["Show on the timeline", about], act.select, { "aria-pressed": "false", "data-select": true }),
    button(["Edit", about.cloneNode(true)], act.refill),
    entry.report && button(["Save as JSON", about.cloneNode(true)], act.save),
    button(["Remove", about.cloneNode(true)], act.remove),
  );
}

/** The article of a question; `act` has what its buttons do. */
export function card(entry, act) {
  const body = entry.report ? done(entry, act) : entry.error ? failed(entry, act) : running(entry);
  const made = h("article", { class: "card", id: `answer-${entry.number}` }, head(entry), body,
    (entry.report || entry.error) && actions(entry, act));
  return h("li", {}, made);
}
