"""Draws what a finished run went through, as one picture: input, mask, voxels, Gaussians and these fitted, over time.

Usage: python examples/make_overview.py RUN_FOLDER PICTURE.png
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ss4d.pipelines.inspect.camera_pictures import as_gaussians
from ss4d.pipelines.inspect.opened import open_run
from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.preview import render_frames
from ss4d.stages.types import Clip, GaussianClip, Voxels

SIZE, LABEL, FONT = 160, 110, 16  # pixels: of a picture's side, of the labels' width, of their letters' height
COLUMNS, PITCH, FOV = 6, 15.0, 32.0  # frames shown; degrees, as is the next
VIEWS = {"fitted": 0.0, "60° aside": 60.0, "behind": 180.0}  # degrees from the front
Picture = NDArray[np.uint8]


def row_of(gaussians: GaussianClip, frames: list[int], yaw: float) -> Picture:
    camera = orbit_camera(FRONT_YAW + yaw, PITCH, fov=FOV, size=SIZE)
    shots = [(frame, camera) for frame in frames]
    return np.concatenate([image.numpy() for image in render_frames(gaussians, shots, render=rasterize)], axis=1)


def resized(images: list[Picture]) -> Picture:
    size = (SIZE, SIZE)
    scaled = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)) for image in images]
    return np.concatenate(scaled, axis=1)


def labeled(label: str, row: Picture) -> Picture:
    picture = Image.new("RGB", (LABEL, SIZE), "white")
    font = ImageFont.load_default(FONT)
    ImageDraw.Draw(picture).text((8, SIZE // 2), label, fill="black", font=font, anchor="lm")
    return np.concatenate([np.asarray(picture), row], axis=1)


def over_white(clip: Clip, t: int) -> Picture:
    light: Picture = 255 - clip.alpha[t].numpy()[..., None]
    whole: Picture = np.minimum(clip.rgb[t].numpy().astype(np.uint16) + light, 255).astype(np.uint8)
    return whole


def main(run: Path, picture: Path) -> None:
    stages = open_run(run)
    clip, voxels = stages["segmentation"].value(), stages["structure_fit"].value()
    decoded, fitted = stages["decoding"].value(), stages["appearance_fit"].value()
    assert isinstance(clip, Clip)
    assert isinstance(voxels, Voxels)
    assert isinstance(decoded, GaussianClip)
    assert isinstance(fitted, GaussianClip)
    frames = [int(t) for t in np.linspace(0, fitted.num_frames, COLUMNS, endpoint=False)]
    rows = {
        "input": resized([over_white(clip, t) for t in frames]),
        "mask": resized([clip.alpha[t].numpy()[..., None].repeat(3, axis=2) for t in frames]),
        "voxels": row_of(as_gaussians(voxels), frames, 0.0),
        "Gaussians": row_of(decoded, frames, 0.0),
        **{label: row_of(fitted, frames, yaw) for label, yaw in VIEWS.items()},
    }
    whole = np.concatenate([labeled(label, row) for label, row in rows.items()])
    Image.fromarray(whole).convert("P", palette=Image.Palette.ADAPTIVE).save(picture, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
