// Starts the page: opens the network, binds fields and keys.
import {$, state, on, tell, change, undo, redo, go, recalled, fromHash, keep, element, session, keyOf} from "./state.js";
import {ask, said, settle} from "./server.js";
import {draw, hold, wipe, choose} from "./stage.js";
import {find, forget, known} from "./controls.js";
import {pin, compare} from "./shelf.js";
import {openPanel, saveImage} from "./panels.js";

async function openNetwork(network) {
  const info = await ask("open", {network});
  state.info = info;
  state.view ??= info.view;
  forget();
  for (const control of info.named) known.set(control.id, control);
  document.title = `${info.network} – SEGAN`;
  $("network").replaceChildren(...info.networks.map(name => element("option", {value: name, textContent: name, selected: name === info.network})));
  $("network").hidden = false;
  $("layer").replaceChildren(element("option", {value: "", textContent: "All layers"}), ...info.layers.map(name => element("option", {value: name, textContent: name})));
  $("layer").hidden = !info.layers.length;
  $("search").value = "";
  $("class-field").hidden = !info.classes_of_G;
  $("class").max = Math.max(info.classes_of_G - 1, 0);
  $("cutoff").max = info.num_ws;
  document.documentElement.style.setProperty("--side", info.resolution);
  tell("info", info);
  return info;
}

function showFields(view) {
  const fill = (id, value) => { if (document.activeElement !== $(id) || $(id).type === "range") $(id).value = value; };
  fill("seed", view.seed);
  fill("psi", view.psi);
  fill("cutoff", view.cutoff ?? state.info.num_ws);
  fill("noise", view.noise);
  fill("class", view.class_idx);
  $("psi-value").textContent = view.psi;
  $("cutoff-value").textContent = view.cutoff ?? "all";
}

// Another network keeps seed, ψ and noise, and has its own place in the history
async function anotherNetwork(network) {
  const {seed, psi, noise} = state.view;
  try {
    const {view} = await openNetwork(network);
    change({...view, seed, psi, noise});
    find();
  } catch (error) { said(error); $("network").value = state.view.network; }
}

let seen = null;
on("view", async view => {
  if (seen !== null && view.network !== state.info.network) await openNetwork(view.network).then(() => find()).catch(said);
  seen = view;
  showFields(view);
  draw(view);
});

async function start() {
  const painted = new URLSearchParams(location.search).has("painted"), old = recalled();
  const remembered = old?.history?.[old.at]?.network, link = location.hash;
  const first = fromHash(link, {network: null})?.network ?? remembered ?? null;
  const info = await openNetwork(first).catch(error => { said(error); return openNetwork(null); });
  const fresh = info.view, ofLink = painted ? null : fromHash(link, fresh);
  if (old?.history?.length && remembered === info.network) Object.assign(state, {history: old.history, at: old.at, pins: old.pins ?? []});
  else Object.assign(state, {history: [ofLink ?? fresh], at: 0});
  state.view = state.history[state.at];
  find();
  tell("view", state.view);
  tell("info", info);
  if (painted) change(fresh);
  else if (ofLink && keyOf(ofLink) !== keyOf(state.view)) change(ofLink);
  keep();
}

// Fields

const bind = (id, event, name, read = Number) => $(id).addEventListener(event, () => change({[name]: read($(id).value)}, name));
bind("psi", "input", "psi");
bind("cutoff", "input", "cutoff", text => Number(text) === state.info.num_ws ? null : Number(text));
bind("noise", "change", "noise", text => text.trim() || "const");
bind("class", "change", "class_idx");
const setSeed = seed => change({seed: Math.min(Math.max(seed, 0), 2 ** 32 - 1), w: null}, "seed");
$("seed").addEventListener("change", () => setSeed(Math.round(Number($("seed").value)) || 0));
const random = () => { change({seed: Math.floor(Math.random() * 2 ** 31), w: null}); };
$("random").onclick = random;
$("network").onchange = () => anotherNetwork($("network").value);
$("inside").addEventListener("change", () => change({inside: [...$("inside").querySelectorAll("input:checked")].map(box => box.value)}));
$("smooth").addEventListener("change", () => { localStorage.setItem("smooth", $("smooth").checked); smooth(); });
const smooth = () => document.documentElement.classList.toggle("smooth", $("smooth").checked);
$("smooth").checked = localStorage.getItem("smooth") === "true";
smooth();

const reset = () => change({edits: {}});
$("undo").onclick = undo;
$("redo").onclick = redo;
$("reset").onclick = reset;
$("pin").onclick = pin;
$("compare").onclick = compare;
$("wiping").onclick = () => wipe();
$("help").onclick = () => $("keys").showModal();
const holding = $("hold");
for (const [event, down] of [["pointerdown", true], ["pointerup", false], ["pointerleave", false], ["pointercancel", false]]) holding.addEventListener(event, () => hold(down));
holding.addEventListener("keydown", event => { if (event.key === " " || event.key === "Enter") hold(true); });
holding.addEventListener("keyup", () => hold(false));
holding.addEventListener("contextmenu", event => event.preventDefault());

// The studio works on what is shown

for (const link of document.querySelectorAll("nav a")) {
  link.href = `/studio/?session=${session}&tab=${link.dataset.tab}`;
  link.addEventListener("click", async event => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    await settle(state.view).catch(said);
    location.href = link.href;
  });
}

// Keys

const KEYS = {z: undo, y: redo, w: () => wipe(), p: pin, c: compare, r: random, 0: reset, s: saveImage, "[": () => setSeed(state.view.seed - 1), "]": () => setSeed(state.view.seed + 1),
  "/": () => { openPanel("controls"); $("search").focus(); }, "?": () => $("keys").showModal(), escape: () => { choose(null); $("drop-menu").hidden = true; }};
["controls", "seeds", "mix", "photo", "export"].forEach((name, i) => { KEYS[i + 1] = () => openPanel(name, true); });
const writes = node => node.matches?.("textarea, select, input:not([type=range], [type=checkbox], [type=file])");

addEventListener("keydown", event => {
  const key = event.key.toLowerCase(), control = event.ctrlKey || event.metaKey;
  if (writes(event.target) && !(key === "escape")) return;
  if (document.querySelector("dialog[open]") || event.altKey || (control && !"zy".includes(key))) return;
  if (key === "b") { if (!event.repeat) hold(true); return event.preventDefault(); }
  const act = control && event.shiftKey && key === "z" ? redo : KEYS[key];
  if (!act) return;
  event.preventDefault();
  act();
});
addEventListener("keyup", event => { if (event.key.toLowerCase() === "b") hold(false); });
addEventListener("blur", () => hold(false));
addEventListener("hashchange", () => {
  const view = fromHash(location.hash, state.info.view);
  if (view) change(view);
});

// Messages

let fading = null;
function say(text, kind) {
  const box = $("said");
  Object.assign(box, {textContent: text, className: kind, hidden: false});
  clearTimeout(fading);
  fading = setTimeout(() => { box.hidden = true; }, 6000);
}
on("error", text => say(text, "error"));
on("note", text => say(text, "note"));

start().catch(said);
