// What a screen reader says: an answer sentence by sentence as it streams, and what happened.

const END = /[.!?…。！？]["'”’)]*\s/g;

export class Speech {
  /** `log` is a live region of sentences, `status` one of events. */
  constructor(log, status) {
    this.log = log;
    this.status = status;
    this.begin();
  }

  begin() {
    this.rest = "";
    this.said = false;
    this.log.replaceChildren();
  }

  add(text) {
    if (!text.trim()) return;
    const line = document.createElement("p");
    line.textContent = text.trim();
    this.log.append(line);
    this.said = true;
  }

  /** A piece of the answer: its whole sentences are said, the rest waits. */
  say(text) {
    this.rest += text;
    const ends = [...this.rest.matchAll(END)];
    if (!ends.length) return;
    const last = ends.at(-1);
    const cut = last.index + last[0].length;
    this.add(this.rest.slice(0, cut));
    this.rest = this.rest.slice(cut);
  }

  /** The end: what was not said yet, or all of a short answer. */
  end(whole, failed = false) {
    if (failed || !this.said) this.add(whole);
    else this.add(this.rest);
    this.rest = "";
  }

  tell(text) {
    this.status.textContent = "";
    // An equal text would not be said again.
    setTimeout(() => {
      this.status.textContent = text;
    }, 50);
  }
}
