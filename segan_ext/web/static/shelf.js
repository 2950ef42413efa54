// Strips of pictures: the history, and the pins with their comparison.
import {$, state, on, go, change, keep, keyOf, describe, element} from "./state.js";
import {picture, later, said} from "./server.js";
import {drag, offer} from "./stage.js";
import {known} from "./controls.js";

// A small picture of a view; `act` on click, M mixes it in
function thumb(view, label, act, current = false) {
  const image = element("img", {alt: "", draggable: false});
  later(view).then(url => { image.src = url; }).catch(said);
  const button = element("button", {type: "button", className: "thumb", "aria-label": label, title: label, onclick: act}, image);
  if (current) button.setAttribute("aria-current", "step");
  button.addEventListener("keydown", event => { if (event.key.toLowerCase() === "m") { offer(view); event.preventDefault(); event.stopPropagation(); } });
  drag(button, () => view);
  return button;
}

const nodes = new Map();  // key → item of the history
function showHistory() {
  const items = state.history.map((view, i) => {
    const key = `${i} ${keyOf(view)}`;
    if (!nodes.has(key)) nodes.set(key, element("li", {}, thumb(view, `Step ${i + 1}: ${describe(view, known)}`, () => go(i))));
    return nodes.get(key);
  });
  for (const [key, node] of nodes) if (!items.includes(node)) nodes.delete(key);
  $("history").replaceChildren(...items);
  items.forEach((item, i) => item.firstChild.toggleAttribute("aria-current", i === state.at));
  const strip = $("history"), current = items[state.at];
  if (current) strip.scrollLeft = current.offsetLeft - strip.clientWidth + 2 * current.offsetWidth;
  $("undo").disabled = state.at === 0;
  $("redo").disabled = state.at === state.history.length - 1;
}

export function pin() {
  if (state.pins.some(view => keyOf(view) === keyOf(state.view))) return;
  state.pins = [...state.pins, state.view].slice(-24);
  showPins();
  keep();
}

function unpin(view) {
  state.pins = state.pins.filter(each => each !== view);
  showPins();
  keep();
}

export function showPins() {
  $("pins-shelf").hidden = !state.pins.length;
  $("compare").disabled = !state.pins.length;
  $("pins").replaceChildren(...state.pins.map((view, i) => {
    const label = `Pin ${i + 1}: ${describe(view, known)}`, button = thumb(view, label, () => change(view));
    button.addEventListener("keydown", event => { if (event.key === "Delete") unpin(view); });
    return element("li", {}, button, element("button", {type: "button", className: "remove", textContent: "×", "aria-label": `Remove pin ${i + 1}`, onclick: () => unpin(view)}));
  }));
}

// Pins and the image of now, side by side
export function compare() {
  const views = [...state.pins.filter(view => keyOf(view) !== keyOf(state.view)), state.view];
  $("board-images").replaceChildren(...views.map(view => {
    const label = describe(view, known), image = element("img", {alt: label});
    picture(view).then(url => { if (url) image.src = url; }).catch(said);
    const use = element("button", {type: "button", textContent: view === state.view ? "Shown now" : "Use this", disabled: view === state.view, onclick: () => { $("board").close(); change(view); }});
    return element("figure", {}, image, element("figcaption", {textContent: label}), use);
  }));
  $("board").showModal();
}

let waiting = null;
const soon = () => { waiting ??= setTimeout(() => { waiting = null; showHistory(); }, 120); };
on("view", soon);
on("info", () => { nodes.clear(); showPins(); });
