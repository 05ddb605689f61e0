// The server: requests with the key, answers as a stream, uploads with progress.

let key = sessionStorage.getItem("omnidrop.key") ?? "";

/** Keep the API key for this tab. */
export function setKey(value) {
  key = value;
  sessionStorage.setItem("omnidrop.key", value);
}

/** An error that the server told, or `no_answer` and `cut_off` where it told nothing. */
export class ServerError extends Error {
  constructor(message, { status = 0, code = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

function failure(text, status, retryAfter) {
  let told = {};
  try {
    told = JSON.parse(text).error ?? {};
  } catch {
    // Not of this server: a proxy's page, whose words would help nobody.
  }
  return new ServerError(told.message ?? "", { status, code: told.code ?? null, retryAfter });
}

const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});

async function request(path, { method = "GET", body, signal } = {}) {
  let told;
  try {
    told = await fetch(path, {
      method,
      signal,
      headers: body ? { ...headers(), "Content-Type": "application/json" } : headers(),
      body: body && JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("", { code: "no_answer" });
  }
  if (!told.ok) throw failure(await told.text(), told.status, told.headers.get("Retry-After"));
  return told;
}

const at = (id) => `v1/clips/${encodeURIComponent(id)}`;

export const models = async () => (await request("v1/models")).json();
export const clips = async () => (await request("v1/clips")).json();
export const clip = async (id) => (await request(at(id))).json();
export const forget = async (id) => (await request(at(id), { method: "DELETE" })).json();
export const estimate = async (id, body, signal) =>
  (await request(`${at(id)}/estimate`, { method: "POST", body, signal })).json();

/** The address that the player loads; it holds a token, since a player cannot send the key. */
export const media = (found) => found.media.replace(/^\//, "");

/** Send a file; `progress` is told the share that was sent. The promise gives the clip. */
export function upload(file, progress, signal) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    const body = new FormData();
    body.append("file", file, file.name);
    call.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) progress(event.loaded / event.total);
    });
    call.addEventListener("load", () => {
      if (call.status < 300) resolve(JSON.parse(call.responseText));
      else reject(failure(call.responseText, call.status, call.getResponseHeader("Retry-After")));
    });
    call.addEventListener("error", () => reject(new ServerError("", { code: "no_answer" })));
    call.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
    signal.addEventListener("abort", () => call.abort());
    call.open("POST", "v1/clips");
    for (const [name, value] of Object.entries(headers())) call.setRequestHeader(name, value);
    call.send(body);
  });
}

/** Yield the JSON of each event of a stream. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError("", { code: "cut_off" });
    }
    if (part.done) return;
    const lines = (rest + part.value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const text = line.slice(5).trim();
      if (text === "[DONE]") {
        yield null;
        return;
      }
      yield JSON.parse(text);
    }
  }
}

/**
 * Ask; `told.text` is told each piece of text as it comes, `told.stage` what is done before it.
 *
 * Resolves with the answer document.
 */
export async function ask({ model, clip: found, question, extension }, told, signal) {
  const content = [
    { type: "video_url", video_url: { url: found.url ?? found.id } },
    { type: "text", text: question },
  ];
  const reply = await request("v1/chat/completions", {
    method: "POST",
    signal,
    body: {
      model,
      stream: true,
      messages: [{ role: "user", content }],
      omnidrop: { ...extension, report: true, progress: true },
    },
  });
  let report = null;
  for await (const event of events(reply.body)) {
    if (event === null) {
      if (!report) throw new ServerError("", { code: "cut_off" });
      return report;
    }
    if (event.error) throw new ServerError(event.error.message, { status: 500, ...event.error });
    const text = event.choices?.[0]?.delta?.content;
    if (text) told.text(text);
    const doing = event.omnidrop?.progress;
    if (doing) told.stage(doing);
    report = event.omnidrop?.report ?? report;
  }
  throw new ServerError("", { code: "cut_off" });
}
