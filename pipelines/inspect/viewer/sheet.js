// The sheet: which clips are shown, in which order, and their cards, of which only those in sight exist.
"use strict";

const LEAST = 150; // CSS pixels: a card's least width
const TEXT = 52; // height of a card's text
const GAP = 12;
const BEYOND = 2; // rows above and below the window whose cards exist, too
const STEP = 160; // milliseconds that a frame is shown

const view = { text: "", states: new Set(), causes: new Set(), tag: "", group: null, sorting: null, descending: false };
const grid = byId("grid");
const cards = new Map(); // by place
const size = { columns: 1, width: LEAST, row: LEAST + TEXT + GAP };
let order = []; // numbers of the clips that are shown; a place is an index into it
let current = 0; // the place that the Tab key leads to
let texts; // what a search looks into, in lower case

function matches(number) {
  const failure = clips.failure[number];
  return (view.states.size === 0 || view.states.has(clips.state[number]))
    && (view.causes.size === 0 || (failure !== null && view.causes.has(failure.cause)))
    && (view.tag === "" || tagsOf(number).includes(view.tag))
    && (view.group === null || view.group.has(number))
    && view.text.split(" ").every((word) => texts[number].includes(word));
}

// Applies filters and order, and starts at the first card.
function update() {
  const { values } = view.sorting;
  const sign = view.descending ? -1 : 1;
  const known = (number) => values[number] !== null;
  const chosen = clips.id.map((_, number) => number).filter(matches);
  order = chosen.filter(known).sort((a, b) => sign * (values[a] - values[b]) || a - b);
  order.push(...chosen.filter((number) => !known(number)));
  current = 0;
  const all = order.length === clips.id.length;
  byId("count").textContent = all ? numClips(order.length) : `${count(order.length)} of ${numClips(clips.id.length)}`;
  byId("clear").hidden = all && view.group === null;
  if (headroom() < 0) scrollTo({ top: scrollY + headroom() });
  clear();
  layOut();
}

// How far the first row is below the toolbar; less than 0 when it is scrolled out of sight.
function headroom() {
  return grid.getBoundingClientRect().top - toolbarBottom() - GAP;
}

function toolbarBottom() {
  const toolbar = byId("toolbar");
  return getComputedStyle(toolbar).position === "sticky" ? toolbar.offsetHeight : 0;
}

function clear() {
  for (const card of cards.values()) card.remove();
  cards.clear();
  grid.replaceChildren(...(order.length ? [] : [element("p", { className: "empty none" }, "No clip is like that.")]));
}

// Fits the cards to the width there is.
function layOut() {
  const width = grid.clientWidth;
  const columns = Math.max(1, Math.floor((width + GAP) / (LEAST + GAP)));
  const side = (width - GAP * (columns - 1)) / columns;
  if (columns !== size.columns || side !== size.width) {
    Object.assign(size, { columns, width: side, row: side + TEXT + GAP });
    clear();
  }
  const rows = Math.ceil(order.length / columns);
  grid.style.height = rows ? `${rows * size.row}px` : "";
  draw();
}

// Makes the cards that come into sight and removes those that leave it, except for the focused one.
function draw() {
  const above = grid.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(-above / size.row) - BEYOND) * size.columns;
  const last = Math.min(order.length, (Math.ceil((innerHeight - above) / size.row) + BEYOND) * size.columns);
  for (const [place, card] of cards) {
    if ((place < first || place >= last) && !card.contains(document.activeElement)) {
      card.remove();
      cards.delete(place);
    }
  }
  for (let place = first; place < last; place++) {
    if (!cards.has(place)) cards.set(place, grid.appendChild(cardAt(place)));
  }
}

function cardAt(place) {
  const number = order[place];
  const button = element(
    "button",
    { type: "button", onclick: () => openCard(place), onfocus: () => reach(place) },
    picture(number),
    element("span", { className: "name", title: clips.id[number] }, clips.id[number]),
    element("span", { className: "told" }, element("span", { className: `dot ${clips.state[number]}` }), told(number)),
  );
  button.tabIndex = place === current ? 0 : -1;
  const card = element("div", { className: "card", role: "listitem" }, button);
  card.setAttribute("aria-setsize", order.length);
  card.setAttribute("aria-posinset", place + 1);
  const [column, row] = [place % size.columns, Math.floor(place / size.columns)];
  Object.assign(card.style, {
    width: `${size.width}px`,
    height: `${size.row - GAP}px`,
    transform: `translate(${column * (size.width + GAP)}px, ${row * size.row}px)`,
  });
  card.dataset.number = number;
  return card;
}

// The line under a clip's name: its state, and what it is sorted by, why it failed, or how long it took.
function told(number) {
  const { values, tell } = view.sorting;
  const failure = clips.failure[number];
  const cost = clips.numbers.seconds[number];
  let more = [];
  if (tell !== null) more = values[number] === null ? [] : [tell(values[number])];
  else if (clips.state[number] === "failed") more = [failure.cause, failure.error];
  else if (cost !== null) more = [seconds(cost)];
  return [clips.state[number], ...more].join(" · ");
}

// Makes a place the one that the Tab key reaches.
function reach(place) {
  const before = cards.get(current)?.firstChild;
  if (before) before.tabIndex = -1;
  current = place;
  const now = cards.get(current)?.firstChild;
  if (now) now.tabIndex = 0;
}

