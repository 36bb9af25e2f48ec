// The frames of the page's layers: read ahead of the time shown, one after the other, in bounded memory.
"use strict";

class Frames {
  // `layers`: name, renderer and what unpacks a frame's bytes. `kept`: frames that are kept at once. `bytes`: gives those
  // of a frame, by the layer's name and the frame. `changed` is called after each frame, `failed` with what went wrong.
  constructor(layers, { count, kept, bytes, changed, failed }) {
    Object.assign(this, { layers, count, kept, bytes, changed, failed, now: 0, reading: false });
  }

  loaded(t) {
    return this.layers.every(({ renderer }) => renderer.loaded(t));
  }

  // The frames that are wanted when `now` is shown, those that come next first; the clip is a loop.
  wanted() {
    return Array.from({ length: Math.min(this.kept, this.count) }, (_, steps) => (this.now + steps) % this.count);
  }

  // Reads what is missing around frame `now`, and forgets the others.
  async readAhead(now) {
    this.now = now;
    if (this.reading) return;
    this.reading = true;
    try {
      for (;;) {
        const t = this.wanted().find((frame) => !this.loaded(frame));
        if (t === undefined) break;
        const read = await Promise.all(
          this.layers.map(async ({ name, unpack }) => unpack(await this.bytes(name, t))),
        );
        this.forget();
        this.layers.forEach(({ renderer }, k) => renderer.loaded(t) || renderer.load(t, read[k]));
        this.changed();
      }
      this.failed("");
    } catch (error) {
      this.failed(error.message);
    } finally {
      this.reading = false;
    }
  }

  forget() {
    const wanted = this.wanted();
    for (const { renderer } of this.layers) {
      for (const frame of Object.keys(renderer.frames).map(Number)) {
        if (!wanted.includes(frame)) renderer.unload(frame);
      }
    }
  }
}
