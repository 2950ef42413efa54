// Questions to the server. One image is asked for at a time; of the moves that come meanwhile, the newest alone.
import {session, page, keyOf, tell} from "./state.js";

let number = Math.floor(performance.timeOrigin);
let waiting = null, busy = false;
const pictures = new Map();  // key of a view → address of its image
const MOST = 300;

async function post(path, data, signal) {
  const response = await fetch(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({session, ...data}), signal});
  if (!response.ok) throw Object.assign(new Error(await sentence(response)), {refused: response.status === 400});
  return response;
}

const sentence = async response => (await response.json().catch(() => ({}))).error ?? `the server answers ${response.status}`;

export const ask = async (name, data, signal) => (await post(`/api/${name}`, data, signal)).json();
export const isBusy = () => busy;
export const pictureOf = view => pictures.get(keyOf(view));
export const said = error => { if (error.name !== "AbortError") tell("error", error.message === "Failed to fetch" ? "the server does not answer" : error.message); };

async function fetched(view, shown) {
  const key = keyOf(view);
  if (pictures.has(key)) { const url = pictures.get(key); pictures.delete(key); pictures.set(key, url); return url; }
  const response = await post("/image", {view, page, number: shown ? ++number : number, shown});
  if (response.status === 204) return null;
  const url = URL.createObjectURL(await response.blob());
  pictures.set(key, url);
  if (pictures.size > MOST) pictures.delete(pictures.keys().next().value);
  return url;
}

// Shows a view as soon as it can be; `done(url, view, milliseconds)` is called for each image that comes.
export function render(view, done) {
  waiting = {view, done};
  if (!busy) pump();
}

async function pump() {
  busy = true;
  while (waiting) {
    const {view, done} = waiting, start = performance.now();
    waiting = null;
    try {
      const url = await fetched(view, true);
      if (url) await done(url, view, performance.now() - start);
    } catch (error) {
      said(error);
      if (error.refused) tell("refused", view);
    }
  }
  busy = false;
  tell("idle");
}

// The server's session has this view from now on, and nothing that was fetched counts any more
export async function settle(view) {
  pictures.clear();
  await post("/image", {view, page, number: ++number, shown: true});
}

// An image that nobody waits for
export async function picture(view) {
  await quiet();
  return fetched(view, false);
}

export async function quiet(milliseconds = 0) {
  if (milliseconds) await new Promise(done => setTimeout(done, milliseconds));
  while (busy) await new Promise(done => setTimeout(done, 15));
}

export async function download(name, data) {
  const response = await post(`/api/${name}`, data), blob = await response.blob();
  const file = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition"))?.[1] ?? "segan";
  const url = URL.createObjectURL(blob);
  save(url, file);
  return {url, file};
}

function save(href, download) {
  Object.assign(document.createElement("a"), {href, download}).click();
}

export async function upload(name, values, file) {
  const response = await fetch(`/api/${name}?${new URLSearchParams({session, ...values})}`, {method: "POST", headers: {"Content-Type": "application/octet-stream"}, body: file});
  if (!response.ok) throw new Error(await sentence(response));
  return response;
}

// The lines of an answer, as they come
export async function* lines(response) {
  let rest = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}
