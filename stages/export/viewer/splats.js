// Draws packed Gaussians with WebGL2 the way stages/ops/rasterize.py does: project, sort by depth, blend.
// World space is z up; camera space is x right, y down, z forward. pipelines/inspect/splat_data.py says how they are
// packed; spz.js packs what it reads in the same way.
"use strict";

const WORDS = 4;
const ROW = 2048; // Gaussians in a row of a frame's texture
const BUCKETS = 65536; // depths told apart when sorting

const VERTEX = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
uniform usampler2D splats;
uniform mat4 view;
uniform vec2 size;       // of the picture, pixels
uniform float focal;     // pixels
uniform vec3 origin, extent;
uniform vec2 logScale;   // of the smallest and the largest scale
in vec2 corner;
in uint index;
out vec2 place;
flat out vec4 paint;
flat out float reach;
const float VARIANCE = 0.1, MIN_ALPHA = 1.0 / 255.0, JACOBIAN_LIMIT = 1.3, NEAR = 0.01;

vec4 quaternion(uint bits) {
  vec3 rest = (vec3((bits >> 14) & 127u, (bits >> 7) & 127u, bits & 127u) / 126.0 * 2.0 - 1.0) * sqrt(0.5);
  float most = sqrt(max(0.0, 1.0 - dot(rest, rest)));
  switch (bits >> 21) {
    case 0u: return vec4(most, rest);
    case 1u: return vec4(rest.x, most, rest.yz);
    case 2u: return vec4(rest.xy, most, rest.z);
    default: return vec4(rest, most);
  }
}

mat3 rotation(vec4 q) { // (w, x, y, z)
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3( // column by column
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0); // outside: shows nowhere
  uvec4 word = texelFetch(splats, ivec2(index % ${ROW}u, index / ${ROW}u), 0);
  vec3 mean = origin + extent * vec3(word.x & 65535u, word.x >> 16, word.y & 65535u) / 65535.0;
  vec3 point = (view * vec4(mean, 1.0)).xyz;
  if (point.z <= NEAR) return;
  vec3 share = vec3((word.y >> 16) & 255u, word.y >> 24, word.z & 255u) / 255.0;
  vec3 scale = exp(mix(logScale.xxx, logScale.yyy, share));
  mat3 axes = mat3(view) * rotation(quaternion((word.w >> 24) << 16 | word.z >> 16));
  axes = mat3(axes[0] * scale.x, axes[1] * scale.y, axes[2] * scale.z);

  vec2 limit = JACOBIAN_LIMIT * size / (2.0 * focal);
  vec2 slope = clamp(point.xy / point.z, -limit, limit);
  vec3 along = vec3(axes[0].x, axes[1].x, axes[2].x) - slope.x * vec3(axes[0].z, axes[1].z, axes[2].z);
  vec3 down = vec3(axes[0].y, axes[1].y, axes[2].y) - slope.y * vec3(axes[0].z, axes[1].z, axes[2].z);
  along *= focal / point.z;
  down *= focal / point.z;
  float xx = dot(along, along), xy = dot(along, down), yy = dot(down, down); // the 2D covariance
  float before = max(xx * yy - xy * xy, 0.0);
  xx += VARIANCE;
  yy += VARIANCE;
  float opacity = float((word.z >> 8) & 255u) / 255.0 * sqrt(before / (xx * yy - xy * xy));
  if (opacity < MIN_ALPHA) return;

  reach = log(opacity / MIN_ALPHA); // alpha falls to 1/255 on the ellipse whose box is drawn
  float middle = 0.5 * (xx + yy), spread = length(vec2(0.5 * (xx - yy), xy));
  vec2 major = abs(xy) > 1e-9 ? normalize(vec2(xy, middle + spread - xx)) : (xx >= yy ? vec2(1, 0) : vec2(0, 1));
  vec2 radii = sqrt(2.0 * reach * vec2(middle + spread, max(middle - spread, 0.0)));
  vec2 pixel = focal * point.xy / point.z + 0.5 * size;
  pixel += corner.x * radii.x * major + corner.y * radii.y * vec2(-major.y, major.x);
  gl_Position = vec4(pixel.x / size.x * 2.0 - 1.0, 1.0 - pixel.y / size.y * 2.0, 0.0, 1.0);
  place = corner;
  paint = vec4(vec3(word.w & 255u, (word.w >> 8) & 255u, (word.w >> 16) & 255u) / 255.0, opacity);
}`;

// A picture that was drawn before, over the whole canvas.
const COPY_VERTEX = `#version 300 es
in vec2 corner;
out vec2 place;
void main() {
  place = 0.5 * corner + 0.5;
  gl_Position = vec4(corner, 0.0, 1.0);
}`;

const COPY_FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D picture;
in vec2 place;
out vec4 color;
void main() {
  color = texture(picture, place);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 place;
flat in vec4 paint;
flat in float reach;
out vec4 color;
void main() {
  float distance = dot(place, place);
  if (distance > 1.0) discard;
  float alpha = min(paint.a * exp(-reach * distance), 0.99);
  color = vec4(paint.rgb * alpha, alpha);
}`;

