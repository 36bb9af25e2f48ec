// The page's one timeline: it moves the viewer, the panels beside it and the mark in every film strip.
"use strict";

const data = JSON.parse(byId("data").textContent);
const START = { yaw: 180, pitch: 15, radius: 2, fov: 40 }; // from the front, as the turntable starts

const state = { frame: 0, playing: false };
let renderer = null;
let orbit = null;
let due = false; // whether a drawing is on its way

function show(frame) {
  state.frame = ((frame % data.num_frames) + data.num_frames) % data.num_frames;
  byId("timeline").value = state.frame;
  byId("frame").textContent = `${state.frame + 1} / ${data.num_frames}`;
  byId("timeline").setAttribute("aria-valuetext", `frame ${state.frame + 1} of ${data.num_frames}`);
  for (const strip of data.strips) {
    const cells = [...document.querySelectorAll(`[data-strip="${strip.id}"] .cell`)];
    const now = nearest(cells.map((cell) => Number(cell.dataset.frame)));
    cells.forEach((cell, k) => cell.classList.toggle("now", k === now));
    for (const panel of document.querySelectorAll(`[data-panel="${strip.id}"]`)) {
      panel.style.backgroundPosition = place(nearest(strip.times), strip);
    }
  }
  redraw();
}

// Which of some frames, by its place among them, is nearest to the one shown.
function nearest(times) {
  let best = 0;
  times.forEach((time, k) => {
    if (Math.abs(time - state.frame) < Math.abs(times[best] - state.frame)) best = k;
  });
  return best;
}

// Where a cell lies in its strip's picture, as CSS wants it.
function place(cell, strip) {
  const share = (index, count) => (count > 1 ? (100 * index) / (count - 1) : 0);
  return `${share(cell % strip.columns, strip.columns)}% ${share(Math.floor(cell / strip.columns), strip.rows)}%`;
}

// The asset may have fewer frames than the clip; its last one then stays.
function assetFrame(frame) {
  return Math.min(frame, data.asset.num_frames - 1);
}

function redraw() {
  if (renderer === null || due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    if (!renderer.loaded(assetFrame(state.frame))) return; // `loadFrames` draws it when it is there
    fitToScreen(byId("canvas"));
    renderer.draw(assetFrame(state.frame), orbit.camera);
    byId("canvas").dataset.drawn = `${state.frame} ${Object.values(orbit.camera).join(" ")}`;
  });
}

function play(on) {
  state.playing = on;
  byId("play").textContent = on ? "Pause" : "Play";
  let last = performance.now();
  const tick = (now) => {
    if (!state.playing) return;
    const fps = Math.min(120, Math.max(0.1, Number(byId("fps").value) || data.fps));
    const steps = Math.floor(((now - last) * fps) / 1000);
    const next = (state.frame + steps) % data.num_frames;
    if (steps > 0 && (renderer === null || renderer.loaded(assetFrame(next)))) {
      last = steps > 4 ? now : last + (steps * 1000) / fps; // after a pause of the browser, do not catch up
      show(next);
    }
    requestAnimationFrame(tick);
  };
  if (on) requestAnimationFrame(tick);
}

// The words of one frame: base64 of deflated bytes, all first bytes of the words' rows before all second ones.
async function unpack(text) {
  const planes = await inflated(text);
  const bytes = new Uint8Array(planes.length);
  const count = planes.length / 16;
  for (let plane = 0; plane < 16; plane++) {
    for (let i = 0; i < count; i++) bytes[16 * i + plane] = planes[plane * count + i];
  }
  return new Uint32Array(bytes.buffer);
}

async function loadFrames() {
  const texts = JSON.parse(byId("asset").textContent);
  for (let t = 0; t < texts.length; t++) {
    renderer.load(t, await unpack(texts[t]));
    byId("status").textContent = t + 1 < texts.length ? `Loading frame ${t + 2} of ${texts.length}` : "";
    if (t === assetFrame(state.frame)) redraw();
  }
  document.body.dataset.ready = "true";
}

function startViewer() {
  const canvas = byId("canvas");
  try {
    renderer = new SplatRenderer(canvas, data.asset);
  } catch (error) {
    canvas.hidden = true;
    byId("status").textContent =
      `The asset cannot be shown here (${error.message}). Open this page in a current browser with WebGL2; ` +
      "everything else on it works as it is.";
    document.body.dataset.ready = "true";
    return;
  }
  canvas.addEventListener("webglcontextlost", () => {
    renderer = null;
    byId("status").textContent = "The browser took the graphics memory away; reload the page to go on.";
  });
  orbit = new Orbit(canvas, START, redraw, {
    " ": () => play(!state.playing),
    ",": () => show(state.frame - 1),
    ".": () => show(state.frame + 1),
  });
  loadFrames().catch((error) => {
    byId("status").textContent = `The asset in this page cannot be read (${error.message}); make the page again.`;
  });
}

byId("timeline").addEventListener("input", (event) => show(Number(event.target.value)));
byId("play").addEventListener("click", () => play(!state.playing));
byId("reset").addEventListener("click", () => orbit?.reset());
for (const cell of document.querySelectorAll(".cell")) {
  cell.addEventListener("click", () => show(Number(cell.dataset.frame)));
}
if (data.asset === null) document.body.dataset.ready = "true";
else startViewer();
show(0);
