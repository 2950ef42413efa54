// What the page shows: a view (session.as_json of the server), its history, pins. All of it lives in the browser.
const KEPT = 100, MERGED = 1000;
const listeners = {};

export const state = {info: null, view: null, history: [], at: 0, pins: []};
export const session = sessionId();
export const page = randomId();

export const on = (what, listener) => (listeners[what] ??= []).push(listener);
export const tell = (what, detail) => (listeners[what] ?? []).forEach(listener => listener(detail));
export const amountOf = (view, id) => Object.hasOwn(view.edits, id) ? view.edits[id] : 0;
export const without = (view, ids) => ({...view, edits: Object.fromEntries(Object.entries(view.edits).filter(([id]) => !ids.includes(id))), inside: view.inside.filter(name => !ids.includes(name))});
export const keyOf = view => JSON.stringify({...view, edits: Object.entries(view.edits).sort()});
export const $ = id => document.getElementById(id);

export function element(tag, values = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(values))
    name in made && name !== "list" ? made[name] = value : made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// crypto.randomUUID is for https alone
function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map(x => x.toString(16).padStart(2, "0")).join("");
}

function sessionId() {
  const asked = new URLSearchParams(location.search).get("session");
  const id = /^[0-9a-f]{8,64}$/.test(asked) ? asked : sessionStorage.getItem("session") ?? randomId();
  sessionStorage.setItem("session", id);
  return id;
}

// History

let last = {what: null, time: 0};

// what: names the control, whose moves in quick succession are one step
export function change(values, what = null) {
  const view = {...state.view, ...values};
  if (keyOf(view) === keyOf(state.view)) return;
  const merged = what !== null && what === last.what && performance.now() - last.time < MERGED && state.at === state.history.length - 1;
  const kept = state.history.slice(0, state.at + (merged ? 0 : 1));
  state.history = [...kept, view].slice(-KEPT);
  state.at = state.history.length - 1;
  last = {what, time: performance.now()};
  show(view);
}

export function move(id, amount) {
  const edits = Object.assign(Object.create(null), state.view.edits);  // names of sliders may be those of its members
  if (amount) edits[id] = amount; else delete edits[id];
  change({edits}, id);
}

export function go(index) {
  if (index < 0 || index >= state.history.length || index === state.at) return;
  state.at = index;
  last = {what: null, time: 0};
  show(state.history[index]);
}

export const undo = () => go(state.at - 1);
export const redo = () => go(state.at + 1);

function show(view) {
  state.view = view;
  tell("view", view);
  keep();
}

// What choosing a seed changes: that seed is shown, whatever was mixed in
export const seedOnly = seed => ({seed, w: null, source: "", mix_layers: []});

// A view that the server refuses leaves no trace
on("refused", view => {
  if (keyOf(view) !== keyOf(state.view) || keyOf(view) === keyOf(state.info.view)) return;
  state.history.splice(state.at, 1);
  if (!state.history.length) state.history = [state.info.view];
  state.at = Math.max(state.at - 1, 0);
  last = {what: null, time: 0};
  show(state.history[state.at]);
});

let saving = null;
export function keep() {
  saving ??= setTimeout(() => {
    saving = null;
    history.replaceState(null, "", "./" + toHash(state.view));
    const {history: steps, at, pins} = state;
    try { sessionStorage.setItem("state", JSON.stringify({history: steps, at, pins})); } catch { sessionStorage.removeItem("state"); }
  }, 300);
}

export const recalled = () => { try { return JSON.parse(sessionStorage.getItem("state")); } catch { return null; } };

// A link holds the view

const binary = text => { try { return atob(text.replaceAll("-", "+").replaceAll("_", "/")); } catch { return "?"; } };  // of a broken link
const bytes = hex => btoa(String.fromCharCode(...hex.match(/../g).map(two => parseInt(two, 16)))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const hex = text => [...binary(text)].map(c => c.charCodeAt(0).toString(16).padStart(2, "0")).join("");

export function toHash(view) {
  const values = new URLSearchParams({network: view.network, seed: view.seed, psi: view.psi});
  if (view.cutoff !== null) values.set("cutoff", view.cutoff);
  if (view.noise !== "const") values.set("noise", view.noise);
  if (view.class_idx) values.set("class", view.class_idx);
  if (view.mix_layers.length) values.set("mix", `${view.mix_seed}:${view.mix_layers}`);
  for (const name of view.inside) values.append("inside", name);
  for (const [id, amount] of Object.entries(view.edits)) values.append("move", `${id}:${amount}`);
  if (view.source) values.set("of", view.source);
  if (view.w) values.set("w", bytes(view.w));
  return "#" + values;
}

const PLAIN = {network: null, cutoff: null, mix_seed: 1};

export function fromHash(text, start = PLAIN) {
  const values = new URLSearchParams(text.slice(1)), number = (name, otherwise) => values.has(name) ? Number(values.get(name)) : otherwise;
  if (!values.has("seed")) return null;
  const [mix_seed, layers] = (values.get("mix") ?? `${start.mix_seed}:`).split(":");
  const edits = Object.fromEntries(values.getAll("move").map(each => [each.slice(0, each.lastIndexOf(":")), Number(each.slice(each.lastIndexOf(":") + 1))]));
  return {...start, network: values.get("network") ?? start.network, seed: number("seed", 0), psi: number("psi", 0.7), cutoff: number("cutoff", null),
    noise: values.get("noise") ?? "const", class_idx: number("class", 0), mix_seed: Number(mix_seed), mix_layers: layers ? layers.split(",").map(Number) : [],
    inside: values.getAll("inside"), edits, w: values.has("w") ? hex(values.get("w")) : null, source: values.get("of") ?? ""};
}

// The number of a field as a whole one within its bounds, which it shows from then on
export function whole(field) {
  const number = Math.round(Number(field.value)) || 0, low = Number(field.min || 0), high = Number(field.max || Infinity);
  field.value = Math.min(Math.max(number, low), high);
  return Number(field.value);
}

// Words

const short = text => text.length > 60 ? text.slice(0, 59) + "…" : text;
export const nameOf = control => short(control.value ? `${control.label}: ${control.value}` : control.label);
const SOURCES = {picture: "found for a picture", mix: "a mix of images", painting: "painted", file: "latents of a file"};
export const originOf = view => view.w ? SOURCES[view.source] ?? "latents" : `seed ${view.seed}`;
export const mixOf = view => view.mix_layers.length ? `layers ${view.mix_layers.join(", ")} of seed ${view.mix_seed}` : "";
export const signed = amount => (amount > 0 ? "+" : "") + (Math.round(amount * 100) / 100);
export function describe(view, known) {
  const edits = Object.entries(view.edits).map(([id, amount]) => `${nameOf(known.get(id) ?? {label: id})} ${signed(amount)}`);
  return [originOf(view), ...mixOf(view) ? [`with ${mixOf(view)}`] : [], ...edits].join(", ");
}
