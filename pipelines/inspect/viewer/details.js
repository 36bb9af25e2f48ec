// The details of one clip, in a dialog over the sheet.
"use strict";

const SAFE = /^[\w@%+=:,./-]+$/;

// What a terminal would obey when the command is pasted, and what would turn the order of letters around.
const CONTROL = /[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

// A word of a command, quoted for a shell; a name may hold anything.
function quoted(word) {
  if (SAFE.test(word)) return word;
  const harmless = word.replace(CONTROL, octal);
  if (harmless === word) return `'${word.replaceAll("'", `'"'"'`)}'`;
  return `$'${word.replace(/[\\']/g, "\\$&").replace(CONTROL, octal)}'`;
}

function octal(letter) {
  return [...new TextEncoder().encode(letter)].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");
}

// Opens the dialog; `step` goes to another clip: called with -1 or 1, it gives the next number, or null.
function openDetails(number, step) {
  const dialog = byId("details");
  const go = (by) => {
    const next = step(by);
    if (next !== null) fillDetails(dialog, next, go);
  };
  dialog.onkeydown = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    go(by);
  };
  dialog.onclick = (event) => {
    if (event.target === dialog) dialog.close(); // on the backdrop
  };
  dialog.replaceChildren(); // so that the focus is given when it is filled
  dialog.showModal();
  fillDetails(dialog, number, go);
}

function fillDetails(dialog, number, go) {
  const focused = document.activeElement?.dataset.action;
  const button = (action, text, label, onclick) => {
    const made = element("button", { type: "button", onclick, ariaLabel: label, title: label }, text);
    made.dataset.action = action;
    return made;
  };
  const strip = picture(number);
  const image = strip.querySelector("img");
  const shows = clips.of_asset[number] ? "the asset as it turns" : "the segmented object of the input";
  if (image) image.alt = `${clips.id[number]}: ${shows}`;
  if (clips.picture[number] in page.problems) strip.textContent = page.problems[clips.picture[number]];
  dialog.replaceChildren(
    element(
      "div",
      { className: "top" },
      element("h2", { id: "details-title" }, clips.id[number]),
      button("back", "←", "Previous clip", () => go(-1)),
      button("on", "→", "Next clip", () => go(1)),
      button("close", "Close", "Close", () => dialog.close()),
    ),
    element("div", { className: "whole" }, strip),
    ...failureOf(number),
    facts(number),
    numbers(number),
    element("h3", {}, "Stages"),
    stagesOf(number),
    element("h3", {}, "Commands"),
    ...commands(number),
  );
  dialog.scrollTop = 0;
  dialog.querySelector(`[data-action="${focused ?? "on"}"]`)?.focus();
}

function failureOf(number) {
  const failure = clips.failure[number];
  if (failure === null) return [];
  const where = failure.stage ? `${failure.error} at ${failure.stage}` : failure.error;
  return [
    element("p", {}, element("span", { className: "badge cause" }, failure.cause), ` ${where}`),
    element("pre", { className: "message" }, failure.message),
  ];
}

function facts(number) {
  const list = element("dl");
  const add = (name, value) => value && list.append(element("dt", {}, name), element("dd", {}, value));
  add("State", clips.state[number]);
  add("Input", clips.source[number]);
  add("Tags", tagsOf(number).join(", "));
  const name = `${clips.id[number]}.log`;
  if (clips.logged[number]) add("Log", element("a", { href: `${page.logs}/${encodeURIComponent(name)}` }, name));
  return list;
}

function numbers(number) {
  const list = element("dl", { className: "numbers" });
  for (const [name, values] of Object.entries(clips.numbers)) {
    const { title, format } = page.numbers[name];
    if (values[number] === null) continue;
    list.append(element("div", {}, element("dt", {}, title), element("dd", {}, FORMATS[format](values[number]))));
  }
  return list;
}

function stagesOf(number) {
  const head = ["stage", "state", "time", "peak memory", "attempts", "key of the artifact"];
  const rows = Object.entries(clips.stages).map(([stage, columns]) => {
    const told = (name, tell) => (columns[name][number] === null ? "-" : tell(columns[name][number]));
    const key = element("td", {}, element("span", { className: "key" }, told("key", String)));
    const costs = [told("seconds", seconds), told("peak_memory", bytes), told("attempts", count)];
    const name = element("th", { scope: "row" }, stage);
    const cells = [told("state", String), ...costs];
    return element("tr", {}, name, ...cells.map((text) => element("td", {}, text)), key);
  });
  const columns = head.map((text) => element("th", { scope: "col" }, text));
  const top = element("thead", {}, element("tr", {}, ...columns));
  const table = element("table", {}, top, element("tbody", {}, ...rows));
  return element("div", { className: "wide", tabIndex: 0, role: "region", ariaLabel: "Stages of this clip" }, table);
}

function commands(number) {
  const id = clips.id[number];
  const run = `ss4d run ${quoted(clips.source[number])} --name ${quoted(id)} ${page.commands.run}`;
  const folder = quoted(`${page.commands.runs}/${id}`);
  switch (clips.state[number]) {
    case "unreadable":
      return [element("p", { className: "hint" }, "None: give ss4d dataset init a file that can be read.")];
    case "done":
      return [
        command("A run of it, made of what is stored, to look into", run),
        command("Then its stages", `ss4d inspect ${folder}`),
        command("Then its page, with the asset to turn", `ss4d report ${folder}`),
      ];
    case "failed":
      return [
        command("Clear its failures, so that the next run tries it again", `${page.commands.retry} ${quoted(id)}`),
        command("Run it alone, to see what happens", run),
      ];
    default:
      return [command("Run it alone", run)];
  }
}

function command(label, text) {
  const code = element("code", { tabIndex: 0 }, text);
  const copy = element("button", { type: "button" }, "Copy");
  copy.onclick = async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch { // a browser that does not let pages do it: the user does
      getSelection().selectAllChildren(code);
      copy.textContent = "Selected";
    }
  };
  const line = element("div", { className: "command" }, code, copy);
  return element("div", {}, element("p", { className: "hint" }, label), line);
}
