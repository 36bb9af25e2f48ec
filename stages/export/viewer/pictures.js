// Draws frames of the input on a canvas, from pictures that were decoded before.
"use strict";

class PictureRenderer {
  constructor(canvas) {
    Object.assign(this, { canvas, context: canvas.getContext("2d"), frames: [], background: [0, 0, 0, 0] });
  }

  // Takes the ImageBitmap of frame `t`.
  load(t, picture) {
    this.frames[t] = picture;
  }

  loaded(t) {
    return this.frames[t] !== undefined;
  }

  // Forgets frame `t`.
  unload(t) {
    this.frames[t].close();
    delete this.frames[t];
  }

  // Draws frame `t` over `background`, RGBA multiplied by alpha.
  draw(t) {
    this.drawMixed(t, t, 0);
  }

  // Draws a mixture of two pictures: frame `t`, and a share of frame `next`.
  drawMixed(t, next, share) {
    const { canvas, context } = this;
    const side = Math.min(canvas.width, canvas.height);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.globalCompositeOperation = "lighter"; // shares add up
    for (const [frame, weight] of [[t, 1 - share], [next, share]]) {
      context.globalAlpha = weight;
      context.drawImage(this.frames[frame], (canvas.width - side) / 2, (canvas.height - side) / 2, side, side);
    }
    const [red, green, blue, alpha] = this.background;
    context.globalCompositeOperation = "destination-over";
    context.globalAlpha = alpha;
    context.fillStyle = `rgb(${[red, green, blue].map((part) => 255 * part).join(" ")})`;
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
}

// A picture in one of the formats that browsers read.
function decodedPicture(bytes) {
  return createImageBitmap(new Blob([bytes]));
}
