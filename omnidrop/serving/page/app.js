// The page: choose a clip, ask, read, look.

import { Answers } from "./answers.js";
import * as api from "./api.js";
import { about, Clips } from "./clips.js";
import { $, h } from "./dom.js";
import { History } from "./history.js";
import { Player } from "./player.js";
import { Settings } from "./settings.js";
import { shortcuts } from "./shortcuts.js";
import { Speech } from "./speech.js";
import { Timeline } from "./timeline.js";
import { doing, duration, fault, size } from "./words.js";

const coarse = matchMedia("(hover: none) and (pointer: coarse)");

/** What is open: the model, the clip, the upload of the clip, and the question that is asked. */
const state = { model: null, limits: {}, clip: null, sent: null, sending: null, call: null };
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
  tell: (text) => speech.tell(text),
});
const answers = new Answers({
  history,
  player,
  timeline,
  act: {
    refill: (entry) => {
      write(entry.question);
      settings.fill(entry.asked);
      $("question").focus();
      $("question").select();
    },
    again: (entry) => retry(entry),
    anyway: (entry) => retry(entry, { anyway: true }),
    key: () => askKey(true),
    choose: () => choosing(),
    emptied: (text) => {
      $("question").focus();
      speech.tell(text);
    },
  },
});
const clips = new Clips({
  open,
  send,
  forgotten: (clip) => {
    history.clear(clip.id);
    $("file").focus();
    speech.tell(`${clip.name} was deleted from the server.`);
  },
});

// Errors

function complain(error, place = $("fault")) {
  if (error.status === 401) {
    askKey();
    return;
  }
  place.textContent = fault(error).text;
  place.hidden = false;
}

function quiet(place = $("fault")) {
  place.hidden = true;
}

// The key

function askKey(wrong = Boolean($("key-value").value)) {
  if (wrong) $("key-note").textContent = "The server does not know this key. It is the one that omnidrop serve was started with.";
  if (!$("key").open) $("key").showModal();
  $("key-value").select();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.setKey($("key-value").value);
  $("key").close();
  begin();
});

$("key").addEventListener("cancel", () => {
  const give = h("button", { type: "button", class: "main", on: { click: () => askKey() } }, "Give the key");
  $("fault").replaceChildren(h("p", {}, "This server answers only with its API key."), h("p", {}, give));
  $("fault").hidden = false;
});

// Clips

/** Keep the clip in the address, so that loading the page anew opens it again. */
function remember(id) {
  window.history.replaceState(null, "", id ? `#${encodeURIComponent(id)}` : location.pathname);
}

function choosing() {
  state.call?.abort();
  state.sending?.abort();
  state.clip = null;
  settings.of(null);
  answers.of(null);
  player.load(null);
  $("work").hidden = true;
  $("choose").hidden = false;
  document.title = "OmniDrop";
  remember("");
  clips.load().catch(complain);
}

function show(clip, source) {
  quiet();
  quiet($("ask-fault"));
  state.call?.abort();
  state.clip = clip;
  player.load(source);
  $("choose").hidden = true;
  $("work").hidden = false;
  $("sending").hidden = true;
  $("clip-name").replaceChildren(h("span", {}, clip.name));
  $("clip-facts").textContent = about(clip);
  document.title = `${clip.name} · OmniDrop`;
  settings.fill({});
  write("");
  // On a phone the keyboard would hide the clip.
  (coarse.matches ? $("clip-name") : $("question")).focus();
}

/** The server has the clip: questions can be asked. */
function arrived(clip) {
  state.clip = clip;
  $("clip-facts").textContent = about(clip);
  remember(clip.id);
  settings.of(clip);
  if (answers.clip?.id !== clip.id) answers.of(clip);
}

/** Open a clip that the server has. */
async function open(found) {
  state.sending?.abort();
  show(found, api.media(found));
  arrived(found);
  try {
    const known = await api.clip(found.id);
    if (state.clip === found) arrived(known);
  } catch (error) {
    if (state.clip !== found) return;
    // There is no such clip, or it is none.
    if ([400, 403, 404].includes(error.status)) choosing();
    complain(error);
  }
}

