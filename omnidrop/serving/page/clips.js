// The clips to choose from: a file of this machine, or one that the server has.

import * as api from "./api.js";
import { $, h } from "./dom.js";
import { clock, fault, size } from "./words.js";

const MANY = 8;

/** What is known of a clip, in a line. */
export function about(clip) {
  return [
    clip.duration && clock(clip.duration),
    clip.width && `${clip.width} × ${clip.height}`,
    clip.audio === false && "no sound",
    clip.video === false && "sound alone",
    clip.bytes && size(clip.bytes),
  ].filter(Boolean).join(" · ");
}

export class Clips {
  /** `open` is given a clip of the list, `send` a file, `forgotten` a clip that was deleted. */
  constructor({ open, send, forgotten }) {
    this.open = open;
    this.forgotten = forgotten;
    this.found = [];
    $("file").addEventListener("change", () => {
      const [file] = $("file").files;
      $("file").value = "";
      if (file) send(file);
    });
    $("filter").addEventListener("input", () => this.draw());
    this.dropping(send);
  }

  /** Read the list anew. */
  async load() {
    const call = (this.call = {});
    try {
      const told = await api.clips();
      if (this.call !== call) return; // a newer list was asked for
      this.found = told.data;
      this.more = Boolean(told.has_more);
      this.draw();
    } catch (error) {
      if (error.status === 401) throw error;
      $("clips").replaceChildren();
      $("clips-note").textContent = fault(error).text;
    }
  }

  draw() {
    const words = $("filter").value.trim().toLowerCase();
    const found = this.found.filter(({ name }) => name.toLowerCase().includes(words));
    $("filter-box").hidden = this.found.length <= MANY;
    $("clips").replaceChildren(...found.map((clip) => this.row(clip)));
    $("clips-note").textContent = !this.found.length
      ? "None yet. Start the server with --root FOLDER to choose from a folder of clips."
      : !found.length ? "No clip has such a name."
      : this.more ? "These are the first ones; the folder has more." : "";
  }

  row(clip) {
    const sent = clip.from === "upload";
    const said = [sent && "uploaded", about(clip)].filter(Boolean).join(" · ");
    const choose = h("button", { type: "button", class: "clip", on: { click: () => this.open(clip) } },
      h("span", { class: "clip-name", dir: "auto" }, clip.name), h("span", { class: "muted small" }, said));
    const remove = sent && h("button", { type: "button", class: "link", on: { click: () => this.remove(clip) } },
      "Delete", h("span", { class: "unseen" }, ` ${clip.name} from the server`));
    return h("li", {}, choose, remove);
  }

  /** Delete an uploaded clip from the server. */
  async remove(clip) {
    try {
      await api.forget(clip.id);
    } catch (error) {
      if (error.code !== "clip_not_found") {
        $("clips-note").textContent = fault(error).text;
        return;
      }
    }
    this.forgotten(clip);
    await this.load();
  }

  dropping(send) {
    const holds = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    const show = (on) => {
      $("veil").hidden = !on;
    };
    window.addEventListener("dragover", (event) => {
      if (!holds(event)) return;
      event.preventDefault();
      show(true);
    });
    window.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) show(false);
    });
    window.addEventListener("drop", (event) => {
      if (!holds(event)) return;
      event.preventDefault();
      show(false);
      const [file] = event.dataTransfer.files;
      if (file) send(file);
    });
  }
}
