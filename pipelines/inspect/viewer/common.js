// What the scripts of all pages share.
"use strict";

const byId = (id) => document.getElementById(id);

// The bytes that were deflated and written in base64.
async function inflated(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
