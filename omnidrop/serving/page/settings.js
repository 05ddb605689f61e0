// How a question is asked: budget and its cost, part of the clip, method, choices.

import * as api from "./api.js";
import { $, h } from "./dom.js";
import { clock, duration, fault, list, number, seconds, share, size, span } from "./words.js";

const QUIET = 250;

/** Audio and video tokens of an estimate, none dropped. */
const av = ({ tokens }) => (tokens ? tokens.audio + tokens.video : NaN);

function costs(found) {
  const of = (value, show) => (Number.isFinite(value) ? h("small", {}, `of ${show(value)}`) : null);
  const about = (value, show) => (Number.isFinite(value) ? `about ${show(value)}` : "–");
  const whole = found.unpruned ?? {};
  return [
    ["Tokens", number(found.kept), of(av(found), number)],
    ["Share", share(found.share), null],
    ["First token", about(found.seconds, duration), of(whole.seconds, duration)],
    ["Memory", about(found.memory, size), of(whole.memory, size)],
  ].map(([name, value, small]) => h("div", {}, h("dt", {}, name), h("dd", {}, value, " ", small)));
}

export class Settings {
  /**
   * `changed` is called with the part of the clip that is asked about, and `tell` with the cost in
   * words, once a budget or a method was chosen.
   */
  constructor({ here, length, changed, tell }) {
    Object.assign(this, { here, length, changed, tell });
    this.loud = false;
    this.model = null;
    this.own = null;
    this.usual = null;
    this.budget = undefined;
    this.clip = null;
    this.timer = null;
    this.call = null;
    $("budget").addEventListener("input", () => this.setBudget(Number($("budget").value) / 100));
    $("budget-own").addEventListener("click", () => {
      this.setBudget(undefined);
      $("budget").focus();
    });
    $("method").addEventListener("change", () => {
      this.loud = true;
      this.update();
    });
    $("choices").addEventListener("input", () => this.update());
    for (const id of ["check", "evidence"]) $(id).addEventListener("change", () => this.update());
    for (const id of ["start", "end"]) $(id).addEventListener("change", () => this.update());
    $("question").addEventListener("input", () => this.estimateSoon());
    $("from-here").addEventListener("click", () => this.mark("start"));
    $("to-here").addEventListener("click", () => this.mark("end"));
    $("whole").addEventListener("click", () => {
      $("start").value = $("end").value = "";
      this.update();
      $("start").focus();
    });
  }

  /** Take the model's methods and defaults. */
  use(model) {
    this.model = model;
    const methods = model.omnidrop.methods.map(({ name }) => h("option", { value: name }, name));
    $("method").replaceChildren(h("option", { value: "" }, "The model’s own"), ...methods);
    this.know(model.omnidrop.default);
    this.update();
  }

  /** Note the model's own method and budget, as soon as they are known. */
  know(own) {
    if (!own) return;
    this.own = own;
    this.usual ??= own.budget;
    $("method").options[0].textContent = `The model’s own (${own.method})`;
  }

  /** Estimate for this clip; null while there is none on the server. */
  of(clip) {
    this.clip = clip;
    if (!clip || !$("cost").hasChildNodes()) $("cost").replaceChildren(...costs({}));
    this.update();
  }

  /** The start of the whole clip, or its end, is where the player stands. */
  mark(id) {
    const at = Math.floor(this.here() * 10) / 10;
    $(id).value = clock(at, null);
    this.update();
    return at;
  }

  setBudget(value) {
    this.loud = true;
    this.budget = value;
    this.update();
  }

  part() {
    return { start: seconds($("start").value), end: seconds($("end").value) };
  }

  /** What is wrong with the part of the clip, in words; empty if nothing is. */
  partFault() {
    const { start, end } = this.part();
    if (Number.isNaN(start) || Number.isNaN(end)) return "Write a time like 75, 1:15 or 0:01:15.";
    if (start !== null && end !== null && start >= end) return "The part ends before it starts.";
    const length = this.length();
    if (length && start !== null && start >= length) return `The clip is only ${clock(length, null)} long.`;
    return "";
  }

