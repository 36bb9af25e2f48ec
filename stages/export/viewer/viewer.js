// The page of an asset: plays its frames, and lets a person turn them.
"use strict";

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const BUDGET = 96 * 2 ** 20; // bytes that unpacked frames may take
const BYTES = 36; // of an unpacked Gaussian: words, the same as a texture, and its place in the order
const PICTURE_BYTES = 4 * 384 * 384; // of a frame of the input
const BACKGROUNDS = { white: [1, 1, 1, 1], gray: [0.5, 0.5, 0.5, 1], black: [0, 0, 0, 1], transparent: [0, 0, 0, 0] };
// What draws a layer on its canvas, and what unpacks the bytes of a frame for it.
const LAYERS = {
  input: { draws: (canvas) => new PictureRenderer(canvas), unpack: decodedPicture },
  splats: {
    draws: (canvas) => new SplatRenderer(canvas, data),
    unpack: async (bytes) => unpackSpz(await gunzipped(bytes), data),
  },
  mesh: {
    draws: (canvas) => new MeshRenderer(canvas),
    unpack: async (bytes) => unpackMesh(await gunzipped(bytes)),
  },
};

const texts = Object.fromEntries(
  data.layers.map((layer) => [layer, document.querySelectorAll(`script[data-layer="${layer}"]`)]),
);
const largest =
  BYTES * Math.max(1, ...data.gaussians) + PICTURE_BYTES * data.layers.includes("input") + data.mesh_bytes;
const state = { time: 0, playing: false, speed: 1, fading: false, due: false };
let layers = [];
let frames = null;
let orbit = null;

const frameOf = (time) => Math.floor(time) % data.num_frames;
const shown = () => layers.filter(({ figure }) => !figure.hidden);

