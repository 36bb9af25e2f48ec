// What the scripts of all pages share.
"use strict";

const byId = (id) => document.getElementById(id);

// The bytes that were deflated and written in base64.
async function inflated(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// An element with its properties and content; texts are never parsed as HTML.
function element(tag, properties = {}, ...content) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...content);
  return made;
}
