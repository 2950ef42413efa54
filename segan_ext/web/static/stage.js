// The image: before and after, the wipe, the place that is picked, what is dropped on it.
import {$, state, on, tell, describe, keyOf, element} from "./state.js";
import {ask, render, picture, said, quiet, pictureOf} from "./server.js";
import {known} from "./controls.js";

const SIDE = 32;  // of the map of the place that is picked
const stage = $("stage"), image = $("image"), before = $("before"), region = $("region"), cross = $("cross");
let wiping = false, holding = false, at = null, labels = {key: null};
export let place = null;  // {name, mask: Float32Array of SIDE²}

const plain = view => ({...view, edits: {}, inside: []});
const hasBefore = () => Object.keys(state.view.edits).length > 0;

export function draw(view) {
  render(view, async (url, shown, milliseconds) => {
    image.src = url;
    await image.decode().catch(() => {});
    image.alt = `Generated image: ${describe(shown, known)}`;
    stage.dataset.shown = keyOf(shown);
    $("status").textContent = `${Math.round(milliseconds)} ms`;
    tell("shown", shown);
  });
}

on("idle", async () => {
  const view = state.view;
  await quiet(150);
  if (view !== state.view) return;
  if (holding || wiping || hasBefore()) await fetchBefore().catch(said);
  if (view === state.view) countChange();
});

async function fetchBefore() {
  const view = plain(state.view), url = await picture(view);
  if (url && keyOf(plain(state.view)) === keyOf(view)) {
    before.src = url;
    await before.decode().catch(() => {});
    before.dataset.key = keyOf(view);
  }
  paint();
}

// Mean difference of a pixel, of 255, as soon as both images are there
function countChange() {
  const edited = Object.keys(state.view.edits).length, text = $("status").textContent.split(" · ")[0];
  const moved = edited ? `${edited} slider${edited > 1 ? "s" : ""} moved` : "no sliders moved";
  if (!edited || before.dataset.key !== keyOf(plain(state.view))) return $("status").textContent = `${text} · ${moved}`;
  const n = Math.min(state.info.resolution, 256), [a, b] = [before, image].map(each => {
    const context = new OffscreenCanvas(n, n).getContext("2d", {willReadFrequently: true});
    context.drawImage(each, 0, 0, n, n);
    return context.getImageData(0, 0, n, n).data;
  });
  let sum = 0;
  for (let i = 0; i < a.length; i++) if (i % 4 < 3) sum += Math.abs(a[i] - b[i]);
  $("status").textContent = `${text} · ${moved} · mean change ${(sum / (3 * n * n)).toFixed(1)} of 255`;
}

// Before and after

function paint() {
  const shown = holding || wiping;
  before.hidden = !shown;
  $("badge").hidden = !shown;
  $("wipe").hidden = !wiping;
  stage.classList.toggle("wiping", wiping);
  const edge = holding ? 100 : Number($("wipe").value);
  before.style.clipPath = `inset(0 ${100 - edge}% 0 0)`;
  stage.style.setProperty("--edge", `${edge}%`);
  $("wiping").setAttribute("aria-pressed", wiping);
}

export async function hold(down) {
  holding = down;
  if (down && before.dataset.key !== keyOf(plain(state.view))) {
    const cached = pictureOf(plain(state.view));
    if (cached) before.src = cached; else await fetchBefore().catch(said);
  }
  paint();
}

export async function wipe(value = !wiping) {
  wiping = value;
  if (wiping && before.dataset.key !== keyOf(plain(state.view))) await fetchBefore().catch(said);
  paint();
}

// The place that is picked

// Which class each pixel of the image has; asked for once an image
async function findLabels() {
  const key = keyOf(state.view);
  if (labels.key === key) return;
  const found = await ask("labels", {view: state.view});
  labels = {key, ...found, map: Uint8Array.from(atob(found.labels), c => c.charCodeAt(0))};
}

async function pick(x, y) {
  if (state.info.classes.length) {
    await findLabels();
    if (labels.side) {
      const {map, side: n} = labels;
      return pickClass(labels.classes[map[Math.floor(y * n) * n + Math.floor(x * n)]]);
    }
  }
  const mask = new Float32Array(SIDE * SIDE), radius = 0.09;
  for (let i = 0; i < mask.length; i++)
    mask[i] = Math.hypot((i % SIDE + 0.5) / SIDE - x, (Math.floor(i / SIDE) + 0.5) / SIDE - y) <= radius ? 1 : 0;
  choose({name: "this place", mask, x, y, radius});
}

