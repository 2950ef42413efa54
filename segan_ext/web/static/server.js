// Questions to the server. One image is asked for at a time; of the moves that come meanwhile, the newest alone.
import {session, page, keyOf, tell} from "./state.js";

let number = Math.floor(performance.timeOrigin);
let waiting = null, busy = false;
const pictures = new Map();  // key of a view → address of its image
const MOST = 150;  // more than the history has steps

// "reached" tells whether the server answers; a proxy before it says 502 to 504 where it does not
async function reach(path, options) {
  const response = await fetch(path, options).catch(error => {
    if (error.name !== "AbortError") tell("reached", false);
    throw Object.assign(error, {away: true});
  });
  const away = [502, 503, 504].includes(response.status);
  tell("reached", !away);
  if (!response.ok) throw Object.assign(new Error(away ? "" : await sentence(response)), {away, refused: [400, 500].includes(response.status)});
  return response;
}

const post = (path, data, signal) => reach(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({session, ...data}), signal});

const sentence = async response => (await response.json().catch(() => ({}))).error ?? `the server answers ${response.status}`;

export const ask = async (name, data, signal) => (await post(`api/${name}`, data, signal)).json();
export const isBusy = () => busy;
export const pictureOf = view => pictures.get(keyOf(view));
export const said = error => { if (!error.away && error.name !== "AbortError") tell("error", error.message); };  // #away speaks of a server that is

async function fetched(view, shown) {
  const key = keyOf(view);
  if (pictures.has(key)) { const url = pictures.get(key); pictures.delete(key); pictures.set(key, url); return url; }
  const response = await post("image", {view, page, number: shown ? ++number : number, shown});
  if (response.status === 204) return null;
  const url = URL.createObjectURL(await response.blob());
  pictures.set(key, url);
  while (pictures.size > MOST) drop(pictures.keys().next().value);
  return url;
}

function drop(key) {
  URL.revokeObjectURL(pictures.get(key));
  pictures.delete(key);
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
  [...pictures.keys()].forEach(drop);
  await post("image", {view, page, number: ++number, shown: true});
}

// An image that nobody waits for
export async function picture(view) {
  await quiet();
  return fetched(view, false);
}

// One that can wait: small pictures come one by one
let last = Promise.resolve();
export function later(view) {
  const made = last.then(() => picture(view));
  last = made.catch(() => {});
  return made;
}

export async function quiet(milliseconds = 0) {
  if (milliseconds) await new Promise(done => setTimeout(done, milliseconds));
  while (busy) await new Promise(done => setTimeout(done, 15));
}

let saved = "";  // the last one, which the page may show
export async function download(name, data) {
  const response = await post(`api/${name}`, data), blob = await response.blob();
  const file = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition"))?.[1] ?? "segan";
  URL.revokeObjectURL(saved);
  saved = URL.createObjectURL(blob);
  save(saved, file);
  return {url: saved, file};
}

function save(href, download) {
  Object.assign(document.createElement("a"), {href, download}).click();
}

export const upload = (name, values, file) =>
  reach(`api/${name}?${new URLSearchParams({session, ...values})}`, {method: "POST", headers: {"Content-Type": "application/octet-stream"}, body: file});

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
