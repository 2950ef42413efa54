// A canvas that paints class indices and colours on an image, exactly one number a pixel: no smoothing, no blending.
// From Python: the component's value, {id, size, image, labels, classes}. To Python: event `input` with the strokes.
const NONE = 255;
const state = {id: null, size: 0, classes: [], tool: "brush", kind: "class", current: 1, radius: 3, colour: "#d02020", colours: true, hidden: false};
let strokes, colours, base, picture, past = [], future = [], last = null, cursor = null;

const bytesOf = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const textOf = bytes => {
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return btoa(text);
};
const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
const find = name => element.querySelector(`[data-part=${name}]`);

function build() {
  if (find("tools")) return;
  element.querySelector(".paint").innerHTML = `
    <div class="tools" data-part="tools" role="toolbar" aria-label="Painting tools">
      <span role="radiogroup" aria-label="Tool">${["brush", "eraser", "fill"].map(tool =>
        `<button type="button" role="radio" data-tool="${tool}" title="${tool} (${tool[0]})">${tool}</button>`).join("")}</span>
      <label>size <input type="range" min="0" max="20" value="3" data-part="radius" aria-label="Brush size"></label>
      <button type="button" data-act="undo" title="Ctrl+Z">undo</button>
      <button type="button" data-act="redo" title="Ctrl+Y">redo</button>
      <button type="button" data-act="clear">clear</button>
      <button type="button" data-act="hide" aria-pressed="false">hide strokes</button>
    </div>
    <div class="classes" data-part="classes" role="radiogroup" aria-label="What to paint"></div>
    <div class="pair">
      <figure><canvas data-part="left" tabindex="0" aria-label="Image to paint on; arrow keys move, space paints"></canvas><figcaption>image</figcaption></figure>
      <figure><canvas data-part="right" tabindex="0" aria-label="Label map to paint on"></canvas><figcaption>labels</figcaption></figure>
    </div>`;
  for (const button of element.querySelectorAll("[data-tool]"))
    button.onclick = () => { state.tool = button.dataset.tool; showTools(); };
  find("radius").oninput = event => state.radius = +event.target.value;
  const acts = {undo, redo, clear: () => { remember(); reset(); changed(); }, hide: () => { state.hidden = !state.hidden; draw(); }};
  for (const button of element.querySelectorAll("[data-act]")) button.onclick = () => acts[button.dataset.act]();
  for (const name of ["left", "right"]) listen(find(name));
  showTools();
}

function showTools() {
  for (const button of element.querySelectorAll("[data-tool]"))
    button.setAttribute("aria-checked", button.dataset.tool === state.tool);
  for (const button of element.querySelectorAll("[data-class]")) {
    const chosen = state.kind === "class" ? +button.dataset.class === state.current : button.dataset.class === "colour";
    button.setAttribute("aria-checked", chosen);
  }
}

function showClasses() {
  const box = find("classes");
  box.innerHTML = state.classes.map((c, i) => `<button type="button" role="radio" data-class="${i}"><i style="background:${c.colour}"></i></button>`).join("")
    + (!state.colours ? "" : `<span><button type="button" role="radio" data-class="colour">colour</button><input type="color" value="${state.colour}" aria-label="Stroke colour"></span>`);
  state.classes.forEach((c, i) => box.querySelector(`[data-class="${i}"]`).append(c.name));
  for (const button of box.querySelectorAll("[data-class]")) button.onclick = () => {
    state.kind = button.dataset.class === "colour" ? "colour" : "class";
    if (state.kind === "class") state.current = +button.dataset.class;
    showTools();
  };
  if (state.colours) box.querySelector("input").oninput = event => { state.colour = event.target.value; state.kind = "colour"; showTools(); };
  showTools();
}

function reset() {
  strokes = new Uint8Array(state.size ** 2).fill(NONE);
  colours = new Uint8Array(4 * state.size ** 2);
}

function load() {
  build();
  if (!props.value) return;
  const value = typeof props.value === "string" ? JSON.parse(props.value) : props.value;
  if (JSON.stringify(value.classes) !== JSON.stringify(state.classes) || value.colours !== state.colours) {
    state.classes = value.classes;
    state.colours = value.colours;
    state.current = Math.max(0, Math.min(state.current, value.classes.length - 1));
    state.rgb = value.classes.map(c => rgb(c.colour));
    showClasses();
  }
  if (value.id === state.id) return draw();
  state.id = value.id;
  state.size = value.size;
  past = [], future = [];
  reset();
  if (value.strokes) strokes = bytesOf(value.strokes);
  base = value.labels ? bytesOf(value.labels) : null;
  const loading = new Image();
  loading.onload = () => { picture = loading; draw(); element.dataset.ready = value.id; };
  loading.src = value.image;
}

