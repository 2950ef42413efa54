// The panels beside the gallery: seeds, mixing, photos, files.
import {$, state, on, change, tell, keyOf, element, toHash, whole, seedOnly} from "./state.js";
import {ask, said, download, upload, lines, picture, settle} from "./server.js";
import {drag, offer} from "./stage.js";
import {find} from "./controls.js";

const NAMES = ["controls", "seeds", "mix", "photo", "export"], PAGE = 24;

// Tabs

export function openPanel(name, focus = false) {
  for (const each of NAMES) {
    const tab = $(`tab-${each}`), chosen = each === name;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    $(`${each}-panel`).hidden = !chosen;
    if (chosen && focus) tab.focus();
  }
  tell("panel", name);
}

NAMES.forEach((name, i) => {
  $(`tab-${name}`).addEventListener("click", () => openPanel(name));
  $(`tab-${name}`).addEventListener("keydown", event => {
    const next = {ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: NAMES.length - 1}[event.key];
    if (next === undefined) return;
    event.preventDefault();
    openPanel(NAMES[(next + NAMES.length) % NAMES.length], true);
  });
});

// Seeds

let sheetOf = null;
const viewOfSeed = seed => ({...state.view, ...seedOnly(seed)});

async function showSheet() {
  if ($("seeds-panel").hidden) return;
  const edited = $("sheet-edited").checked, {seed, w, source, mix_seed, mix_layers, edits, inside, ...rest} = state.view;
  const key = JSON.stringify([rest, edited ? [edits, inside] : 0, $("sheet-seeds").value]);
  if (key === sheetOf) return markSeed();
  sheetOf = key;
  try {
    const {seeds} = await ask("sheet", {view: viewOfSeed(0), seeds: $("sheet-seeds").value, edited});
    if (key !== sheetOf) return;
    $("sheet").replaceChildren(...seeds.map(({seed, image}) => {
      const button = element("button", {type: "button", className: "thumb", title: `Seed ${seed}`, "aria-label": `Seed ${seed}`}, element("img", {alt: "", src: image, draggable: false}), element("span", {textContent: seed}));
      button.onclick = () => $("sheet-click").value === "mix" ? offer(viewOfSeed(seed)) : change(seedOnly(seed));
      button.onkeydown = event => { if (event.key.toLowerCase() === "m") { offer(viewOfSeed(seed)); event.stopPropagation(); } };
      button.dataset.seed = seed;
      drag(button, () => viewOfSeed(seed));
      return element("li", {}, button);
    }));
    markSeed();
  } catch (error) { sheetOf = null; said(error); }
}

function markSeed() {
  for (const button of $("sheet").querySelectorAll("button")) button.toggleAttribute("aria-current", !state.view.w && !state.view.mix_layers.length && Number(button.dataset.seed) === state.view.seed);
}

function turn(by) {
  const first = Math.max(0, (parseInt($("sheet-seeds").value) || 0) + by * PAGE);
  $("sheet-seeds").value = `${first}-${first + PAGE - 1}`;
  showSheet();
}

$("sheet-back").onclick = () => turn(-1);
$("sheet-on").onclick = () => turn(1);
for (const id of ["sheet-seeds", "sheet-edited"]) $(id).onchange = showSheet;
$("sheet-save").onclick = () => download("sheet", {view: viewOfSeed(0), seeds: $("sheet-seeds").value, file: true}).then(made).catch(said);
on("panel", showSheet);

// Mixing: a seed's style is part of the view; that of any other image becomes w, from the view before

let mixing = null;  // {base, other, made} while another image than a seed's is mixed in
const isSeed = (other, view) => !other.w && !other.mix_layers.length && ["psi", "cutoff", "class_idx"].every(name => other[name] === view[name]);

async function mix({other, layers}) {
  if (layers === null) { openPanel("mix"); layers = []; }
  if (isSeed(other, state.view)) {
    mixing = null;
    change({mix_seed: other.seed, mix_layers: layers});
  } else await mixView(mixing && mixing.made === state.view.w ? mixing.base : state.view, other, layers);
  showMix();
}

async function mixView(base, other, layers) {
  const {view} = await ask("mix", {view: base, other, layers});
  mixing = {base, other, layers, made: view.w};
  change(layers.length ? view : base);
}

function showMix() {
  if (!state.info) return;
  const {mix_seed, mix_layers, w} = state.view, own = mixing && mixing.made === w, layers = own ? mixing.layers : mix_layers;
  if (document.activeElement !== $("mix-seed")) $("mix-seed").value = mix_seed;
  for (const box of $("mix-layers").querySelectorAll("input")) box.checked = layers.includes(Number(box.value));
  if ($("mix-panel").hidden) return;
  const shown = own ? mixing.other : {...viewOfSeed(mix_seed), edits: {}, inside: [], mix_layers: []};
  if ($("mix-image").dataset.key === keyOf(shown)) return;
  $("mix-image").dataset.key = keyOf(shown);
  picture(shown).then(url => { if (url) Object.assign($("mix-image"), {src: url, hidden: false, alt: own ? "The image that is mixed in" : `Seed ${mix_seed}, mixed in`}); }).catch(said);
}

function setLayers(layers) {
  if (mixing && mixing.made === state.view.w) mixView(mixing.base, mixing.other, layers).then(showMix).catch(said);
  else change({mix_layers: layers}, "mix_layers");
}

