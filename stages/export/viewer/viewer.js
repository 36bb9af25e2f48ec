// The page of an asset: reads its frames ahead of the time shown, plays them, and lets a person turn them.
"use strict";

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const texts = [...document.getElementsByClassName("frame")];
const canvas = byId("canvas");
const BUDGET = 96 * 2 ** 20; // bytes that unpacked frames may take
const BYTES = 36; // of an unpacked Gaussian: words, the same as a texture, and its place in the order
const BACKGROUNDS = { white: [1, 1, 1, 1], gray: [0.5, 0.5, 0.5, 1], black: [0, 0, 0, 1], transparent: [0, 0, 0, 0] };

const largest = Math.max(1, ...data.gaussians);
const kept = Math.min(data.num_frames, Math.max(4, Math.floor(BUDGET / (BYTES * largest))));
const state = { time: 0, playing: false, speed: 1, fading: false, due: false, reading: false };
let renderer = null;
let orbit = null;

const frameOf = (time) => Math.floor(time) % data.num_frames;
const after = (frame, steps) => (frame + steps) % data.num_frames;

// Shows a time, in frames from the start; the clip is a loop.
function show(time) {
  state.time = ((time % data.num_frames) + data.num_frames) % data.num_frames;
  const frame = frameOf(state.time);
  byId("timeline").value = frame;
  byId("timeline").setAttribute("aria-valuetext", `frame ${frame + 1} of ${data.num_frames}`);
  byId("frame").textContent = `${frame + 1} / ${data.num_frames}`;
  readAhead();
  redraw();
}

function redraw() {
  if (renderer === null || state.due) return;
  state.due = true;
  requestAnimationFrame(() => {
    state.due = false;
    draw();
  });
}

// Draws what is to be seen, if it has been read; else `readAhead` comes back here.
function draw() {
  const frame = frameOf(state.time);
  if (renderer === null || !renderer.loaded(frame)) return false;
  const [next, share] = [after(frame, 1), state.time - Math.floor(state.time)];
  if (state.fading && share > 0 && renderer.loaded(next)) renderer.drawMixed(frame, next, share, orbit.camera);
  else renderer.draw(frame, orbit.camera);
  canvas.dataset.drawn = JSON.stringify({ time: state.time, ...orbit.camera });
  document.body.dataset.ready = "true";
  return true;
}

// Unpacks one frame after the other, those that come next first, and forgets those that come last.
async function readAhead() {
  if (renderer === null || state.reading) return;
  state.reading = true;
  try {
    for (;;) {
      const now = frameOf(state.time);
      const wanted = Array.from({ length: kept }, (_, steps) => after(now, steps));
      const missing = wanted.find((frame) => !renderer.loaded(frame));
      if (missing === undefined) break;
      const words = unpackSpz(await gunzipped(base85Bytes(texts[missing].textContent, data.alphabet)), data);
      if (renderer === null) return;
      for (const frame of Object.keys(renderer.frames).map(Number)) {
        if (!wanted.includes(frame)) renderer.unload(frame);
      }
      renderer.load(missing, words);
      redraw();
    }
    byId("status").textContent = "";
  } catch (error) {
    byId("status").textContent = `A frame in this page cannot be read (${error.message}); make the page again.`;
  } finally {
    state.reading = false;
  }
}

function play(on) {
  state.playing = on && data.num_frames > 1;
  byId("play").textContent = state.playing ? "Pause" : "Play";
  let last = performance.now();
  const tick = (now) => {
    if (!state.playing) return;
    const time = state.time + (Math.min(now - last, 250) / 1000) * data.fps * state.speed; // no catching up after a pause
    if (renderer === null || renderer.loaded(frameOf(time))) show(time); // else time stands still until it is read
    last = now;
    requestAnimationFrame(tick);
  };
  if (state.playing) requestAnimationFrame(tick);
}

function step(frames) {
  play(false);
  show(Math.floor(state.time) + frames);
}

function setBackground(name) {
  byId("background").value = name;
  document.body.dataset.background = name;
  if (renderer !== null) renderer.background = BACKGROUNDS[name];
  redraw();
}

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.documentElement.requestFullscreen().catch(() => {}); // the browser may not allow it
}

// Saves what is shown as a PNG, with alpha where the background is transparent.
function screenshot() {
  if (!draw()) return;
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${data.name}-${String(frameOf(state.time) + 1).padStart(4, "0")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }, "image/png");
}

function start() {
  try {
    renderer = new SplatRenderer(canvas, data);
  } catch (error) {
    canvas.hidden = true;
    byId("status").textContent = `The asset cannot be shown here (${error.message}). Open this page in a current browser with WebGL2.`;
    document.body.dataset.ready = "true";
    return;
  }
  canvas.addEventListener("webglcontextlost", () => {
    renderer = null;
    byId("status").textContent = "The browser took the graphics memory away; reload the page to go on.";
  });
  orbit = new Orbit(canvas, data.view, redraw, {
    " ": () => play(!state.playing),
    ",": () => step(-1),
    ".": () => step(1),
    b: () => {
      const names = Object.keys(BACKGROUNDS);
      setBackground(names[(names.indexOf(byId("background").value) + 1) % names.length]);
    },
    f: fullScreen,
    s: screenshot,
  });
  byId("status").textContent = "Reading the first frame";
}

byId("timeline").addEventListener("input", (event) => show(Number(event.target.value)));
byId("play").addEventListener("click", () => play(!state.playing));
byId("reset").addEventListener("click", () => orbit?.reset());
byId("speed").addEventListener("change", (event) => { state.speed = Number(event.target.value); });
byId("fade").addEventListener("change", (event) => {
  state.fading = event.target.checked;
  redraw();
});
byId("background").addEventListener("change", (event) => setBackground(event.target.value));
byId("fullscreen").addEventListener("click", fullScreen);
byId("screenshot").addEventListener("click", screenshot);
start();
setBackground("white");
show(0);
