// The gallery: a card for each control, with a slider between its two pictures.
import {$, state, on, move, amountOf, without, keyOf, nameOf, signed, element} from "./state.js";
import {ask, said, quiet, isBusy} from "./server.js";
import {place, pickClass, choose} from "./stage.js";

export const known = new Map();  // id → control
const cards = new Map();  // id → card
const FIRST = 24, WITH_PLACE = 96, BATCH = 4;
let shown = [], more = 0, count = FIRST, job = 0, leaving = new AbortController();
let seen = new Set();
const watcher = new IntersectionObserver(entries => {
  for (const {target, isIntersecting} of entries) isIntersecting ? seen.add(target.dataset.id) : seen.delete(target.dataset.id);
  renew();
}, {rootMargin: "200px"});

// What is found

let asking = 0;
export async function find(first = true) {
  if (first) count = place ? WITH_PLACE : FIRST;
  const mine = ++asking;
  try {
    const data = {network: state.view.network, text: $("search").value, layer: $("layer").value, count, ids: Object.keys(state.view.edits)};
    const answer = await ask("search", data);
    if (mine !== asking) return;
    for (const control of [...answer.wanted, ...answer.found]) known.set(control.id, control);
    const found = answer.found.map(c => c.id);
    shown = [...answer.wanted.map(c => c.id).filter(id => !found.includes(id)), ...found];
    more = answer.more;
    $("none").hidden = found.length > 0;
    arrange();
  } catch (error) { said(error); }
}

function arrange() {
  const order = place ? [...shown].sort((a, b) => score(b) - score(a)) : shown;
  const now = order.map(id => cards.get(id) ?? makeCard(known.get(id)));
  const old = [...$("cards").children];
  if (now.length !== old.length || now.some((card, i) => card !== old[i])) {
    const focused = document.activeElement;
    $("cards").replaceChildren(...now);
    if (now.some(card => card.contains(focused))) focused.focus({preventScroll: true});
  }
  $("more").hidden = !more;
  $("more").textContent = `Show more (${more})`;
  listControls(order);
  renew();
}

function listControls(order) {
  const select = $("walk-control"), chosen = select.value;
  select.replaceChildren(...order.map(id => element("option", {value: id, textContent: nameOf(known.get(id))})));
  if (order.includes(chosen)) select.value = chosen;
}

// How much of the place a control changes, times how little it changes elsewhere
function score(id) {
  const change = cards.get(id)?.change;
  if (!change || !place) return 0;
  let inside = 0, area = 0, all = 0;
  place.mask.forEach((share, i) => { inside += share * change[i]; area += share; all += change[i]; });
  const within = inside / Math.max(area, 1), outside = (all - inside) / Math.max(change.length - area, 1);
  return within * within / Math.max(within + outside, 1e-6);
}

// A card

function makeCard(control) {
  const {id, low, high} = control, range = high - low, step = range > 6 ? 0.1 : 0.05;
  const name = nameOf(control), sliderId = `slider-${cards.size}`;
  const values = {min: low, max: high, step};
  const slider = element("input", {type: "range", id: sliderId, ...values, value: 0, title: control.note});
  const amount = element("input", {type: "number", ...values, step: "any", value: 0, "aria-label": `${name}, amount`});
  const back = element("button", {type: "button", className: "back", textContent: "×", title: "Back to 0", "aria-label": `${name} back to 0`});
  const title = element("label", {htmlFor: sliderId}, control.label);
  if (control.colour) title.append(" ", element("i", {className: "swatch", title: control.colour, style: `background:${control.colour}`}), element("span", {className: "hidden", textContent: control.colour}));
  else if (control.value) title.append(element("span", {className: "value", textContent: `: ${control.value}`}));
  const [less, more] = control.opposite ? [`towards ${control.opposite}`, `towards ${control.value || "the other"}`] : ["less", "more"];
  const set = x => move(id, Math.round(Math.min(Math.max(x, low), high) * 1000) / 1000);
  const end = (side, x, word) => element("button", {type: "button", className: `end ${side}`, "aria-label": `${name} ${word}: ${signed(x)}`, onclick: () => set(x)}, element("img", {alt: "", draggable: false}));
  const card = element("article", {className: "card"},
    element("header", {}, title, control.opposite ? element("small", {textContent: `left: ${control.opposite}`}) : control.note && !control.own ? element("small", {textContent: control.note}) : "", amount, back),
    element("div", {className: "row"}, end("minus", control.minus, less), slider, end("plus", control.plus, more)));
  card.dataset.id = id;
  slider.oninput = () => set(Number(slider.value));
  amount.onchange = () => { set(Number(amount.value) || 0); card.show(state.view, true); };
  back.onclick = () => { set(0); slider.focus(); };
  card.show = (view, always = false) => {
    const x = amountOf(view, id);
    slider.value = x;
    card.classList.toggle("stale", card.of !== undefined && isStale(id));
    if (always || document.activeElement !== amount || Number(amount.value) !== x) amount.value = Math.round(100 * x) / 100;
    slider.setAttribute("aria-valuetext", signed(x));
    slider.style.setProperty("--at", `${100 * (Math.min(Math.max(x, low), high) - low) / range}%`);
    slider.style.setProperty("--zero", `${100 * Math.min(Math.max(-low / range, 0), 1)}%`);
    card.classList.toggle("moved", x !== 0);
  };
  cards.set(id, card);
  card.show(state.view);
  watcher.observe(card);
  return card;
}

