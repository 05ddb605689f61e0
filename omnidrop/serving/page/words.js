// Numbers, times and errors in plain words; numbers as the command line writes them.

/** The nearest whole number; of two, the even one. */
function rounded(value) {
  const whole = Math.round(value);
  return Math.abs(value % 1) === 0.5 && whole % 2 ? whole - 1 : whole;
}

/** `1:05`, `1:02:05`, or `0:01.5` with tenths; tenths of null show where they are not 0. */
export function clock(seconds, tenths = false) {
  const at = Math.max(Number(seconds) || 0, 0);
  if (tenths === null) tenths = rounded(at * 10) % 10 !== 0;
  const units = tenths ? rounded(at * 10) : rounded(at) * 10;
  const whole = Math.floor(units / 10);
  const two = (value) => String(value).padStart(2, "0");
  const [hour, minute, second] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const text = hour ? `${hour}:${two(minute)}:${two(second)}` : `${minute}:${two(second)}`;
  return tenths ? `${text}.${units % 10}` : text;
}

/** `0:24–0:30`, with tenths for short spans that do not lie on whole seconds. */
export function span(start, end) {
  const tenths = end - start < 10 && [start, end].some((t) => Math.abs(t - Math.round(t)) > 0.05);
  return `${clock(start, tenths)}–${clock(end, tenths)}`;
}

/** Seconds of `75`, `1:15` or `0:01:15`; null of nothing, NaN of anything else. */
export function seconds(text) {
  const given = text.trim().replace(",", ".");
  if (!given) return null;
  if (!/^(\d+:){0,2}\d+(\.\d+)?$/.test(given)) return NaN;
  return given.split(":").reduce((sum, part) => 60 * sum + Number(part), 0);
}

/** `30.1 %`; a dash where it is not known. */
export const share = (value, digits = 1) =>
  Number.isFinite(value) ? `${(100 * value).toFixed(digits)} %` : "–";

/** A probability in whole percent. */
export function percent(value) {
  if (value >= 0.995) return "over 99 %";
  return value < 0.005 ? "under 1 %" : share(value, 0);
}

export const number = (value) =>
  Number.isFinite(value) ? rounded(value).toLocaleString("en-US") : "–";

/** `12 ms`, `1.24 s`, `2 min 03 s`, `1 h 02 min`. */
export function duration(value) {
  if (!Number.isFinite(value)) return "–";
  if (value < 0.0995) return `${(1000 * value).toFixed(value < 0.00995 ? 1 : 0)} ms`;
  if (value < 119.5) return `${value.toFixed(value < 9.995 ? 2 : 1)} s`;
  const whole = rounded(value);
  const two = (rest) => String(rest).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  const minutes = rounded(value / 60);
  return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}

function scaled(value, units) {
  if (!Number.isFinite(value)) return "–";
  let place = 0;
  while (Math.abs(value) >= 999.5 && place < units.length - 1) {
    value /= 1000;
    place += 1;
  }
  const digits = place === 0 || value >= 99.5 ? 0 : value >= 9.95 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[place]}`;
}

export const size = (value) => scaled(value, ["B", "kB", "MB", "GB", "TB"]);
export const flops = (value) => scaled(value, ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"]);

const DOING = {
  load: "Loading the model",
  open: "Opening the clip",
  sound: "Decoding the audio",
  frames: "Decoding the video",
  "audio tower": "Encoding the audio",
  "vision tower": "Encoding the video",
  choices: "Weighing the choices",
};

/** What the server does before the first word. */
export function doing({ stage, done, total }) {
  const words = DOING[stage] ?? "Reading the clip and the question";
  return total ? `${words}, ${Math.floor((100 * done) / total)} %` : words;
}

/** Words split at commas that are not quoted. */
export function list(text) {
  const found = text.match(/"[^"]*"|[^,]+/g) ?? [];
  return found.map((word) => word.trim().replace(/^"(.*)"$/, "$1").trim()).filter(Boolean);
}

/**
 * What to tell of an error, and what can be done about it.
 *
 * Returns {text, remedy}: remedy is "key", "anyway", "again", "choose" or null.
 */
export function fault(error) {
  if (error.name === "AbortError") return { text: "Stopped.", remedy: "again" };
  const said = error.message || "";
  const wait = error.retryAfter ? ` Try again in ${Math.ceil(Number(error.retryAfter))} s.` : "";
  if (error.code === "outside_model") {
    // How a program asks all the same; here is a button for it.
    return { text: said.replace(/\s*(Set|Add) `omnidrop\.anyway[^`]*`[^.]*\./, "").trim(), remedy: "anyway" };
  }
  if (error.code === "no_answer") {
    return {
      text: "The server does not answer. Perhaps it was stopped; omnidrop serve starts it again.",
      remedy: "again",
    };
  }
  if (error.code === "cut_off") {
    return { text: "The connection ended before the answer did.", remedy: "again" };
  }
  if (error.status === 401) {
    return { text: "The server wants another API key.", remedy: "key" };
  }
  if (error.status === 429) {
    return { text: `The server is busy: its queue is full.${wait}`, remedy: "again" };
  }
  if (error.code === "clip_not_found") {
    return { text: "The server no longer has this clip. Choose it again.", remedy: "choose" };
  }
  if (error.status === 413) return { text: said || "The clip is too large for this server.", remedy: null };
  if (error.status >= 500) {
    const text = said || "The server met an error.";
    return { text: text + wait, remedy: "again" };
  }
  return { text: said || `The server refused this (${error.status}).`, remedy: null };
}