// The bytes of a frame of a layer: they stand in the page, or come from where it came from.
async function bytesOf(layer, t) {
  if (!data.served) return base85Bytes(texts[layer][t].textContent, data.alphabet);
  const answer = await fetch(`frames/${layer}/${t}`);
  if (!answer.ok) throw new Error(`the program that shows this page answered ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

// Shows a time, in frames from the start; the clip is a loop.
function show(time) {
  state.time = ((time % data.num_frames) + data.num_frames) % data.num_frames;
  const frame = frameOf(state.time);
  byId("timeline").value = frame;
  byId("timeline").setAttribute("aria-valuetext", `frame ${frame + 1} of ${data.num_frames}`);
  byId("frame").textContent = `${frame + 1} / ${data.num_frames}`;
  frames?.readAhead(frame);
  redraw();
}

function redraw() {
  if (frames === null || state.due) return;
  state.due = true;
  requestAnimationFrame(() => {
    state.due = false;
    draw();
  });
}

// Draws what is to be seen, if it has been read; else `frames` comes back here when it is.
function draw() {
  const frame = frameOf(state.time);
  if (frames === null || !frames.loaded(frame)) return false;
  const [next, share] = [(frame + 1) % data.num_frames, state.time - Math.floor(state.time)];
  const mixed = state.fading && share > 0 && frames.loaded(next);
  for (const { renderer } of shown()) {
    fitToScreen(renderer.canvas);
    if (mixed) renderer.drawMixed(frame, next, share, orbit.camera);
    else renderer.draw(frame, orbit.camera);
  }
  byId("canvas").dataset.drawn = JSON.stringify({ time: state.time, ...orbit.camera });
  document.body.dataset.ready = "true";
  return true;
}

function play(on) {
  state.playing = on && data.num_frames > 1;
  byId("play").textContent = state.playing ? "Pause" : "Play";
  let last = performance.now();
  const tick = (now) => {
    if (!state.playing) return;
    const time = state.time + (Math.min(now - last, 250) / 1000) * data.fps * state.speed; // no catching up after a pause
    if (frames === null || frames.loaded(frameOf(time))) show(time); // else time stands still until it is read
    last = now;
    requestAnimationFrame(tick);
  };
  if (state.playing) requestAnimationFrame(tick);
}

function step(count) {
  play(false);
  show(Math.floor(state.time) + count);
}

function setBackground(name) {
  byId("background").value = name;
  document.body.dataset.background = name;
  for (const { renderer } of layers) renderer.background = BACKGROUNDS[name];
  redraw();
}

function nextBackground() {
  const names = Object.keys(BACKGROUNDS);
  setBackground(names[(names.indexOf(byId("background").value) + 1) % names.length]);
}

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.documentElement.requestFullscreen().catch(() => {}); // the browser may not allow it
}

// Saves what is shown as a PNG, layers beside each other, with alpha where the background is transparent.
function screenshot() {
  if (!draw()) return;
  const canvases = shown().map(({ renderer }) => renderer.canvas);
  const picture = document.createElement("canvas");
  picture.width = canvases.reduce((sum, { width }) => sum + width, 0);
  picture.height = Math.max(...canvases.map(({ height }) => height));
  let left = 0;
  for (const canvas of canvases) {
    picture.getContext("2d").drawImage(canvas, left, 0);
    left += canvas.width;
  }
  picture.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${data.name}-${String(frameOf(state.time) + 1).padStart(4, "0")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }, "image/png");
}

// Shows a layer, or hides it unless it is the only one.
function setShown(layer, on) {
  byId(layer).hidden = !on && shown().length > 1;
  document.querySelector(`[data-shows="${layer}"]`).checked = !byId(layer).hidden;
  document.body.dataset.shown = shown().length;
  redraw();
}

function toggle(layer) {
  if (data.layers.length > 1 && data.layers.includes(layer)) setShown(layer, byId(layer).hidden);
}

function start() {
  try {
    layers = data.layers.map((name) => {
      const figure = byId(name);
      figure.hidden = false;
      const renderer = LAYERS[name].draws(figure.querySelector("canvas"));
      return { name, figure, renderer, unpack: LAYERS[name].unpack };
    });
  } catch (error) {
    for (const name of data.layers) byId(name).hidden = true;
    byId("status").textContent = `The asset cannot be shown here (${error.message}). Open this page in a current browser with WebGL2.`;
    document.body.dataset.ready = "true";
    return;
  }
  frames = new Frames(layers, {
    count: data.num_frames,
    kept: Math.max(4, Math.floor(BUDGET / largest)),
    bytes: bytesOf,
    changed: redraw,
    failed: tell,
  });
  orbit = new Orbit(byId("canvas"), data.view, redraw, {
    " ": () => play(!state.playing),
    ",": () => step(-1),
    ".": () => step(1),
    b: nextBackground,
    f: fullScreen,
    s: screenshot,
    v: () => data.input_view && orbit.look(data.input_view),
    i: () => toggle("input"),
    m: () => toggle("mesh"),
    g: () => toggle("splats"),
  });
  if (data.input_view) orbit.look(data.input_view);
  for (const { name, renderer: { canvas } } of layers) {
    if (canvas !== orbit.canvas) orbit.watch(canvas);
    if (name === "mesh") orbit.listen(canvas);
    canvas.addEventListener("webglcontextlost", () => {
      [layers, frames] = [[], null];
      byId("status").textContent = "The browser took the graphics memory away; reload the page to go on.";
    });
  }
  byId("status").textContent = "Reading the first frame";
}

// Says what keeps a frame from being shown; nothing if all is well.
function tell(problem) {
  if (frames === null) return;
  const remedy = data.served ? "start ss4d view again and reload the page" : "make the page again";
  byId("status").textContent = problem && `A frame of this page cannot be read (${problem}); ${remedy}.`;
}

// Whether the element with the focus has a use of its own for a key; the canvas hears keys itself.
function takes(target, key) {
  if (target.matches("canvas, select, input[type=range]")) return true;
  return target.matches("button, input, a") && [" ", "Enter"].includes(key);
}

byId("timeline").addEventListener("input", (event) => show(Number(event.target.value)));
byId("play").addEventListener("click", () => play(!state.playing));
byId("reset").addEventListener("click", () => orbit?.reset());
byId("seen").addEventListener("click", () => orbit?.look(data.input_view));
byId("speed").addEventListener("change", (event) => { state.speed = Number(event.target.value); });
byId("fade").addEventListener("change", (event) => {
  state.fading = event.target.checked;
  redraw();
});
byId("background").addEventListener("change", (event) => setBackground(event.target.value));
byId("fullscreen").addEventListener("click", fullScreen);
byId("screenshot").addEventListener("click", screenshot);
for (const box of document.querySelectorAll("[data-shows]")) {
  box.parentElement.hidden = data.layers.length < 2 || !data.layers.includes(box.dataset.shows);
  box.addEventListener("change", () => setShown(box.dataset.shows, box.checked));
}
byId("fullscreen").hidden = !document.fullscreenEnabled;
byId("seen").hidden = data.input_view === null;
document.addEventListener("keydown", (event) => takes(event.target, event.key) || orbit?.press(event));
start();
document.body.dataset.shown = shown().length;
setBackground("white");
show(0);
