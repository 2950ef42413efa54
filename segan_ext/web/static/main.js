// Starts the page: opens the network, binds fields and keys.
import {$, state, on, tell, change, undo, redo, go, recalled, fromHash, keep, element, session, keyOf, originOf, mixOf, without, whole, seedOnly} from "./state.js";
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
  fill("seed", view.w ? "" : view.seed);  // no seed counts, so that typing any is a change
  fill("psi", view.psi);
  $("psi").disabled = $("cutoff").disabled = view.w !== null && !view.mix_layers.length;
  fill("cutoff", view.cutoff ?? state.info.num_ws);
  fill("noise", view.noise);
  fill("class", view.class_idx);
  $("psi-value").textContent = view.psi;
  $("cutoff-value").textContent = view.cutoff ?? "all";
  showOrigin(view);
}

// What the image is made of beside its seed, with a way back
function showOrigin(view) {
  const mix = mixOf(view), [text, button] = $("origin").children;
  $("origin").hidden = !view.w && !mix;
  text.textContent = mix ? `Mixed: ${mix}.` : `This image is ${originOf(view)}: seed and truncation do not count.`;
  button.textContent = mix ? "Take it out" : `Back to seed ${view.seed}`;
  button.onclick = () => change(mix ? {mix_layers: []} : seedOnly(view.seed));
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

// What of a view from outside can be shown here; says what cannot. What is left out of it goes from the history too.
async function fitted(view, says = true) {
  const {view: fit, left_out} = await ask("fit", {view}), gone = Object.keys(left_out);
  if (gone.length && says) tell("lasting", `Left out: ${Object.values(left_out).join("; ")}.`);
  return {fit, clean: each => without(each, gone)};
}

async function start() {
  const painted = new URLSearchParams(location.search).has("painted"), old = recalled();
  const remembered = old?.history?.[old.at], link = painted ? null : fromHash(location.hash);
  const before = remembered ? await fitted(remembered, !link) : {};
  const {fit = null} = link ? await fitted(link) : before;
  const info = await openNetwork(painted ? null : fit?.network ?? null);
  const fresh = info.view, ofLink = link ? fit : null;
  if (remembered?.network === info.network) Object.assign(state, {history: old.history.map(before.clean), at: old.at, pins: (old.pins ?? []).map(before.clean)});
  else Object.assign(state, {history: [fit ?? fresh], at: 0});
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
$("class").addEventListener("change", () => change({class_idx: whole($("class"))}, "class_idx"));
const setSeed = seed => change(seedOnly(Math.min(Math.max(seed, 0), 2 ** 32 - 1)), "seed");
$("seed").addEventListener("change", () => { if ($("seed").value || !state.view.w) setSeed(whole($("seed"))); });
const random = () => { change(seedOnly(Math.floor(Math.random() * 2 ** 31))); };
$("random").onclick = random;
$("network").onchange = () => anotherNetwork($("network").value);
$("inside").addEventListener("change", () => change({inside: [...$("inside").querySelectorAll("input:checked")].map(box => box.value)}));
$("smooth").addEventListener("change", () => { localStorage.setItem("smooth", $("smooth").checked); smooth(); });
const smooth = () => document.documentElement.classList.toggle("smooth", $("smooth").checked);
$("smooth").checked = localStorage.getItem("smooth") === "true";
smooth();

// The image of the seed, or of the picture, alone
const reset = () => change({edits: {}, ...state.view.source === "mix" ? seedOnly(state.view.seed) : {mix_layers: []}});
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
  link.href = `studio/?session=${session}&tab=${link.dataset.tab}`;
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
addEventListener("hashchange", async () => {
  const view = fromHash(location.hash);
  if (view) await fitted(view).then(({fit}) => change(fit)).catch(said);
});

// Messages

let fading = null;
function say(text, kind, lasting = false) {
  const box = $("said"), shown = text.length > 400 ? text.slice(0, 400) + " …" : text;
  Object.assign(box, {className: kind, hidden: false});
  box.replaceChildren(shown, element("button", {type: "button", textContent: "×", "aria-label": "Close the message", onclick: () => { box.hidden = true; }}));
  clearTimeout(fading);
  if (!lasting) fading = setTimeout(() => { box.hidden = true; }, 6000 + 30 * shown.length);
}
on("error", text => say(text, "error"));
on("note", text => say(text, "note"));
on("lasting", text => say(text, "error", true));

// A server that is away: a message that stays, and a question every other second. What it has forgotten is left out.

let away = false;
on("reached", here => {
  if (here !== away) return;
  away = !here;
  $("away").hidden = here;
  if (away) return setTimeout(askAgain, 2000);
  if (!state.view) return location.reload();
  fitted(state.view).then(async ({clean}) => {
    Object.assign(state, {history: state.history.map(clean), pins: state.pins.map(clean), view: clean(state.view)});
    await openNetwork(state.view.network);
    tell("view", state.view);
    keep();
    find();
  }).catch(said);
});
const askAgain = () => ask("fit", {view: state.view ?? {}}).catch(() => setTimeout(askAgain, 2000));

start().catch(said);