/** Send a file of this machine; it plays at once, and a question waits for its arrival. */
function send(file) {
  state.sending?.abort();
  const local = { id: null, name: file.name, bytes: file.size };
  show(local, file);
  settings.of(null);
  answers.of(local);
  const limit = state.limits.upload_bytes;
  const call = new AbortController();
  state.sending = call;
  const progress = (part) => {
    $("sent").value = part;
    $("sent-word").textContent = part < 1 ? `Uploading, ${Math.floor(100 * part)} %` : "The server reads the clip";
  };
  progress(0);
  $("sending").hidden = false;
  state.sent = limit && file.size > limit
    ? Promise.reject(new api.ServerError(`The file is larger than the ${size(limit)} that this server takes.`, { status: 413 }))
    : api.upload(file, progress, call.signal);
  state.sent.then(
    (clip) => {
      if (state.clip !== local) return;
      $("sending").hidden = true;
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

/** Put a question into the field. */
function write(text) {
  $("question").value = text;
  grow();
}

function grow() {
  $("question").rows = Math.min(6, $("question").value.split("\n").length);
}

function asking(on) {
  const [from, to] = on ? [$("go"), $("stop")] : [$("stop"), $("go")];
  const focused = document.activeElement === from;
  from.hidden = true;
  to.hidden = false;
  if (focused) to.focus();
}

const aborted = (signal) => new Promise((_, reject) => {
  signal.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
});

/** The clip, once the server has it. */
async function arrival(signal) {
  if (state.clip.id) return state.clip;
  speech.tell("The question is asked as soon as the clip has arrived.");
  const empty = $("empty").textContent;
  $("empty").textContent = "The question is asked as soon as the clip has arrived.";
  try {
    await Promise.race([state.sent, aborted(signal)]);
  } finally {
    $("empty").textContent = empty;
  }
  return state.clip;
}

async function ask(question, asked, more = {}) {
  const call = new AbortController();
  state.call = call;
  asking(true);
  quiet($("ask-fault"));
  const begun = performance.now();
  let entry = null;
  let stage = "Waiting for the model";
  const ticking = setInterval(() => {
    if (entry && !entry.text) answers.wait(entry, `${stage} · ${duration(Math.round((performance.now() - begun) / 1000))}`);
  }, 1000);
  try {
    const clip = await arrival(call.signal);
    entry = history.add(clip.id, question, asked);
    answers.begun(entry);
    speech.begin();
    const told = {
      text: (text) => {
        answers.write(entry, text);
        speech.say(text);
      },
      stage: (event) => {
        stage = doing(event);
        if (!entry.text) answers.wait(entry, stage);
      },
    };
    entry.report = await api.ask({ model: state.model.id, clip, question, extension: { ...asked, ...more } }, told, call.signal);
    speech.end(entry.report.text || "The model ended without a word.");
  } catch (error) {
    if (entry) {
      entry.error = error;
      speech.end(fault(error).text, true);
      if (error.status === 401) askKey(true);
    } else if (error.name !== "AbortError") complain(error, $("ask-fault"));
  } finally {
    clearInterval(ticking);
    // Another clip may have been opened, and asked, meanwhile.
    if (state.call === call) {
      state.call = null;
      asking(false);
    }
  }
  if (!entry) return;
  history.keep();
  answers.ended(entry);
}

function retry(entry, more) {
  if (state.call) return;
  history.remove(state.clip.id, entry);
  $("question").focus();
  ask(entry.question, entry.asked, more);
}

function submit() {
  const field = $("question");
  const question = field.value.trim();
  if (state.call) {
    $("ask-fault").textContent = "The last question is still being answered; Esc stops it.";
    $("ask-fault").hidden = false;
  } else if (settings.partFault()) {
    $("options").open = true;
    $("start").focus();
  } else if (!question) {
    field.focus();
    speech.tell("Write a question first.");
  } else {
    ask(question, settings.values());
    if (coarse.matches) field.blur();
    else field.select();
  }
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
$("question").addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    submit();
  } else if (event.key === "ArrowUp" && !$("question").value) {
    const [last] = answers.entries();
    if (!last) return;
    event.preventDefault();
    write(last.question);
  }
});
$("question").addEventListener("input", grow);
$("stop").addEventListener("click", () => state.call?.abort());

// Begin

let moment = -1;
shortcuts({
  stop: () => state.call?.abort(),
  question: () => $("question").focus(),
  play: () => player.toggle(),
  skip: (by) => player.seek(Math.max(0, player.time + by)),
  moment: () => {
    const found = answers.shown?.report.trace.moments ?? [];
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
  const id = decodeURIComponent(location.hash.slice(1));
  try {
    const told = await api.models();
    [state.model] = told.data;
    state.limits = told.limits ?? {};
    await clips.load();
  } catch (error) {
    $("choose").hidden = false;
    complain(error);
    return;
  }
  quiet();
  $("model").textContent = [state.model.id, state.model.omnidrop.device].filter(Boolean).join(", ");
  settings.use(state.model);
  const found = clips.found.find((clip) => clip.id === id);
  if (found) {
    open(found);
    return;
  }
  $("choose").hidden = false;
  if (!id) return;
  remember("");
  complain({ code: "clip_not_found" });
}

begin();
