// The answers of the open clip, and the timeline of the one that is looked at.

import { card } from "./answer.js";
import { $, h } from "./dom.js";
import { save } from "./history.js";

const wide = matchMedia("(min-width: 60rem)");
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Bring an element into sight. */
export function reveal(element, block = "nearest") {
  element.scrollIntoView({ block, behavior: still.matches ? "auto" : "smooth" });
}

export class Answers {
  /**
   * `act` has what the buttons of an answer do beyond this list: refill, again, anyway, key, choose,
   * and `emptied`, which is called once something was removed.
   */
  constructor({ history, player, timeline, act }) {
    Object.assign(this, { history, player, timeline });
    this.clip = null;
    this.shown = null;
    this.act = {
      ...act,
      jump: (start, end) => player.jump(start, end),
      select: (entry) => {
        this.select(entry);
        reveal($("map"));
      },
      save: (entry) => save(entry.report, `answer-${entry.number}.json`),
      remove: (entry) => {
        history.remove(this.clip.id, entry);
        this.draw();
        if (this.shown === entry) this.select(this.newest());
        act.emptied("The answer was removed.");
      },
      noticesBefore: (entry) =>
        this.entries()
          .filter((other) => other.report && other.number < entry.number)
          .flatMap((other) => other.report.trace.notices),
    };
    wide.addEventListener("change", () => this.place());
    $("export").addEventListener("click", () => {
      const name = this.clip.name.replace(/[^\w.-]+/g, "-");
      save(history.document(this.clip.id), `${name}.answers.json`);
    });
    $("clear").addEventListener("click", () => {
      history.clear(this.clip.id);
      this.draw();
      this.select(null);
      act.emptied("All answers of this clip were removed.");
    });
  }

  /** Show the answers of a clip; one without an id has none yet. */
  of(clip) {
    this.clip = clip;
    this.draw();
    this.select(this.newest());
  }

  entries() {
    return this.clip?.id ? this.history.of(this.clip.id) : [];
  }

  newest() {
    return this.entries().find((entry) => entry.report) ?? null;
  }

  node(entry) {
    return $(`answer-${entry.number}`);
  }

  /** Draw all of them anew. */
  draw() {
    const entries = this.entries();
    const focused = document.activeElement?.closest?.(".card")?.id;
    document.body.append($("map"));
    $("answers").replaceChildren(...entries.map((entry) => card(entry, this.act)));
    $("answers-head").hidden = $("answers").hidden = !entries.length;
    $("empty").hidden = entries.length > 0;
    this.place();
    // What was focused was drawn anew.
    if (focused) $(focused)?.querySelector("button, summary")?.focus({ preventScroll: true });
  }

  /** A new question, before anything of its answer is there. */
  begun(entry) {
    this.draw();
    if (!wide.matches) reveal(this.node(entry), "center");
  }

  /** A piece of an answer. */
  write(entry, text) {
    entry.text += text;
    const node = this.node(entry);
    if (!node) return;
    node.querySelector(".running").append(text);
    this.wait(entry, "");
  }

  /** What is being done before the first word. */
  wait(entry, text) {
    entry.waiting = text;
    const line = this.node(entry)?.querySelector(".wait");
    if (line) line.textContent = text;
  }

  ended(entry) {
    this.draw();
    if (entry.report && this.entries().includes(entry)) this.select(entry);
  }

  /** Show an answer on the timeline; null shows none. */
  select(entry) {
    this.shown = entry?.report?.trace.chunks.length ? entry : null;
    $("map").hidden = !this.shown;
    if (this.shown) {
      const { trace } = entry.report;
      $("map-of").replaceChildren(h("span", {}, entry.question));
      this.timeline.show(trace, trace.clip.duration ?? this.player.length);
    }
    this.place();
  }

  /** The timeline stands below the player; on a phone, below its answer. */
  place() {
    const { shown } = this;
    for (const node of document.querySelectorAll("[data-select]")) {
      const own = shown !== null && node.closest(".card").id === `answer-${shown.number}`;
      node.setAttribute("aria-pressed", String(own));
      node.closest(".card").classList.toggle("shown", own);
    }
    const home = !shown ? document.body : wide.matches ? $("map-wide") : this.node(shown).querySelector(".here");
    home.append($("map"));
  }
}