export async function pickClass(name) {
  await findLabels();
  const {map, side: n} = labels, index = labels.classes.indexOf(name);
  const mask = new Float32Array(SIDE * SIDE), count = new Float32Array(SIDE * SIDE);
  for (let i = 0; i < map.length; i++) {
    const cell = Math.floor(Math.floor(i / n) * SIDE / n) * SIDE + Math.floor(i % n * SIDE / n);
    mask[cell] += map[i] === index;
    count[cell]++;
  }
  if (n < SIDE) for (let i = 0; i < mask.length; i++)
    mask[i] = map[Math.floor(Math.floor(i / SIDE) * n / SIDE) * n + Math.floor(i % SIDE * n / SIDE)] === index;
  else mask.forEach((_, i) => mask[i] /= count[i] || 1);
  if (!mask.some(Boolean)) tell("note", `This image has no ${name}.`);
  choose(mask.some(Boolean) ? {name, mask} : null);
}

export function choose(found) {
  place = found;
  region.hidden = !found;
  if (found) {
    const context = region.getContext("2d"), pixels = context.createImageData(SIDE, SIDE);
    found.mask.forEach((share, i) => pixels.data.set([10, 10, 20, 150 * (1 - share)], 4 * i));
    context.putImageData(pixels, 0, 0);
    region.classList.remove("fading");
    void region.offsetWidth;
    region.classList.add("fading");
  }
  tell("place", found);
}

const fraction = event => {
  const box = stage.getBoundingClientRect(), inside = x => Math.min(Math.max(x, 0), 0.999);
  return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
};

function showCross() {
  cross.hidden = !at;
  if (at) cross.style.cssText = `left:${100 * at[0]}%;top:${100 * at[1]}%`;
}

stage.addEventListener("keydown", event => {
  const step = 0.04, moves = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step]}[event.key];
  if (moves) {
    at = (at ?? [0.5, 0.5]).map((p, k) => Math.min(Math.max(p + moves[k], 0), 0.999));
    showCross();
  } else if (event.key === "Enter" || event.key === " ") {
    at ??= [0.5, 0.5];
    showCross();
    pick(...at).catch(said);
  } else return;
  event.preventDefault();
});
stage.addEventListener("blur", () => { cross.hidden = true; });
stage.addEventListener("pointerdown", event => {
  if (event.target.closest(".menu")) return;
  if (!wiping) return;
  stage.setPointerCapture(event.pointerId);
  slide(event);
});
stage.addEventListener("pointermove", event => { if (wiping && stage.hasPointerCapture(event.pointerId)) slide(event); });
stage.addEventListener("click", event => {
  if (wiping || event.target.closest(".menu")) return;
  at = null;
  showCross();
  pick(...fraction(event)).catch(said);
});

function slide(event) {
  $("wipe").value = Math.round(100 * fraction(event)[0]);
  paint();
}

$("wipe").addEventListener("input", paint);

// What is dropped: a view that `drag` has put into the event

const KIND = "application/x-segan-view";

export function drag(node, view) {
  node.draggable = true;
  node.addEventListener("dragstart", event => { event.dataTransfer.setData(KIND, JSON.stringify(view())); event.dataTransfer.effectAllowed = "copy"; });
}

stage.addEventListener("dragover", event => {
  if (!event.dataTransfer.types.includes(KIND)) return;
  event.preventDefault();
  stage.classList.add("over");
});
stage.addEventListener("dragleave", () => stage.classList.remove("over"));
stage.addEventListener("drop", event => {
  event.preventDefault();
  stage.classList.remove("over");
  const text = event.dataTransfer.getData(KIND);
  if (text) offer(JSON.parse(text));
});

// Asks on the image which layers take the style of another view
export function offer(other) {
  const menu = $("drop-menu"), close = () => { menu.hidden = true; };
  const take = (name, layers) => element("button", {type: "button", textContent: name, onclick: () => { close(); tell("mix", {other, layers}); }});
  const groups = Object.entries(state.info.groups).filter(([, layers]) => layers.length);
  menu.replaceChildren("Mix in its", ...groups.map(([name, layers]) => take(name, layers)), take("layers …", null), element("button", {type: "button", textContent: "Cancel", onclick: close}));
  menu.hidden = false;
  menu.querySelector("button").focus();
}
