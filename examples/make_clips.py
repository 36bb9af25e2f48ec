"""Draw the bundled example clips: a bird that flies on the spot, 32 frames.

`python -m examples.make_clips [FOLDER]` writes `bird.mp4`, a plain video before a wall and a table, and
`bird_alpha.webm`, the bird alone with alpha. The bird is one of the procedural objects, of a seed that nothing trains
on: of the kind that the bundled model knows, and new to it.

Images are (row, column, channel), colors 0 to 1.
"""

import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ss4d.stages.data.clip import HELD_OUT_SEED, ClipSpec, make_clip
from ss4d.stages.data.objects import FPS
from ss4d.stages.video_io import write_video

Array = NDArray[Any]  # float32 where there are many

NUM_FRAMES, SIZE = 32, 384
BIRD = ClipSpec(
    seed=HELD_OUT_SEED + 5003,
    family="bird",
    num_frames=NUM_FRAMES,
    input_size=SIZE,
    num_views=1,
    view_size=8,  # pixels; the bird is filmed by the input camera alone
    resolution=8,
)


def draw_birds() -> Array:
    """The bird alone (frames, size, size, 4): straight color and alpha."""
    drawn: Array = make_clip(BIRD).frames.numpy().astype(np.float32) / 255
    return drawn


# --- the scene behind it --------------------------------------------------------------------------------------------


def draw_background() -> Array:
    """A dotted wall above a wooden table, both with grain: (size, size, 3)."""
    grain = np.random.default_rng(7).standard_normal((3, SIZE, SIZE)).astype(np.float32)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE
    wall = np.array((0.66, 0.62, 0.68), np.float32) * (1.04 - 0.25 * ((x - 0.4) ** 2 + (y - 0.3) ** 2))[..., None]
    cell_x, cell_y = (x * 9 + 0.5 * (np.floor(y * 9) % 2)) % 1 - 0.5, (y * 9) % 1 - 0.5
    dots = np.clip((0.17 - np.hypot(cell_x, cell_y)) * 16, 0, 1)[..., None]
    wall = wall * (1 - 0.5 * dots) + 0.5 * dots * np.array((0.80, 0.74, 0.72), np.float32)
    wall += 0.3 * cv2.GaussianBlur(grain[0], (0, 0), 6)[..., None]
    wall += 0.012 * cv2.GaussianBlur(grain[1], (0, 0), 0.8)[..., None]
    depth = np.clip((y - 0.8) / 0.2, 0, 1)
    rings = np.sin(60 * (y - 0.8) / (0.4 + depth) + 50 * cv2.GaussianBlur(grain[2], (0, 0), sigmaX=30, sigmaY=4))
    wood = np.array((0.50, 0.35, 0.24), np.float32) * (1 + 0.10 * rings + 0.18 * depth)[..., None]
    edge = np.clip((y - 0.8) * SIZE / 1.5 + 0.5, 0, 1)[..., None]
    drawn: Array = np.clip(wall * (1 - edge) + wood * edge, 0, 1)
    return drawn


def with_shadow(background: Array, bird_frame: Array) -> Array:
    """The background with the bird's soft shadow on the table."""
    columns = bird_frame[..., 3].max(axis=0)
    center = float((columns * np.arange(SIZE)).sum() / columns.sum()) / SIZE
    height = float(np.flatnonzero(bird_frame[..., 3].max(axis=1)).max()) / SIZE
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE
    spread = 1.25 - 0.5 * height
    falloff = ((x - center - 0.03) / (0.17 * spread)) ** 2 + ((y - 0.91) / (0.035 * spread)) ** 2
    darkness = 0.45 * np.exp(-falloff)
    drawn: Array = background * (1 - np.where(y > 0.8, darkness, 0))[..., None]
    return drawn


# --- files ----------------------------------------------------------------------------------------------------------


def to_bytes(image: Array) -> NDArray[np.uint8]:
    """Colors 0 to 1 as 0 to 255."""
    return np.round(image * 255).astype(np.uint8)


def draw_scenes(birds: Array) -> Array:
    """The bird's frames before the wall and the table: (frames, size, size, 3)."""
    background = draw_background()
    alpha = birds[..., 3:]
    behind = np.stack([with_shadow(background, bird) for bird in birds])
    drawn: Array = birds[..., :3] * alpha + behind * (1 - alpha)
    return drawn


def write_with_alpha(path: Path, frames: Iterable[NDArray[np.uint8]]) -> None:
    """Writes RGBA frames as VP9 with an alpha layer, which browsers play too."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=Fraction(FPS), options={"crf": "24", "b": "0"})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuva420p"
        for image in frames:
            picture = av.VideoFrame.from_ndarray(image, format="rgba")
            container.mux(stream.encode(picture.reformat(format="yuva420p")))
        container.mux(stream.encode())


def main(folder: Path) -> None:
    """Writes both clips."""
    folder.mkdir(parents=True, exist_ok=True)
    birds = draw_birds()
    write_video(folder / "bird.mp4", torch.from_numpy(to_bytes(draw_scenes(birds))), FPS)
    write_with_alpha(folder / "bird_alpha.webm", (to_bytes(bird) for bird in birds))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "clips")