// The camera of stages/ops/geometry.py's orbit_camera, around `target`: rows of the world-to-camera matrix. Angles are
// in degrees. `shift` moves the picture right and down, in shares of its shorter side, as stages/input_camera.py does.
function orbitRows({ yaw, pitch, radius, fov, target = [0, 0, 0], shift = [0, 0] }) {
  const [y, p, opening] = [yaw, pitch, fov].map((angle) => (angle * Math.PI) / 180);
  const [sy, cy, sp, cp] = [Math.sin(y), Math.cos(y), Math.sin(p), Math.cos(p)];
  const axes = [
    [-cy, sy, 0],
    [sy * sp, cy * sp, -cp],
    [-sy * cp, -cy * cp, -sp],
  ];
  const rows = axes.map((axis, k) => [...axis, (k === 2 ? radius : 0) - axis.reduce((sum, v, i) => sum + v * target[i], 0)]);
  const slopes = shift.map((share) => 2 * share * Math.tan(opening / 2));
  const sheared = slopes.map((slope, k) => rows[k].map((v, i) => v + slope * rows[2][i]));
  return [...sheared, rows[2], [0, 0, 0, 1]];
}

class SplatRenderer {
  // `asset`: origin, extent, log_scale. Throws an Error that says what is missing.
  constructor(canvas, asset) {
    const gl = canvas.getContext("webgl2", { antialias: false, alpha: true, premultipliedAlpha: true });
    if (!gl) throw new Error("WebGL2 is not available");
    Object.assign(this, { gl, canvas, asset, frames: [], shown: null, background: [0, 0, 0, 0], copy: null });
    this.program = link(gl, VERTEX, FRAGMENT, ["corner", "index"]);
    gl.useProgram(this.program);
    gl.enable(gl.BLEND);
    gl.disable(gl.DEPTH_TEST);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.at = (name) => gl.getUniformLocation(this.program, name);
    gl.uniform3fv(this.at("origin"), asset.origin);
    gl.uniform3fv(this.at("extent"), asset.extent);
    gl.uniform2fv(this.at("logScale"), asset.log_scale);
    this.attribute("corner", new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), 2, 0);
    this.order = this.attribute("index", new Uint32Array(0), 1, 1);
  }

  attribute(name, data, size, divisor) {
    const gl = this.gl;
    const location = gl.getAttribLocation(this.program, name);
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(location);
    if (data instanceof Uint32Array) gl.vertexAttribIPointer(location, size, gl.UNSIGNED_INT, 0, 0);
    else gl.vertexAttribPointer(location, size, gl.FLOAT, false, 0, 0);
    gl.vertexAttribDivisor(location, divisor);
    return buffer;
  }

  // Takes the words of frame `t`.
  load(t, words) {
    const gl = this.gl;
    const count = words.length / WORDS;
    const rows = Math.max(1, Math.ceil(count / ROW));
    const padded = new Uint32Array(rows * ROW * WORDS);
    padded.set(words);
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32UI, ROW, rows, 0, gl.RGBA_INTEGER, gl.UNSIGNED_INT, padded);
    this.frames[t] = { count, texture, words, order: new Uint32Array(count), direction: null };
  }

  loaded(t) {
    return this.frames[t] !== undefined;
  }

  // Forgets frame `t`.
  unload(t) {
    this.gl.deleteTexture(this.frames[t].texture);
    if (this.shown === this.frames[t]) this.shown = null;
    delete this.frames[t];
  }

  // Draws frame `t` as `camera` sees it: yaw, pitch, radius, and perhaps a target; `fov` is the angle across the shorter
  // side, in degrees. Behind it is `background`, RGBA multiplied by alpha.
  draw(t, camera) {
    this.drawInto(null, t, camera);
  }

  // Draws a mixture of two pictures: frame `t`, and a share of frame `next`.
  drawMixed(t, next, share, camera) {
    const gl = this.gl;
    this.drawInto(null, t, camera);
    const copy = this.copyOfSize();
    this.drawInto(copy.framebuffer, next, camera);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.useProgram(copy.program);
    gl.bindTexture(gl.TEXTURE_2D, copy.texture);
    gl.blendColor(0, 0, 0, share);
    gl.blendFunc(gl.CONSTANT_ALPHA, gl.ONE_MINUS_CONSTANT_ALPHA);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.useProgram(this.program);
  }

  // A picture of the canvas's size to draw into, and what draws it.
  copyOfSize() {
    const { gl, canvas } = this;
    if (this.copy === null) {
      const program = link(gl, COPY_VERTEX, COPY_FRAGMENT, ["corner"]);
      this.copy = { program, texture: gl.createTexture(), framebuffer: gl.createFramebuffer(), size: "" };
    }
    const size = `${canvas.width} ${canvas.height}`;
    if (this.copy.size !== size) {
      this.copy.size = size;
      gl.bindTexture(gl.TEXTURE_2D, this.copy.texture);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, canvas.width, canvas.height, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
      gl.bindFramebuffer(gl.FRAMEBUFFER, this.copy.framebuffer);
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.copy.texture, 0);
    }
    return this.copy;
  }

  drawInto(framebuffer, t, camera) {
    const { gl, canvas } = this;
    const frame = this.frames[t];
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(...this.background);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.bindTexture(gl.TEXTURE_2D, frame.texture);
    setCamera(gl, this.at, camera);
    this.sort(frame, orbitRows(camera)[2]);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, frame.count);
  }

  // Brings the frame's order up to date, farthest first; only a turn of the camera changes it.
  sort(frame, forward) {
    const direction = forward.slice(0, 3).join();
    if (frame.direction !== direction) {
      sortByDepth(frame.words, forward.slice(0, 3).map((v, k) => v * this.asset.extent[k]), frame.order);
      frame.direction = direction;
    } else if (this.shown === frame) return;
    this.shown = frame;
    const gl = this.gl;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.order);
    gl.bufferData(gl.ARRAY_BUFFER, frame.order, gl.DYNAMIC_DRAW);
  }
}

