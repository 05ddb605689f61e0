// The questions of each clip, kept in this tab until it is closed.

const STORE = "omnidrop.history";
// Browsers keep about five million characters.
const MOST = 4_000_000;

const stopped = { name: "Error", message: "The page was closed before the answer came.", status: 0 };

export class History {
  constructor() {
    this.number = 0;
    this.clips = {};
    try {
      this.clips = JSON.parse(sessionStorage.getItem(STORE)) ?? {};
    } catch {
      // Written by another version of the page.
    }
    for (const entry of Object.values(this.clips).flat()) {
      this.number = Math.max(this.number, entry.number);
      if (!entry.report && !entry.error) entry.error = stopped;
    }
  }

  /** Entries of a clip, the newest first. */
  of(id) {
    return (this.clips[id] ??= []);
  }

  add(id, question, asked) {
    this.number += 1;
    const entry = { number: this.number, when: new Date().toISOString(), question, asked, text: "", waiting: "Waiting for the model", report: null, error: null };
    this.of(id).unshift(entry);
    return entry;
  }

  remove(id, entry) {
    this.clips[id] = this.of(id).filter((other) => other !== entry);
    this.keep();
  }

  clear(id) {
    this.clips[id] = [];
    this.keep();
  }

  /** Keep everything; of what is too much, the oldest goes first. */
  keep() {
    const kept = Object.fromEntries(Object.entries(this.clips).map(([id, list]) => [id, [...list]]));
    for (;;) {
      const text = JSON.stringify(kept, (name, value) =>
        value instanceof Error ? { name: value.name, message: value.message, status: value.status, code: value.code } : value,
      );
      if (text.length <= MOST) {
        try {
          sessionStorage.setItem(STORE, text);
        } catch {
          // A browser that keeps nothing: the questions last as long as the page.
        }
        return;
      }
      const lists = Object.values(kept).filter((list) => list.length);
      if (!lists.length) return;
      lists.reduce((a, b) => (a.at(-1).number < b.at(-1).number ? a : b)).pop();
    }
  }

  /** One document for all answers of a clip, as `omnidrop ask --json` writes several. */
  document(id) {
    const entries = [...this.of(id)].reverse();
    return {
      schema: "omnidrop.answers/1",
      answers: entries.filter((entry) => entry.report).map((entry) => entry.report),
      errors: entries.filter((entry) => entry.error).map((entry) => ({
        schema: "omnidrop.error/1",
        question: entry.question,
        error: entry.error.message || entry.error.name,
      })),
    };
  }
}

/** Offer a value as a file. */
export function save(value, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${JSON.stringify(value, null, 2)}\n`], { type: "application/json" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
