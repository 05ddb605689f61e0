// The page: choose a clip, ask, read, look.

import { card } from "./answer.js";
import * as api from "./api.js";
import { about, Clips } from "./clips.js";
import { $, h } from "./dom.js";
import { History, save } from "./history.js";
import { Player } from "./player.js";
import { Settings } from "./settings.js";
import { shortcuts } from "./shortcuts.js";
import { Speech } from "./speech.js";
import { Timeline } from "./timeline.js";
import { duration, fault } from "./words.js";

const wide = matchMedia("(min-width: 60rem)");
const still = matchMedia("(prefers-reduced-motion: reduce)");

const state = { model: null, limits: {}, clip: null, sent: null, entry: null, call: null, shown: null };
const history = new History();
const speech = new Speech($("said"), $("told"));
const player = new Player((time) => timeline.at(time));
const timeline = new Timeline(
  { chart: $("map-chart"), here: $("map-here"), table: $("map-table"), legend: $("map-legend") },
  { seek: (time) => player.seek(time), jump: (start, end) => player.jump(start, end) },
);
const settings = new Settings({
  here: () => player.time,
  length: () => state.clip?.duration ?? player.length,
  changed: (start, end) => timeline.limit(start, end),
});
const clips = new Clips({ open, send });

// Errors of the page itself

function complain(error, place = $("fault")) {
  if (error.status === 401) {
    askKey();
    return;
  }
  place.textContent = fault(error).text;
  place.hidden = false;
}

const quiet = (place = $("fault")) => {
  place.hidden = true;
};

// The key

function askKey(again = false) {
  if (again || $("key-value").value) $("key-note").textContent = "The server does not know this key. Look it up where omnidrop serve was started.";
  if (!$("key").open) $("key").showModal();
  $("key-value").select();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.setKey($("key-value").value);
  $("key").close();
  begin();
});

// Clips

/** Keep the clip in the address, so that loading the page anew opens it again. */
const remember = (id) => window.history.replaceState(null, "", id ? `#${encodeURIComponent(id)}` : location.pathname);

function choosing() {
  state.call?.abort();
  state.sending?.abort();
  state.clip = null;
  settings.of(null);
  player.load(null);
  $("work").hidden = true;
  $("choose").hidden = false;
  document.title = "OmniDrop";
  remember("");
  clips.load().catch(complain);
}

function show(clip) {
  quiet();
  state.call?.abort();
  state.clip = clip;
  $("choose").hidden = true;
  $("work").hidden = false;
  $("clip-name").textContent = "";
  $("clip-name").append(h("span", {}, clip.name));
  $("clip-facts").textContent = about(clip);
  document.title = `${clip.name} · OmniDrop`;
  settings.fill({});
  $("question").value = "";
  grow();
  quiet($("ask-fault"));
}

/** Open a clip that the server has. */
async function open(found) {
  show(found);
  state.sent = null;
  $("sending").hidden = true;
  player.load(api.media(found));
  arrived(found);
  $("question").focus();
  try {
    const known = await api.clip(found.id);
    if (state.clip === found) fillIn(known);
  } catch (error) {
    if (state.clip !== found) return;
    if (error.code === "clip_not_found") {
      choosing();
      complain(error);
    } else if (error.status !== 404) complain(error);
  }
}

function fillIn(clip) {
  state.clip = clip;
  $("clip-facts").textContent = about(clip);
  settings.of(clip);
}

/** The server has the clip: questions can be asked. */
function arrived(clip) {
  remember(clip.id);
  settings.of(clip);
  list();
  select(history.of(clip.id).find((entry) => entry.report) ?? null);
}

