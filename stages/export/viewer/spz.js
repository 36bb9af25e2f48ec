// Reads SPZ frames, version 3, and packs them as splats.js draws them; stages/export/spz.py says how they are written.
// SPZ is y up, world space z up: (x, y, z) becomes (x, -z, y).
"use strict";

const SPZ_MAGIC = 0x5053474e;
const SPZ_HEADER = 16; // bytes
const SPZ_BYTES = 20; // of a Gaussian without view-dependent color
const SPZ_COLOR = 0.28209479177387814 / 0.15; // what a color changes from the byte 0 to 255

// The bytes of a text in base85: five characters are four bytes, and of a last group k + 1 are k.
function base85Bytes(text, alphabet) {
  const values = new Uint8Array(128);
  [...alphabet].forEach((letter, value) => { values[letter.charCodeAt(0)] = value; });
  const missing = (5 - (text.length % 5)) % 5;
  const bytes = new Uint8Array(((text.length + missing) / 5) * 4);
  for (let at = 0, group = 0; at < text.length; at += 5, group += 4) {
    let word = 0;
    for (let k = 0; k < 5; k++) word = word * 85 + (at + k < text.length ? values[text.charCodeAt(at + k)] : 84);
    for (let k = 0; k < 4; k++) bytes[group + k] = Math.floor(word / 2 ** (24 - 8 * k)) & 255;
  }
  return bytes.subarray(0, bytes.length - missing);
}

// The bytes that were compressed with gzip.
async function gunzipped(packed) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The words of a frame. `asset` has the bounds: origin and extent in world space; its log_scale must be SPZ's own range,
// so that the bytes of scales are the same.
function unpackSpz(bytes, asset) {
  const view = new DataView(bytes.buffer);
  const count = bytes.length >= SPZ_HEADER ? view.getUint32(8, true) : 0;
  if (bytes.length !== SPZ_HEADER + SPZ_BYTES * count || view.getUint32(0, true) !== SPZ_MAGIC || view.getUint32(4, true) !== 3) {
    throw new Error("a frame is not an SPZ file of version 3");
  }
  const unit = 2 ** -bytes[13]; // of a center's fixed-point number
  const [opacities, colors, scales, rotations] = [9, 10, 13, 16].map((offset) => SPZ_HEADER + offset * count);
  const center = (at) => ((view.getUint16(at, true) | (view.getInt8(at + 2) << 16)) * unit);
  const steps = (share, most) => Math.min(most, Math.max(0, Math.round(share * most)));
  const color = (byte) => steps(0.5 + SPZ_COLOR * (byte / 255 - 0.5), 255);
  const words = new Uint32Array(4 * count);
  for (let i = 0; i < count; i++) {
    const place = SPZ_HEADER + 9 * i;
    const point = [center(place), -center(place + 6), center(place + 3)];
    const [x, y, z] = point.map((v, k) => steps((v - asset.origin[k]) / asset.extent[k], 65535));
    const [c, s] = [colors + 3 * i, scales + 3 * i];
    const turn = packRotation(upright(spzRotation(view.getUint32(rotations + 4 * i, true))));
    words[4 * i] = x | (y << 16);
    words[4 * i + 1] = z | (bytes[s] << 16) | (bytes[s + 1] << 24);
    words[4 * i + 2] = bytes[s + 2] | (bytes[opacities + i] << 8) | ((turn & 65535) << 16);
    words[4 * i + 3] = color(bytes[c]) | (color(bytes[c + 1]) << 8) | (color(bytes[c + 2]) << 16) | ((turn >>> 16) << 24);
  }
  return words;
}

// (w, x, y, z) of a packed rotation: which of (x, y, z, w) is largest, and the others, the last in the lowest bits.
function spzRotation(word) {
  const xyzw = [0, 0, 0, 0];
  const largest = word >>> 30;
  let rest = 1;
  for (let k = 3, bits = word; k >= 0; k--) {
    if (k === largest) continue;
    xyzw[k] = ((bits & 511) / 511) * Math.SQRT1_2 * (bits & 512 ? -1 : 1);
    rest -= xyzw[k] ** 2;
    bits >>>= 10;
  }
  xyzw[largest] = Math.sqrt(Math.max(0, rest));
  return [xyzw[3], xyzw[0], xyzw[1], xyzw[2]];
}

// A rotation in y-up axes, followed by the quarter turn to z-up ones.
function upright([w, x, y, z]) {
  return [(w - x) * Math.SQRT1_2, (x + w) * Math.SQRT1_2, (y - z) * Math.SQRT1_2, (z + y) * Math.SQRT1_2];
}

// 23 bits: which of (w, x, y, z) is largest, and the others in order, 7 bits each.
function packRotation(quat) {
  let largest = 0;
  for (let k = 1; k < 4; k++) if (Math.abs(quat[k]) > Math.abs(quat[largest])) largest = k;
  const sign = quat[largest] < 0 ? -1 : 1;
  let word = largest;
  for (let k = 0; k < 4; k++) {
    if (k !== largest) word = (word << 7) | Math.round(((sign * quat[k] * Math.SQRT2 + 1) / 2) * 126);
  }
  return word;
}