function draw() {
  const n = state.size;
  if (!n || !picture) return;
  for (const [name, under] of [["left", null], ["right", base]]) {
    const canvas = find(name);
    if (canvas.width !== n) canvas.width = canvas.height = n;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, 0, 0, n, n);
    const pixels = context.getImageData(0, 0, n, n), data = pixels.data;
    for (let i = 0; i < n * n; i++) {
      const label = !state.hidden && strokes[i] !== NONE ? strokes[i] : under ? under[i] : NONE;
      if (label !== NONE && state.classes[label]) {
        const mix = under ? 1 : 0.65;
        state.rgb[label].forEach((c, k) => data[4 * i + k] = mix * c + (1 - mix) * data[4 * i + k]);
      }
      if (!state.hidden && colours[4 * i + 3]) for (let k = 0; k < 3; k++) data[4 * i + k] = colours[4 * i + k];
    }
    context.putImageData(pixels, 0, 0);
    if (cursor && document.activeElement === canvas) {
      context.strokeStyle = "#ff00ff";
      context.strokeRect(cursor[0] - state.radius - 0.5, cursor[1] - state.radius - 0.5, 2 * state.radius + 2, 2 * state.radius + 2);
    }
  }
}

// Painting

function put(i) {
  if (state.tool === "eraser") { strokes[i] = NONE; colours.fill(0, 4 * i, 4 * i + 4); return; }
  if (state.kind === "class") strokes[i] = state.current;
  else colours.set([...rgb(state.colour), 255], 4 * i);
}

function disc(x, y) {
  const n = state.size, r = state.radius;
  for (let j = Math.max(y - r, 0); j <= Math.min(y + r, n - 1); j++)
    for (let i = Math.max(x - r, 0); i <= Math.min(x + r, n - 1); i++)
      if ((i - x) ** 2 + (j - y) ** 2 <= r * r + r * 0.5) put(j * n + i);
}

function fill(x, y) {
  const n = state.size, shown = i => strokes[i] !== NONE ? strokes[i] : base ? base[i] : NONE;
  const from = shown(y * n + x), seen = new Uint8Array(n * n), open = [y * n + x];
  while (open.length) {
    const i = open.pop();
    if (seen[i] || shown(i) !== from) continue;
    seen[i] = 1;
    if (i % n) open.push(i - 1);
    if (i % n < n - 1) open.push(i + 1);
    if (i >= n) open.push(i - n);
    if (i < n * n - n) open.push(i + n);
  }
  seen.forEach((inside, i) => inside && put(i));
}

function stroke(from, to) {
  const steps = Math.max(Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]), 1);
  for (let s = 0; s <= steps; s++)
    disc(Math.round(from[0] + (to[0] - from[0]) * s / steps), Math.round(from[1] + (to[1] - from[1]) * s / steps));
}

const copy = () => [strokes.slice(), colours.slice()];
function remember() { past.push(copy()); while (past.length * strokes.length > 2e7) past.shift(); future = []; }
function undo() { if (past.length) { future.push(copy()); [strokes, colours] = past.pop(); changed(); } }
function redo() { if (future.length) { past.push(copy()); [strokes, colours] = future.pop(); changed(); } }

function changed() {
  draw();
  const coloured = colours.some((value, i) => i % 4 === 3 && value);
  trigger("input", {id: state.id, labels: textOf(strokes), colours: coloured ? textOf(colours) : ""});
}

function listen(canvas) {
  const place = event => {
    const box = canvas.getBoundingClientRect(), at = (p, start, side) => Math.max(0, Math.min(state.size - 1, Math.floor((p - start) / side * state.size)));
    return [at(event.clientX, box.left, box.width), at(event.clientY, box.top, box.height)];
  };
  canvas.onpointerdown = event => {
    if (!state.size) return;
    event.preventDefault();
    canvas.focus();
    canvas.setPointerCapture(event.pointerId);
    remember();
    last = place(event);
    if (state.tool === "fill") { fill(...last); last = null; return changed(); }
    disc(...last);
    draw();
  };
  canvas.onpointermove = event => {
    if (!last) return;
    const to = place(event);
    stroke(last, to);
    last = to;
    draw();
  };
  canvas.onpointerup = canvas.onpointercancel = () => { if (last) { last = null; changed(); } };
  canvas.onkeydown = event => {
    const key = event.key.toLowerCase(), step = Math.max(state.radius, 1);
    const moves = {arrowleft: [-step, 0], arrowright: [step, 0], arrowup: [0, -step], arrowdown: [0, step]};
    if (moves[key]) {
      const from = cursor || [state.size >> 1, state.size >> 1];
      cursor = from.map((p, k) => Math.max(0, Math.min(state.size - 1, p + moves[key][k])));
      draw();
    } else if (key === " " || key === "enter") {
      remember();
      cursor = cursor || [state.size >> 1, state.size >> 1];
      state.tool === "fill" ? fill(...cursor) : disc(...cursor);
      changed();
    } else if ((event.ctrlKey || event.metaKey) && key === "z") undo();
    else if ((event.ctrlKey || event.metaKey) && key === "y") redo();
    else if ({b: 1, e: 1, f: 1}[key]) { state.tool = {b: "brush", e: "eraser", f: "fill"}[key]; showTools(); }
    else return;
    event.preventDefault();
  };
}

watch("value", load);
load();