/** Send a file of this machine; it plays at once, and a question waits for its arrival. */
function send(file) {
  const limit = state.limits.upload_bytes;
  if ($("work").hidden === false && state.sending) state.sending.abort();
  const local = { id: null, name: file.name, bytes: file.size };
  show(local);
  settings.of(null);
  list();
  select(null);
  player.load(file);
  $("question").focus();
  state.sending = new AbortController();
  $("sending").hidden = false;
  $("sent").value = 0;
  $("sent-word").textContent = "Uploading";
  const progress = (part) => {
    $("sent").value = part;
    $("sent-word").textContent = part < 1 ? `Uploading, ${Math.floor(100 * part)} %` : "The server reads the clip";
  };
  const tooLarge = limit && file.size > limit;
  state.sent = tooLarge
    ? Promise.reject(new api.ServerError(`The file is larger than this server takes (${Math.floor(limit / 1e6)} MB).`, { status: 413 }))
    : api.upload(file, progress, state.sending.signal);
  state.sent.then(
    (clip) => {
      if (state.clip !== local) return;
      state.clip = clip;
      $("sending").hidden = true;
      $("clip-facts").textContent = about(clip);
      speech.tell("The clip is uploaded.");
      arrived(clip);
    },
    (error) => {
      if (state.clip !== local) return;
      choosing();
      if (error.name !== "AbortError") complain(error);
    },
  );
}

$("sent-stop").addEventListener("click", () => state.sending?.abort());
$("other").addEventListener("click", () => {
  choosing();
  $("file").focus();
});

// Questions

function grow() {
  const field = $("question");
  field.rows = Math.min(6, Math.max(1, field.value.split("\n").length, Math.ceil(field.value.length / 60)));
}

function asking(on) {
  $("go").hidden = on;
  $("stop").hidden = !on;
}

async function ask(question, asked, { anyway = false } = {}) {
  if (state.call) return;
  const call = new AbortController();
  state.call = call;
  asking(true);
  quiet($("ask-fault"));
  const begun = performance.now();
  let entry = null;
  const ticking = setInterval(() => entry && waiting(entry, begun), 1000);
  try {
    const early = state.clip;
    let clip = early;
    if (!clip.id) {
      speech.tell("Waiting for the upload.");
      $("ask-fault").hidden = true;
      clip = await Promise.race([state.sent, aborted(call.signal)]);
    }
    entry = history.add(clip.id, question, asked);
    entry.waiting = "The model begins.";
    list();
    reveal(entry);
    speech.begin();
    const node = $(`answer-${entry.number}`);
    const write = (text) => {
      entry.text += text;
      node.querySelector(".running").append(text);
      node.querySelector(".wait").textContent = "";
      entry.waiting = "";
      speech.say(text);
    };
    const extension = anyway ? { ...asked, anyway } : asked;
    entry.report = await api.ask({ model: state.model.id, clip, question, extension }, write, call.signal);
    speech.end(entry.report.text ? `Answer: ${entry.report.text}` : "The model ended without a word.");
  } catch (error) {
    if (!entry) complainOf(error);
    else {
      entry.error = error;
      speech.end(fault(error).text, true);
      if (error.status === 401) askKey(true);
    }
  } finally {
    clearInterval(ticking);
    state.call = null;
    const focus = document.activeElement;
    asking(false);
    if (focus === $("stop")) $("question").focus();
  }
  if (!entry) return;
  history.keep();
  list();
  if (entry.report && state.clip && history.of(state.clip.id).includes(entry)) select(entry);
}

function complainOf(error) {
  if (error.name !== "AbortError") complain(error, $("ask-fault"));
}

const aborted = (signal) => new Promise((_, reject) => {
  signal.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
});

function waiting(entry, begun) {
  if (entry.text) return;
  entry.waiting = `The model is at it, ${duration(Math.round((performance.now() - begun) / 1000))}`;
  const line = $(`answer-${entry.number}`)?.querySelector(".wait");
  if (line) line.textContent = entry.waiting;
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = $("question");
  const question = field.value.trim();
  const wrong = settings.partFault();
  if (wrong) {
    $("options").open = true;
    $("start").focus();
  } else if (!question) {
    field.focus();
    speech.tell("Write a question first.");
  } else {
    ask(question, settings.values());
    field.select();
  }
});

$("question").addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    $("ask").requestSubmit();
  } else if (event.key === "ArrowUp" && !$("question").value && state.clip?.id) {
    const [last] = history.of(state.clip.id);
    if (!last) return;
    event.preventDefault();
    $("question").value = last.question;
    grow();
  }
});
$("question").addEventListener("input", grow);
$("stop").addEventListener("click", stop);

function stop() {
  state.call?.abort();
}

// Answers