// Tells a program what `camera` is, by the names of its uniforms; `at` gives their places.
function setCamera(gl, at, camera) {
  const [width, height] = [gl.canvas.width, gl.canvas.height];
  gl.uniformMatrix4fv(at("view"), true, new Float32Array(orbitRows(camera).flat()));
  gl.uniform2f(at("size"), width, height);
  gl.uniform1f(at("focal"), Math.min(width, height) / (2 * Math.tan((camera.fov * Math.PI) / 360)));
}

// Fills `order` with the rows of `words` by their depth along `axis`, farthest first: a counting sort.
function sortByDepth(words, axis, order) {
  const count = order.length;
  const depth = new Float32Array(count);
  let [low, high] = [Infinity, -Infinity];
  for (let i = 0, w = 0; i < count; i++, w += WORDS) {
    const value = axis[0] * (words[w] & 65535) + axis[1] * (words[w] >>> 16) + axis[2] * (words[w + 1] & 65535);
    depth[i] = value;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const scale = (BUCKETS - 1) / Math.max(high - low, 1e-9);
  const starts = new Uint32Array(BUCKETS + 1);
  const bucket = new Uint16Array(count);
  for (let i = 0; i < count; i++) {
    bucket[i] = (high - depth[i]) * scale;
    starts[bucket[i] + 1]++;
  }
  for (let b = 0; b < BUCKETS; b++) starts[b + 1] += starts[b];
  for (let i = 0; i < count; i++) order[starts[bucket[i]]++] = i;
}

// A program of two shaders, whose attributes have the places of their names in the list.
function link(gl, vertex, fragment, attributes) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  attributes.forEach((name, place) => gl.bindAttribLocation(program, place, name));
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new Error("the graphics driver refused the shaders");
  }
  return program;
}