export function forget() {
  cards.clear();
  known.clear();
  seen.clear();
  watcher.disconnect();
  choose(null);
}

// Small pictures: renewed in the background, what is on the screen first, and given up as soon as the image changes

const stateOf = (id, view) => keyOf({...view, edits: without(view, [id]).edits});
const isStale = id => cards.get(id)?.of !== stateOf(id, state.view);

async function renew() {
  const mine = ++job, view = state.view;
  leaving.abort();
  leaving = new AbortController();
  const {signal} = leaving;
  await quiet(200);
  while (mine === job) {
    const order = [...$("cards").children].map(card => card.dataset.id);
    const stale = order.filter(id => isStale(id) && (seen.has(id) || place)).sort((a, b) => seen.has(b) - seen.has(a));
    if (!stale.length || $("controls-panel").hidden) break;
    const ids = stale.slice(0, BATCH);
    try {
      const {thumbs} = await ask("thumbs", {view, ids}, signal);
      if (mine !== job) return;
      for (const thumb of thumbs) fill(cards.get(thumb.id), thumb, stateOf(thumb.id, view));
    } catch (error) { return said(error); }
    if (isBusy()) await quiet();
  }
  if (mine === job && place) arrangeOnce();
}

let arranged = null;
function arrangeOnce() {
  const key = keyOf(state.view) + place.name + place.x + place.y;
  $("region-note").textContent = `What moves ${place.name} most comes first.`;
  if (arranged === key) return;
  arranged = key;
  const order = [...shown].sort((a, b) => score(b) - score(a));
  if ($("cards").contains(document.activeElement) && Object.keys(state.view.edits).length) return;  // not under the hand
  $("cards").replaceChildren(...order.map(id => cards.get(id)));
  $("cards").dataset.sorted = place.name;
}

function fill(card, thumb, of) {
  const [minus, plus] = card.querySelectorAll(".end img");
  minus.src = thumb.minus;
  plus.src = thumb.plus;
  card.of = of;
  card.classList.toggle("stale", isStale(thumb.id));
  card.change = Uint8Array.from(atob(thumb.change), c => c.charCodeAt(0));
  card.dataset.ready = "";
}

// Regions

function showRegions() {
  const {classes} = state.info, box = $("regions");
  box.hidden = !classes.length;
  box.replaceChildren(...classes.map(({name, colour}) => element("button", {type: "button", className: "chip", "aria-pressed": false, onclick: () => place?.name === name ? choose(null) : pickClass(name).catch(said)},
    element("i", {className: "swatch", style: `background:${colour}`}), ` ${name}`)));
  $("inside-box").hidden = !classes.length;
  $("inside").replaceChildren(...classes.map(({name}) => {
    const box = element("input", {type: "checkbox", value: name});
    return element("label", {}, box, ` ${name}`);
  }));
}

on("info", showRegions);
on("view", view => {
  for (const id of Object.keys(view.edits)) if (!shown.includes(id)) { find(false); break; }
  cards.forEach(card => card.show(view));
  for (const box of $("inside").querySelectorAll("input")) box.checked = view.inside.includes(box.value);
  $("inside-chosen").textContent = view.inside.length ? `: ${view.inside.join(", ")}` : "";
});
on("idle", renew);
on("panel", name => { if (name === "controls") renew(); });
on("place", found => {
  arranged = null;
  delete $("cards").dataset.sorted;
  for (const chip of $("regions").children) chip.setAttribute("aria-pressed", chip.textContent.trim() === found?.name);
  $("region-note").textContent = found ? `Looking for what moves ${found.name} …` : "Click on the image: what moves that place most comes first.";
  if (found) $("region-note").append(" "), find();
  else if (state.info) find();
});

let typing = null;
$("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(find, 120); });
$("layer").addEventListener("change", () => find());
$("more").addEventListener("click", () => { count += 48; find(false); });