const act = {
  jump: (start, end) => player.jump(start, end),
  select: (entry) => {
    select(entry);
    $("map").scrollIntoView({ block: "nearest", behavior: still.matches ? "auto" : "smooth" });
  },
  refill: (entry) => {
    $("question").value = entry.question;
    grow();
    settings.fill(entry.asked);
    $("question").focus();
    $("question").select();
  },
  again: (entry) => retry(entry),
  anyway: (entry) => retry(entry, { anyway: true }),
  key: () => askKey(true),
  choose: () => choosing(),
  save: (entry) => save(entry.report, `answer-${entry.number}.json`),
  remove: (entry) => {
    history.remove(state.clip.id, entry);
    list();
    if (state.shown === entry) select(history.of(state.clip.id).find((other) => other.report) ?? null);
    $("question").focus();
    speech.tell("Removed.");
  },
  noticesBefore: (entry) =>
    history.of(state.clip.id)
      .filter((other) => other.report && other.number < entry.number)
      .flatMap((other) => other.report.trace.notices),
};

function retry(entry, more) {
  if (state.call) return;
  history.remove(state.clip.id, entry);
  $("question").focus();
  ask(entry.question, entry.asked, more);
}

/** Draw the answers of the clip anew. */
function list() {
  const entries = state.clip?.id ? history.of(state.clip.id) : [];
  keepMap();
  $("answers").replaceChildren(...entries.map((entry) => card(entry, act)));
  $("answers-head").hidden = $("answers").hidden = !entries.length;
  $("empty").hidden = entries.length > 0;
  place();
}

function reveal(entry) {
  if (!wide.matches) $(`answer-${entry.number}`).scrollIntoView({ block: "nearest", behavior: still.matches ? "auto" : "smooth" });
}

/** Show an answer on the timeline. */
function select(entry) {
  state.shown = entry?.report?.trace.chunks.length ? entry : null;
  $("map").hidden = !state.shown;
  if (state.shown) {
    $("map-of").textContent = "";
    $("map-of").append(h("span", {}, entry.question));
    timeline.show(entry.report.trace, entry.report.trace.clip.duration ?? player.length);
    settings.showOptions();
  }
  place();
}

function keepMap() {
  document.body.append($("map"));
}

/** The timeline stands below the player, on a phone below its answer. */
function place() {
  for (const node of document.querySelectorAll("[data-select]")) {
    const own = state.shown !== null && node.closest("article").id === `answer-${state.shown.number}`;
    node.setAttribute("aria-pressed", String(own));
    node.closest("article").classList.toggle("shown", own);
  }
  if (!state.shown) keepMap();
  else (wide.matches ? $("map-wide") : $(`answer-${state.shown.number}`).querySelector(".here")).append($("map"));
}

wide.addEventListener("change", place);

$("export").addEventListener("click", () => {
  save(history.document(state.clip.id), `${state.clip.name.replace(/[^\w.-]+/g, "-")}.answers.json`);
});
$("clear").addEventListener("click", () => {
  if (state.call) return;
  history.clear(state.clip.id);
  list();
  select(null);
  $("question").focus();
  speech.tell("All answers of this clip were removed.");
});

// Begin

let moment = -1;
shortcuts({
  stop,
  question: () => $("question").focus(),
  play: () => player.toggle(),
  skip: (by) => player.seek(Math.max(0, player.time + by)),
  moment: () => {
    const found = state.shown?.report.trace.moments ?? [];
    if (!found.length) return;
    moment = (moment + 1) % found.length;
    player.jump(found[moment].start, found[moment].end);
  },
  mark: (id) => {
    settings.mark(id);
    speech.tell(`${id === "start" ? "Asked from" : "Asked up to"} ${$(id).value}.`);
  },
  ready: () => state.clip !== null,
});

async function begin() {
  try {
    const told = await api.models();
    [state.model] = told.data;
    state.limits = told.limits ?? {};
  } catch (error) {
    $("choose").hidden = false;
    complain(error);
    return;
  }
  quiet();
  const known = state.model.omnidrop ?? {};
  $("model").textContent = [state.model.id, known.device].filter(Boolean).join(", ");
  settings.use(state.model);
  const id = decodeURIComponent(location.hash.slice(1));
  try {
    await clips.load();
  } catch (error) {
    complain(error);
    return;
  }
  if (!id) $("choose").hidden = false;
  else {
    const found = clips.found.find((clip) => clip.id === id);
    if (found) await open(found);
    else choosing();
  }
}

begin();
