"""Draws what a finished run went through, as one picture: input, mask, voxels and Gaussians, over time.

Usage: python examples/make_overview.py RUN_FOLDER PICTURE.png
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ss4d.pipelines.values import read_value
from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.preview import render_frames
from ss4d.stages.types import Clip, GaussianClip, Voxels
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore

SIZE, COLUMNS, PITCH = 192, 6, 15.0  # pixels, frames shown, degrees
VIEWS = (0.0, 60.0, 180.0)  # degrees from the front
Picture = NDArray[np.uint8]


def voxels_as_gaussians(voxels: Voxels) -> GaussianClip:
    """A soft ball in each voxel, colored by its place."""
    place = (voxels.coords[:, 2:] + 0.5) / voxels.resolution
    count = len(place)
    frames = torch.bincount(voxels.coords[:, 1], minlength=voxels.num_frames).cumsum(0)
    return GaussianClip(
        means=place - 0.5,
        scales=torch.full((count, 3), 0.4 / voxels.resolution),
        quats=torch.tensor([1.0, 0, 0, 0]).expand(count, 4),
        colors=0.25 + 0.65 * place,
        opacities=torch.full((count,), 0.95),
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), frames]),
    )


def row_of(gaussians: GaussianClip, frames: list[int], yaw: float) -> Picture:
    camera = orbit_camera(FRONT_YAW + yaw, PITCH, size=SIZE)
    shots = [(frame, camera) for frame in frames]
    return np.concatenate([image.numpy() for image in render_frames(gaussians, shots, render=rasterize)], axis=1)


def resized(images: list[Picture]) -> Picture:
    return np.concatenate([np.asarray(Image.fromarray(image).resize((SIZE, SIZE))) for image in images], axis=1)


def main(run: Path, picture: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    store = ArtifactStore(run.parent.parent / "store")
    refs = {name: ArtifactRef(name, stage["key"]) for name, stage in record["stages"].items()}
    clip = read_value(Clip, store.open(refs["segmentation"]))
    voxels = read_value(Voxels, store.open(refs["sparse_structure"]))
    gaussians = read_value(GaussianClip, store.open(refs["decoding"]))
    frames = [int(t) for t in np.linspace(0, gaussians.num_frames, COLUMNS, endpoint=False)]
    rows = [
        resized([clip.rgb[t].numpy() for t in frames]),
        resized([clip.alpha[t].numpy()[..., None].repeat(3, axis=2) for t in frames]),
        row_of(voxels_as_gaussians(voxels), frames, VIEWS[0]),
        *(row_of(gaussians, frames, yaw) for yaw in VIEWS),
    ]
    Image.fromarray(np.concatenate(rows)).convert("P", palette=Image.Palette.ADAPTIVE).save(picture, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