// Brings a card into sight and gives it the focus.
function focusCard(place) {
  if (order.length === 0) return;
  const aim = Math.min(order.length - 1, Math.max(0, place));
  const above = grid.getBoundingClientRect().top + Math.floor(aim / size.columns) * size.row;
  const margin = toolbarBottom() + GAP;
  if (above < margin) scrollBy(0, above - margin);
  else if (above + size.row > innerHeight) scrollBy(0, above + size.row - innerHeight);
  draw();
  cards.get(aim).firstChild.focus({ preventScroll: true });
}

function openCard(place) {
  let at = place;
  const step = (by) => {
    if (at + by < 0 || at + by >= order.length) return null;
    at += by;
    return order[at];
  };
  byId("details").onclose = () => focusCard(at); // the browser has given the focus back to where it was before
  openDetails(order[place], step);
}

function listenToKeys() {
  const screenful = () => Math.max(1, Math.floor((innerHeight - toolbarBottom()) / size.row)) * size.columns;
  const moves = {
    ArrowLeft: () => -1,
    ArrowRight: () => 1,
    ArrowUp: () => -size.columns,
    ArrowDown: () => size.columns,
    PageUp: () => -screenful(),
    PageDown: () => screenful(),
    Home: () => -order.length,
    End: () => order.length,
  };
  grid.addEventListener("keydown", (event) => {
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    focusCard(current + moves[event.key]());
  });
}

// Animates the strips: of the card under the mouse or with the focus, or of all.
function moveStrips() {
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let moving = new Set();
  let step = 0;
  setInterval(() => {
    if (document.hidden) return;
    step++;
    const pointed = still.matches ? [] : grid.querySelectorAll(".card:hover img, .card:focus-within img");
    const now = new Set(byId("move").checked ? grid.querySelectorAll("img") : pointed);
    for (const image of moving) if (!now.has(image)) showFrame(image, 0);
    for (const image of now) if (image.naturalHeight) showFrame(image, step);
    moving = now;
  }, STEP);
}

// Buttons of which any number may be pressed; with none pressed, nothing is filtered.
function makeChips(box, chosen, counts, dotted) {
  box.parentElement.hidden = counts.length === 0;
  box.replaceChildren(...counts.map(([name, number]) => {
    const dot = dotted ? [element("span", { className: `dot ${name}` })] : [];
    const chip = element("button", { type: "button", ariaPressed: "false" }, ...dot, `${name} ${count(number)}`);
    chip.onclick = () => {
      if (!chosen.delete(name)) chosen.add(name);
      chip.ariaPressed = String(chosen.has(name));
      update();
    };
    return chip;
  }));
}

function makeControls() {
  const counts = new Map(tally(clips.state));
  const found = page.states.filter((state) => counts.has(state)).map((state) => [state, counts.get(state)]);
  makeChips(byId("states"), view.states, found, true);
  makeChips(byId("causes"), view.causes, tally(clips.failure.filter(Boolean).map((failure) => failure.cause)), false);
  const tags = tally(clips.id.flatMap((_, number) => tagsOf(number)));
  byId("tags").hidden = tags.length === 0;
  byId("tag").replaceChildren(
    new Option("all", ""), ...tags.map(([tag, number]) => new Option(`${tag} (${count(number)})`, tag)));
  const ways = sortings();
  view.sorting = ways[0];
  byId("sort").replaceChildren(...ways.map(({ name, label }) => new Option(label, name)));
  byId("sort").onchange = () => {
    view.sorting = ways[byId("sort").selectedIndex];
    update();
  };
}

function turnOrder(descending) {
  view.descending = descending;
  byId("direction").textContent = descending ? "↓ descending" : "↑ ascending";
}

function showGroup(number) {
  view.group = number === null ? null : new Set(clips.groups[number]);
  byId("within").hidden = number === null;
  byId("within").textContent = number === null ? "" : `${page.groups[number]} ✕`;
}

// Clears all filters.
function showAll() {
  Object.assign(view, { text: "", tag: "" });
  byId("text").value = byId("tag").value = "";
  for (const chosen of [view.states, view.causes]) chosen.clear();
  for (const chip of document.querySelectorAll(".chips button")) chip.ariaPressed = "false";
  showGroup(null);
}

function listen() {
  const after = (change) => () => {
    change();
    update();
  };
  byId("text").oninput = after(() => { view.text = byId("text").value.trim().toLowerCase(); });
  byId("tag").onchange = after(() => { view.tag = byId("tag").value; });
  byId("direction").onclick = after(() => turnOrder(!view.descending));
  byId("within").onclick = after(() => showGroup(null));
  byId("clear").onclick = after(showAll);
  for (const button of document.querySelectorAll("[data-group]")) {
    button.onclick = () => {
      showAll();
      showGroup(Number(button.dataset.group));
      update();
      byId("toolbar").scrollIntoView();
    };
  }
  addEventListener("scroll", draw, { passive: true });
  new ResizeObserver(layOut).observe(grid);
  listenToKeys();
}

async function start() {
  clips = JSON.parse(new TextDecoder().decode(await inflated(page.clips)));
  texts = clips.id.map((id, number) => {
    const failure = Object.values(clips.failure[number] ?? {});
    return [id, clips.source[number], clips.tags[number], ...failure].join("\n").toLowerCase();
  });
  makeControls();
  turnOrder(false);
  listen();
  moveStrips();
  update();
  document.body.dataset.ready = "true";
}

start().catch((error) => {
  byId("count").textContent = `The clips in this page cannot be read (${error.message}); make the page again.`;
});
