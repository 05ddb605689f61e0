// Keys. Those of a single character can be turned off, as WCAG 2.1.4 wants it.

import { $ } from "./dom.js";

const STORE = "omnidrop.keys";

const typing = (element) =>
  element.matches("textarea, select, [contenteditable], input:not([type=range], [type=checkbox])");

export function shortcuts(run) {
  const help = $("help");
  const on = $("keys-on");
  on.checked = localStorage.getItem(STORE) !== "off";
  on.addEventListener("change", () => localStorage.setItem(STORE, on.checked ? "on" : "off"));
  $("help-open").addEventListener("click", () => help.showModal());
  $("help-close").addEventListener("click", () => help.close());
  help.addEventListener("click", (event) => {
    if (event.target === help) help.close();
  });

  const keys = {
    "/": run.question,
    k: run.play,
    j: () => run.skip(-5),
    l: () => run.skip(5),
    m: run.moment,
    "[": () => run.mark("start"),
    "]": () => run.mark("end"),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      run.stop();
      return;
    }
    if (!on.checked || typing(event.target)) return;
    if (event.key === "?") {
      help.showModal();
      return;
    }
    const found = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!found || !run.ready()) return;
    event.preventDefault();
    found();
  });
}