const chosenLayers = () => [...$("mix-layers").querySelectorAll("input:checked")].map(box => Number(box.value));

on("info", info => {
  mixing = null;
  const groups = Object.entries(info.groups).filter(([, layers]) => layers.length);
  $("mix-groups").replaceChildren(...groups.map(([name, layers]) => element("button", {type: "button", textContent: name, onclick: () => setLayers(layers)})),
    element("button", {type: "button", textContent: "none", onclick: () => setLayers([])}));
  const boxes = Array.from({length: info.num_ws}, (_, i) => element("label", {}, element("input", {type: "checkbox", value: i, onchange: () => setLayers(chosenLayers())}), ` ${i}`));
  $("mix-layers").replaceChildren($("mix-layers").querySelector("legend"), ...boxes);
  sheetOf = null;
  showSheet();
  showMix();
});
on("mix", detail => mix(detail).catch(said));
on("view", () => { showMix(); });
on("idle", () => { if (!$("seeds-panel").hidden) showSheet(); });
on("panel", showMix);
$("mix-seed").onchange = () => { mixing = null; change({mix_seed: whole($("mix-seed"))}, "mix_seed"); };

// Photos

let photo = null;
const CLOSE = 14;  // dB; two faces of one generator have some 10
const figures = [...$("photo-shown").children];

function choosePhoto(file) {
  photo = file;
  $("photo-note").textContent = "";
  $("photo-shown").hidden = !file;
  figures.forEach((figure, i) => { figure.hidden = i > 0; });
  const image = figures[0].firstElementChild;
  URL.revokeObjectURL(image.src);
  if (!file) return;
  image.src = URL.createObjectURL(file);
  image.onerror = () => {
    $("photo-shown").hidden = true;
    $("photo-note").textContent = `This browser cannot show ${file.name}; the server may still be able to read it.`;
  };
}

$("photo").onchange = () => choosePhoto($("photo").files[0] ?? null);
$("photo-drop").addEventListener("dragover", event => event.preventDefault());
$("photo-drop").addEventListener("drop", event => { event.preventDefault(); if (event.dataTransfer.files[0]) choosePhoto(event.dataTransfer.files[0]); });
$("steps").oninput = () => { $("steps-value").textContent = $("steps").value; };
$("project-cancel").onclick = () => ask("cancel", {}).catch(said);
$("project").onclick = async () => {
  if (!photo) return said(new Error("choose a picture first"));
  const working = on => { $("progress").hidden = !on; $("project").disabled = on; $("project-cancel").disabled = !on; };
  const {network, class_idx} = state.view, file = photo;
  working(true);
  try {
    for await (const line of lines(await upload("project", {network, class_idx, steps: $("steps").value, space: $("space").value}, file))) {
      if (line.error) throw new Error(line.error);
      if (line.view) showFound(line, network, file);
      else {
        $("progress").value = line.step / line.steps;
        $("photo-note").textContent = `Step ${line.step} of ${line.steps}, ${line.what}`;
      }
    }
  } catch (error) {
    $("photo-note").textContent = error.away ? "" : `Nothing was found: ${error.message}.`;
    said(error);
  }
  working(false);
};

function showFound({view, difference, psnr, pictures}, network, file) {
  if (state.view.network !== network) throw new Error("another network is shown by now; project the picture again");
  $("photo-note").textContent = `Found, on average ${difference.toFixed(1)} of 255 from the picture at a pixel (PSNR ${psnr.toFixed(1)} dB).` +
    (psnr < CLOSE ? " This generator cannot make your picture: that is only the nearest image that was found." : "");
  if (photo === file) figures.forEach((figure, i) => { figure.hidden = false; figure.firstElementChild.src = pictures[i]; });
  change({w: view.w, source: view.source, class_idx: view.class_idx, mix_layers: []});
}

// Files

const made = ({url, file}) => {
  const figure = $("made"), moving = file.endsWith(".mp4");
  figure.hidden = moving || !/\.(png|gif)$/.test(file);
  if (!figure.hidden) Object.assign(figure.querySelector("img"), {src: url, alt: file});
  figure.querySelector("figcaption").textContent = `${file} is saved.`;
};

export const saveImage = () => download("picture", {view: state.view}).catch(said);
$("save-image").onclick = saveImage;
$("save").onclick = () => download("save", {view: state.view}).catch(said);
for (const button of document.querySelectorAll("[data-walk]")) button.onclick = () => {
  const id = $("walk-control").value;
  if (!id) return said(new Error("no control is found by the search; clear it and choose one"));
  button.disabled = true;
  download("walk", {view: state.view, id, kind: button.dataset.walk}).then(made).catch(said).finally(() => { button.disabled = false; });
};
$("load").onclick = () => $("load-file").click();
$("load-file").onchange = async () => {
  const file = $("load-file").files[0];
  $("load-file").value = "";
  if (!file) return;
  try {
    const {view, names} = await (await upload("load", {network: state.view.network}, file)).json();
    await settle(view ?? state.view);
    if (view) change(view);
    find();
    if (names.length) tell("note", `Loaded ${names.join(", ")}.`);
  } catch (error) { said(error); }
};
$("copy-link").onclick = async () => {
  const link = new URL("./" + toHash(state.view), location.href).href;
  try { await navigator.clipboard.writeText(link); tell("note", "The link is copied; it shows this image again."); }
  catch { window.prompt("This link shows this image again:", link); }
};