  /** The extension of a request, without what is the default. */
  values() {
    const { start, end } = this.part();
    const choices = list($("choices").value);
    const given = {
      budget: this.whole ? undefined : this.budget,
      method: $("method").value || undefined,
      start: start ?? undefined,
      end: end ?? undefined,
      choices: choices.length ? choices : undefined,
      check: $("check").checked || undefined,
      evidence: $("evidence").checked || undefined,
    };
    return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  }

  /** Take the settings of an earlier question. */
  fill(asked) {
    this.budget = asked.budget;
    $("method").value = asked.method ?? "";
    $("start").value = asked.start === undefined ? "" : clock(asked.start, null);
    $("end").value = asked.end === undefined ? "" : clock(asked.end, null);
    $("choices").value = (asked.choices ?? []).map((one) => (one.includes(",") ? `"${one}"` : one)).join(", ");
    $("check").checked = Boolean(asked.check);
    $("evidence").checked = Boolean(asked.evidence);
    this.update();
  }

  get whole() {
    return $("method").value === "none";
  }

  update() {
    this.showBudget();
    this.showOptions();
    this.estimateSoon();
  }

  showBudget() {
    const value = this.whole ? 1 : (this.budget ?? this.usual ?? null);
    const words = value === null ? "model’s own" : share(value, 0);
    const slider = $("budget");
    const focused = document.activeElement === $("budget-own");
    if (value !== null) slider.value = Math.round(100 * value);
    slider.disabled = this.whole;
    slider.setAttribute("aria-valuetext", this.budget === undefined && !this.whole ? `${words}, as usual` : words);
    $("budget-value").textContent = words;
    $("budget-own").hidden = this.budget === undefined || this.whole;
    if (focused && $("budget-own").hidden) slider.focus();
    $("budget-note").textContent = this.whole
      ? "The method none keeps every token."
      : this.budget !== undefined ? ""
      : $("method").value ? "The usual budget."
      : "The model’s own budget. It keeps all where dropping would save little.";
  }

  showOptions() {
    const wrong = this.partFault();
    $("span-fault").textContent = wrong;
    $("span-fault").hidden = !wrong;
    for (const id of ["start", "end"]) $(id).setAttribute("aria-invalid", String(Boolean(wrong)));
    const { start, end } = this.part();
    $("whole").hidden = start === null && end === null;
    if (!wrong) this.changed(start, end);
    const { method, choices, check, evidence } = this.values();
    const set = [
      !wrong && (start !== null || end !== null) && span(start ?? 0, end ?? this.length() ?? start),
      method,
      choices?.join(" / "),
      check && "compared",
      evidence && "moments tested",
    ].filter(Boolean);
    $("options-set").textContent = set.join(" · ");
    const about = this.model?.omnidrop.methods.find(({ name }) => name === $("method").value)?.about;
    $("method-note").textContent = about ?? "";
  }

  estimateSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.estimate(), QUIET);
  }

  async estimate() {
    this.call?.abort();
    if (!this.clip || this.partFault()) return;
    this.call = new AbortController();
    const { budget, method, start, end } = this.values();
    const question = $("question").value.trim() || undefined;
    const cost = $("cost");
    cost.setAttribute("aria-busy", "true");
    try {
      const found = await api.estimate(this.clip.id, { budget, method, start, end, question }, this.call.signal);
      cost.replaceChildren(...costs(found));
      if (budget === undefined) {
        if (method === undefined) this.know({ method: found.method, budget: found.budget });
        this.usual = found.budget;
        this.showBudget();
      }
      if (this.loud) this.tell(`${number(found.kept)} of ${number(av(found))} tokens, about ${duration(found.seconds)} and ${size(found.memory)}.`);
      this.loud = false;
    } catch (error) {
      if (error.name === "AbortError") return;
      cost.replaceChildren(h("div", { class: "wide" }, h("dt", {}, "Cost"), h("dd", {}, `not known: ${fault(error).text}`)));
    }
    cost.removeAttribute("aria-busy");
  }
}
