// Draws textured triangles with WebGL2 the way stages/meshing/draw.py does: as they are painted, without light, from both
// sides. World space is z up. stages/export/mesh_frames.py says how a frame is packed.
"use strict";

const MESH_VERTEX = `#version 300 es
precision highp float;
uniform mat4 view;
uniform vec2 size;       // of the picture, pixels
uniform float focal;     // pixels
uniform vec3 origin, extent;
in vec3 share;           // of the way through the frame's bounds
in vec2 uv;
out vec2 place;
const float NEAR = 0.01, FAR = 100.0;
void main() {
  vec3 point = (view * vec4(origin + extent * share, 1.0)).xyz;
  float depth = (point.z * (FAR + NEAR) - 2.0 * FAR * NEAR) / (FAR - NEAR);
  gl_Position = vec4(2.0 * focal * point.x / size.x, -2.0 * focal * point.y / size.y, depth, point.z);
  place = uv;
}`;

const MESH_FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D paint;
in vec2 place;
out vec4 color;
void main() {
  color = vec4(texture(paint, place).rgb, 1.0);
}`;

class MeshRenderer {
  // Throws an Error that says what is missing.
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: true, alpha: true, premultipliedAlpha: true });
    if (!gl) throw new Error("WebGL2 is not available");
    Object.assign(this, { gl, canvas, frames: [], background: [0, 0, 0, 0] });
    this.program = link(gl, MESH_VERTEX, MESH_FRAGMENT, ["share", "uv"]);
    gl.useProgram(this.program);
    gl.enable(gl.DEPTH_TEST);
    this.at = (name) => gl.getUniformLocation(this.program, name);
  }

  // Takes what `unpackMesh` gives for frame `t`.
  load(t, { origin, extent, faces, shares, uv, texture }) {
    const gl = this.gl;
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    const buffers = [[gl.ARRAY_BUFFER, shares], [gl.ARRAY_BUFFER, uv], [gl.ELEMENT_ARRAY_BUFFER, faces]].map(
      ([kind, content], k) => {
        const buffer = gl.createBuffer();
        gl.bindBuffer(kind, buffer);
        gl.bufferData(kind, content, gl.STATIC_DRAW);
        if (kind === gl.ARRAY_BUFFER) {
          gl.enableVertexAttribArray(k);
          gl.vertexAttribPointer(k, k === 0 ? 3 : 2, gl.UNSIGNED_SHORT, true, 0, 0);
        }
        return buffer;
      },
    );
    gl.bindVertexArray(null);
    const paint = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, paint);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR); // smaller copies would mix what lies side by side
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, texture);
    texture.close();
    this.frames[t] = { origin, extent, array, buffers, paint, count: faces.length };
  }

  loaded(t) {
    return this.frames[t] !== undefined;
  }

  // Forgets frame `t`.
  unload(t) {
    const { gl, frames } = this;
    gl.deleteVertexArray(frames[t].array);
    frames[t].buffers.forEach((buffer) => gl.deleteBuffer(buffer));
    gl.deleteTexture(frames[t].paint);
    delete frames[t];
  }

  // Draws frame `t` as `camera` sees it, see `SplatRenderer.draw`.
  draw(t, camera) {
    const { gl, canvas } = this;
    const frame = this.frames[t];
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(...this.background);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.bindVertexArray(frame.array);
    gl.bindTexture(gl.TEXTURE_2D, frame.paint);
    gl.uniform3fv(this.at("origin"), frame.origin);
    gl.uniform3fv(this.at("extent"), frame.extent);
    setCamera(gl, this.at, camera);
    gl.drawElements(gl.TRIANGLES, frame.count, gl.UNSIGNED_INT, 0);
  }

  // Surfaces do not fade into each other: the nearer frame is drawn.
  drawMixed(t, next, share, camera) {
    this.draw(share < 0.5 ? t : next, camera);
  }
}

// The arrays of a frame and its texture as an ImageBitmap.
async function unpackMesh(bytes) {
  const [vertices, triangles, side] = new Uint32Array(bytes.buffer, bytes.byteOffset, 3);
  let at = bytes.byteOffset + 12;
  const take = (kind, length) => {
    const array = new kind(bytes.buffer, at, length);
    at += array.byteLength;
    return array;
  };
  const [origin, extent] = [take(Float32Array, 3), take(Float32Array, 3)];
  const faces = take(Uint32Array, 3 * triangles);
  const uv = take(Uint16Array, 2 * vertices);
  const shares = take(Uint16Array, 3 * vertices);
  const picture = new Blob([bytes.subarray(at - bytes.byteOffset)]);
  const texture = await createImageBitmap(picture, { colorSpaceConversion: "none" });
  if (texture.width !== side) throw new Error("a frame's texture is not whole");
  return { origin, extent, faces, uv, shares, texture };
}
