"""Draws finished runs as one moving picture: each run's input beside its turntable.

Usage: python examples/make_moving_picture.py RUN_FOLDER ... PICTURE.webp
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ss4d.pipelines.inspect.opened import open_run
from ss4d.stages.input_files import InputConfig
from ss4d.stages.types import Clip
from ss4d.stages.video_io import read_video

SIZE, MILLISECONDS, QUALITY = 208, 83, 60  # pixels of a side, of a frame, of 100
Picture = NDArray[np.uint8]


def resized(image: Picture) -> Picture:
    return np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def row_of(run: Path) -> list[Picture]:
    """A frame of the input over white beside each frame of the turntable, which shows the clip over and over."""
    clip = open_run(run)["segmentation"].value()
    assert isinstance(clip, Clip)
    turntable = read_video(run / "turntable.mp4", InputConfig()).frames[..., :3].numpy()
    seen = np.minimum(clip.rgb.numpy().astype(np.uint16) + 255 - clip.alpha.numpy()[..., None], 255).astype(np.uint8)
    return [np.concatenate([resized(seen[t % len(seen)]), resized(image)], axis=1) for t, image in enumerate(turntable)]


def main(runs: Sequence[Path], picture: Path) -> None:
    rows = [row_of(run) for run in runs]
    count = max(len(row) for row in rows)
    frames = [np.concatenate([row[t % len(row)] for row in rows], axis=1) for t in range(count)]
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(picture, save_all=True, append_images=others, duration=MILLISECONDS, loop=0, quality=QUALITY, method=6)


if __name__ == "__main__":
    main([Path(run) for run in sys.argv[1:-1]], Path(sys.argv[-1]))
