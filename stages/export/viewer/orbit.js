// A camera on an orbit, moved by pointers, touch and keys. World space is z up; angles are in degrees.
"use strict";

const CLOSEST = 0.3;
const FARTHEST = 12;

class Orbit {
  // `start`: yaw, pitch, radius, fov, perhaps shift. `changed` is called after each change. `keys`: more keys and what
  // they do.
  constructor(canvas, start, changed, keys = {}) {
    Object.assign(this, { canvas, start, changed });
    this.camera = { ...start, target: [0, 0, 0] };
    this.keys = {
      ArrowLeft: () => this.turn(-5, 0),
      ArrowRight: () => this.turn(5, 0),
      ArrowUp: () => this.turn(0, 5),
      ArrowDown: () => this.turn(0, -5),
      "+": () => this.zoom(0.9),
      "-": () => this.zoom(1 / 0.9),
      0: () => this.reset(),
      ...keys,
    };
    this.listen(canvas);
    this.watch(canvas);
    this.watchScreen();
  }

  // Turns with what is done on a canvas.
  listen(canvas) {
    this.listenToPointers(canvas);
    canvas.addEventListener("keydown", (event) => this.press(event));
  }

  turn(yaw, pitch) {
    this.camera.yaw = (this.camera.yaw + yaw + 360) % 360;
    this.camera.pitch = Math.min(89, Math.max(-89, this.camera.pitch + pitch));
    this.changed();
  }

  zoom(factor) {
    this.camera.radius = Math.min(FARTHEST, Math.max(CLOSEST, this.camera.radius * factor));
    this.changed();
  }

  // Moves the picture by pixels of the page, right and down.
  pan(right, down) {
    const { radius, fov } = this.camera;
    const side = Math.min(this.canvas.clientWidth, this.canvas.clientHeight);
    const unit = (2 * radius * Math.tan((fov * Math.PI) / 360)) / Math.max(side, 1);
    const [across, below] = orbitRows(this.camera);
    this.camera.target = this.camera.target.map((v, k) => {
      return Math.min(1, Math.max(-1, v - unit * (right * across[k] + down * below[k])));
    });
    this.changed();
  }

  reset() {
    this.look(this.start);
  }

  // Looks as `camera` does, at the middle.
  look(camera) {
    Object.assign(this.camera, camera, { target: [0, 0, 0] });
    this.changed();
  }

  listenToPointers(canvas) {
    const pointers = new Map();
    const middle = () => {
      const all = [...pointers.values()];
      return ["x", "y"].map((axis) => all.reduce((sum, point) => sum + point[axis], 0) / all.length);
    };
    const gap = () => {
      const [a, b] = [...pointers.values()];
      return Math.hypot(a.x - b.x, a.y - b.y);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!pointers.has(event.pointerId)) return;
      const two = pointers.size === 2;
      const [before, wide] = [middle(), two ? gap() : 0];
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      const [right, down] = middle().map((v, k) => v - before[k]);
      if (two) this.zoom(wide / Math.max(gap(), 1));
      if (two || event.shiftKey || event.buttons === 2) this.pan(right, down);
      else if (pointers.size === 1) this.turn(right * 0.4, down * 0.4);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
    }
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(event.deltaY * 0.001));
    }, { passive: false });
  }

  press(event) {
    if (!(event.key in this.keys) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.keys[event.key]();
  }

  // Draws anew when a canvas has another size.
  watch(canvas) {
    new ResizeObserver(() => this.changed()).observe(canvas);
  }

  // Draws anew on a finer or coarser screen: what is drawn keeps its size there, so that no observer hears of it.
  watchScreen() {
    const screen = window.matchMedia(`(resolution: ${window.devicePixelRatio || 1}dppx)`);
    screen.addEventListener("change", () => {
      this.changed();
      this.watchScreen();
    }, { once: true });
  }
}

// Gives a canvas as many pixels as it covers on the screen. Called before each drawing: browsers do not tell of every
// change of the screen.
function fitToScreen(canvas) {
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.max(1, Math.round(side * scale)));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
}
