// Sends videos, asks for their assets, and shows how it goes. What was sent from this browser is remembered in it.
"use strict";

const data = JSON.parse(byId("data").textContent);
const REMEMBERED = "ss4d-clips"; // the key of the ids in this browser's storage
const PAUSE = 700; // milliseconds between two looks at what goes on
const OWN = { "X-SS4D": "1" }; // the server wants it of what changes something
const STATES = { "to do": "", "to reuse": "", reused: "at hand" };
const NAMES = { glb: "glb of meshes", gaussian_glb: "glb of Gaussians", compressed_ply: "compressed ply" };
const cards = new Map();

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(REMEMBERED)) ?? [];
  } catch {
    return [];
  }
}

function remember(ids) {
  try {
    localStorage.setItem(REMEMBERED, JSON.stringify(ids));
  } catch {} // a browser that keeps nothing: the clips are gone from this page when it is closed
}

// The answer to a request as JSON; an Error with the server's sentence if it refuses.
async function ask(path, options = {}) {
  const answer = await fetch(path, options);
  if (answer.ok) return answer.status === 200 ? answer.json() : null;
  const told = await answer.json().catch(() => ({}));
  const error = new Error(typeof told.detail === "string" ? told.detail : `The server answered ${answer.status}.`);
  throw Object.assign(error, { status: answer.status });
}

function change(path, method, body = null) {
  const headers = body === null ? OWN : { ...OWN, "Content-Type": "application/json" };
  return ask(path, { method, headers, body: body && JSON.stringify(body) });
}

// Sends a file and says how far that is.
function send(file) {
  if (file.size > data.most_bytes) return say(`${file.name} is larger than the ${data.most_bytes / 2 ** 20} MB allowed here.`);
  const request = new XMLHttpRequest();
  request.open("POST", "clips");
  request.setRequestHeader("X-SS4D", "1");
  request.setRequestHeader("X-Title", encodeURIComponent(file.name));
  request.responseType = "json";
  request.upload.onprogress = ({ loaded, total }) => {
    say(loaded < total ? `Sending ${file.name}: ${Math.floor((100 * loaded) / total)} %` : `Looking at ${file.name}`);
  };
  request.onload = () => {
    if (request.status !== 200) return say(request.response?.detail ?? `The server answered ${request.status}.`);
    say("");
    remember([request.response.id, ...remembered()]);
    add(request.response.id, "prepend");
  };
  request.onerror = () => say(`${file.name} was not sent: the server cannot be reached, or has refused it.`);
  request.send(file);
  say(`Sending ${file.name}`);
}

function say(text) {
  byId("status").textContent = text;
}

function add(id, where) {
  const card = element("section", { className: "clip" });
  card.dataset.id = id;
  byId("clips")[where](card);
  cards.set(id, { card, shown: "", point: null });
  look(id);
}

function forget(id) {
  cards.get(id)?.card.remove();
  cards.delete(id);
  remember(remembered().filter((other) => other !== id));
}

// Asks how a clip is, and draws it anew if that has changed; comes back as long as it goes on.
async function look(id) {
  const known = cards.get(id);
  if (known === undefined) return;
  try {
    const clip = await ask(`clips/${id}`);
    draw(known, clip);
    if (["waiting", "running"].includes(clip.state)) setTimeout(look, PAUSE, id);
  } catch (error) {
    if (error.status === 404) forget(id);
    else setTimeout(look, 5 * PAUSE, id); // the server may come back
  }
}

function draw(known, clip) {
  const told = JSON.stringify(clip);
  if (told === known.shown) return;
  known.shown = told;
  const remove = element("button", { type: "button", onclick: () => drop(clip.id) }, "Remove");
  const parts = { new: asking, failed: asking, waiting: waiting, running: running, done: made };
  const top = element("div", { className: "top" }, element("h2", {}, clip.title), remove);
  known.card.dataset.state = clip.state;
  known.card.replaceChildren(top, ...parts[clip.state](clip, known));
}

async function drop(id) {
  await change(`clips/${id}`, "DELETE").catch(() => {});
  forget(id);
}

// What a clip is shown like before its asset is asked for: a picture to click on.
function asking(clip, known) {
  const image = element("img", { src: `clips/${clip.id}/picture`, alt: "The first frame", draggable: false });
  const mark = element("i", { hidden: true });
  const pick = element("div", { className: "pick" }, image, mark);
  pick.onclick = (event) => {
    const box = image.getBoundingClientRect();
    known.point = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((share) => Math.min(1, Math.max(0, share)));
    Object.assign(mark.style, { left: `${100 * known.point[0]}%`, top: `${100 * known.point[1]}%` });
    mark.hidden = false;
  };
  const begin = element("button", { type: "button", className: "main" }, clip.state === "failed" ? "Try again" : "Make the asset");
  begin.onclick = async () => {
    begin.disabled = true;
    try {
      await change(`clips/${clip.id}/start`, "POST", { point: known.point });
    } catch (error) {
      say(error.message);
    }
    begin.disabled = false;
    look(clip.id);
  };
  const problem = clip.message ? [element("p", { className: "problem", role: "alert" }, clip.message)] : [];
  const hint = element("p", { className: "hint" }, "Click on the object if more than one thing stands out.");
  return [...problem, pick, hint, begin];
}

function waiting(clip) {
  const before = clip.ahead > 0 ? `${clip.ahead} before it.` : "It is next.";
  return [element("p", { className: "hint" }, `It waits for its turn. ${before}`)];
}

function running(clip) {
  const rows = clip.stages.map(({ name, state, seconds, done, total }) => {
    const bar = element("progress", { max: 1, ariaLabel: name });
    if (state === "computed" || state === "reused") bar.value = 1;
    else if (state === "to do" || state === "to reuse" || total > 0) bar.value = total > 0 ? done / total : 0;
    const told = seconds === null ? "" : `${seconds.toFixed(1)} s`;
    return element("li", { className: state }, name, bar, element("span", {}, STATES[state] ?? told));
  });
  return [element("ol", { className: "stages" }, ...rows)];
}

function made(clip) {
  const frame = element("iframe", { src: `clips/${clip.id}/view/`, title: `${clip.title}, to turn and to play`, allow: "fullscreen", loading: "lazy" });
  const links = clip.downloads.map((name) => element("a", { href: `clips/${clip.id}/files/${name}`, download: "" }, NAMES[name] ?? name));
  return [frame, element("p", { className: "files" }, "Download:", ...links)];
}

const zone = byId("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  zone.addEventListener(kind, (event) => {
    event.preventDefault();
    zone.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length > 0) send(event.dataTransfer.files[0]);
  });
}
byId("file").addEventListener("change", (event) => {
  if (event.target.files.length > 0) send(event.target.files[0]);
  event.target.value = "";
});
remembered().forEach((id) => add(id, "append"));
