// The clip in the player: moments that end where they end, and the time as it passes.

import { $ } from "./dom.js";

const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Player {
  /** `moved` is told the time, four times a second, or with every picture while it plays. */
  constructor(moved) {
    this.media = $("player");
    this.note = $("player-note");
    this.moved = moved;
    this.until = null;
    this.local = null;
    const tell = () => this.tell();
    for (const event of ["timeupdate", "seeked", "loadedmetadata"]) this.media.addEventListener(event, tell);
    this.media.addEventListener("play", () => this.run());
    this.media.addEventListener("error", () => this.fail());
    this.media.addEventListener("loadedmetadata", () => {
      this.media.classList.toggle("sound", this.media.videoWidth === 0);
    });
  }

  /** Load an address, or a file of this machine, which needs no way through the server. */
  load(source) {
    this.until = null;
    if (this.local) URL.revokeObjectURL(this.local);
    this.local = source instanceof Blob ? URL.createObjectURL(source) : null;
    this.note.hidden = true;
    this.media.hidden = false;
    this.media.classList.remove("sound");
    if (source) this.media.src = this.local ?? source;
    else this.media.removeAttribute("src");
    this.media.load();
  }

  fail() {
    if (!this.media.hasAttribute("src")) return;
    this.media.hidden = true;
    this.note.hidden = false;
    this.note.textContent =
      "This browser does not play the clip’s format. Questions about it work all the same.";
  }

  get time() {
    return this.media.currentTime || 0;
  }

  get length() {
    return Number.isFinite(this.media.duration) ? this.media.duration : null;
  }

  tell() {
    const at = this.time;
    if (this.until !== null && at >= this.until) {
      this.until = null;
      this.media.pause();
    }
    this.moved(at);
  }

  run() {
    if (still.matches) return;
    const frame = () => {
      if (this.media.paused) return;
      this.tell();
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  seek(time) {
    this.until = null;
    if (this.media.hidden) this.moved(time); // what is not played is looked up all the same
    else this.media.currentTime = time;
  }

  /** Play a part and stop at its end. */
  jump(start, end) {
    this.seek(start);
    if (this.media.hidden) return;
    this.media.scrollIntoView({ block: "nearest" });
    this.until = end;
    this.play();
  }

  play() {
    // A browser may refuse to play: the picture stands at the right place all the same.
    this.media.play().catch(() => {});
  }

  toggle() {
    this.until = null;
    if (this.media.paused) this.play();
    else this.media.pause();
  }
}
