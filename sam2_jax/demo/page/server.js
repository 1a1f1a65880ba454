// What the page asks of the server. Every request carries all that it needs: the server keeps media and nothing else.
// What goes wrong comes as a `Refusal`, whose message is a sentence for people.

const token = new URLSearchParams(location.search).get("token");

const SILENT = "The server does not answer. If it was stopped, start it again; your work is kept here.";

/** The server's answer to what it will not or cannot do. dropped: the medium is no longer there. */
export class Refusal extends Error {
  constructor(sentence, status = 0) {
    super(`${sentence[0].toUpperCase()}${sentence.slice(1)}${/[.!?]$/.test(sentence) ? "" : "."}`);
    this.status = status;
  }

  get dropped() {
    return this.status === 404;
  }
}

async function request(path, options = {}) {
  const headers = { ...(token && { "X-Token": token }), ...options.headers };
  let response;
  try {
    response = await fetch(`api/${path}`, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(SILENT);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refusal(body.error ?? `The server answered ${response.status} ${response.statusText}.`, response.status);
}

const json = async (...call) => (await request(...call)).json();

const posted = (body, signal) => ({
  method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal,
});

/** The lines of an answer that comes bit by bit, each read from JSON as soon as it is whole. */
async function* lines(path, body, signal) {
  const response = await request(path, posted(body, signal));
  let rest = "";
  for await (const text of chunks(response.body.pipeThrough(new TextDecoderStream()))) {
    const parts = (rest + text).split("\n");
    rest = parts.pop();
    for (const part of parts.filter(Boolean)) yield checked(part);
  }
  if (rest) yield checked(rest);
}

async function* chunks(stream) {
  const reader = stream.getReader();
  const next = () => reader.read().catch((error) => {
    throw error.name === "AbortError" ? error : new Refusal(SILENT);
  });
  for (let piece = await next(); !piece.done; piece = await next()) yield piece.value;
}

function checked(line) {
  const value = JSON.parse(line);
  if (value.error) throw new Refusal(value.error);
  return value;
}

/** The model's name, the limits of an upload, and the media that the server was started with. */
export const state = () => json("state");

export const medium = (id) => json(`media/${id}`);

export const upload = (file) =>
  json(`media?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });

/** One frame's pixels, as an ImageBitmap. */
export async function frame(id, number) {
  const response = await request(`media/${id}/frames/${number}`);
  return createImageBitmap(await response.blob());
}

export const predict = (id, prompts, signal) => json(`media/${id}/predict`, posted(prompts, signal));

export const everything = (id, options, signal) => lines(`media/${id}/everything`, options, signal);

export const track = (id, options, signal) => lines(`media/${id}/track`, options, signal);

/** A file of results, as {blob, name}. */
export async function exported(id, options, signal) {
  const response = await request(`media/${id}/export`, posted(options, signal));
  const disposition = response.headers.get("Content-Disposition") ?? "";
  const [, encoded, plain] = /filename\*=utf-8''([^;]+)|filename="([^"]+)"/i.exec(disposition) ?? [];
  return { blob: await response.blob(), name: encoded ? decodeURIComponent(encoded) : (plain ?? options.format) };
}
