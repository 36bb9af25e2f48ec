// The clips of a sheet in columns, what they can be sorted by, and how numbers are formatted.
"use strict";

const page = JSON.parse(byId("data").textContent);
const pictures = JSON.parse(byId("pictures").textContent);
let clips; // its columns have a value for each clip, by the clip's number

const count = (value) => value.toLocaleString("en");
const plain = (value) => value.toLocaleString("en", { maximumFractionDigits: 3 });
const numClips = (value) => `${count(value)} ${value === 1 ? "clip" : "clips"}`;
const percent = (value) => `${(100 * value).toFixed(1)} %`;

function seconds(value) {
  if (value < 100) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; value >= 1000 && unit + 1 < units.length; unit++) value /= 1000;
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

// How numbers are formatted, by the names that pipelines/dataset/report/sheet.py and pipelines/measures.py use.
const FORMATS = {
  count,
  percent,
  seconds,
  bytes,
  pixels: (value) => `${value} px`,
  rate: (value) => `${plain(value)} fps`,
};

// What the clips can be sorted by: a name, how to format a value, and the values; null is unknown and comes last.
function sortings() {
  const known = (sorting) => sorting.values.some((value) => value !== null);
  const measured = Object.entries(clips.numbers).map(([name, values]) => {
    const { title, format } = page.numbers[name];
    return { name, label: title, tell: FORMATS[format], values };
  });
  const costs = Object.entries(clips.stages).flatMap(([stage, columns]) => [
    { name: `time of ${stage}`, label: `Time of ${stage}`, tell: seconds, values: columns.seconds },
  ]);
  return [
    { name: "number", label: "Place in the manifest", tell: null, values: clips.id.map((_, number) => number) },
    { name: "id", label: "Name", tell: null, values: ranks(clips.id) },
    ...[...measured, ...costs].filter(known),
  ];
}

// For each text its rank among all, "clip9" before "clip10".
function ranks(texts) {
  const collator = new Intl.Collator("en", { numeric: true });
  const rank = new Array(texts.length);
  texts.map((_, number) => number)
    .sort((a, b) => collator.compare(texts[a], texts[b]))
    .forEach((number, place) => { rank[number] = place; });
  return rank;
}

function tagsOf(number) {
  return clips.tags[number].split(",").map((tag) => tag.trim()).filter(Boolean);
}

// How often each text occurs, the most frequent first.
function tally(texts) {
  const counts = new Map();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
}

// A clip's strip of frames, of which a square box shows the first; or a box that says why there is none.
function picture(number) {
  const name = clips.picture[number];
  if (name === null) {
    const why = clips.state[number] === "unreadable" ? "cannot be read" : "no picture yet";
    return element("span", { className: "picture blank" }, why);
  }
  if (name in page.problems) {
    return element("span", { className: "picture blank", title: page.problems[name] }, "no picture");
  }
  const url = page.folder === null
    ? `data:image/webp;base64,${pictures[name]}`
    : `${encodeURIComponent(page.folder)}/${name}`;
  const image = element("img", { src: url, alt: "", decoding: "async", draggable: false });
  const kind = clips.of_asset[number] ? [] : [element("span", { className: "kind" }, "input")];
  return element("span", { className: "picture" }, image, ...kind);
}

// Shows one of the frames of a strip in its square box.
function showFrame(image, step) {
  const frames = Math.round(image.naturalWidth / image.naturalHeight);
  image.style.objectPosition = frames > 1 ? `${(100 * (step % frames)) / (frames - 1)}% 0` : "0 0";
}
