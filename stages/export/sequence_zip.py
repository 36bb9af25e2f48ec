"""An asset as one small file, `asset.4d.zip`: SPZ frames, and a `scene.json` that says all else."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ss4d.stages.export.cameras import camera_document
from ss4d.stages.export.scene import GL_FROM_WORLD, Scene
from ss4d.stages.export.spz import encode_spz
from ss4d.stages.ops.geometry import quaternion_to_matrix
from ss4d.stages.ops.rasterize import MIP_SPLATTING
from ss4d.stages.types import GaussianClip, Progress

NAME = "asset.4d.zip"
SCHEMA = 1
DESCRIPTION = "scene.json"
CONVENTION = {
    "axes": "right-handed, x to the right, y up, z toward a viewer of the front; what the SPZ files are in",
    "spz_from_world": "point in an SPZ file = spz_from_world @ world point, as cameras have it",
    "bounds": "of the centers of all Gaussians of all frames, in the axes of the SPZ files",
    "time": "seconds from the start at which a frame begins to be shown; the last one stays as long as the others",
    "filter": "variance in square pixels is added to a Gaussian's picture; compensate: opacity shrinks as it grows",
}


def write_sequence_zip(scene: Scene, folder: Path, *, progress: Progress) -> tuple[str, ...]:
    """Writes the file. Nothing in it is compressed but the SPZ frames, which are already."""
    frames, bounds = [], _Bounds()
    with zipfile.ZipFile(folder / NAME, "w", zipfile.ZIP_STORED) as archive:
        for t, frame in enumerate(scene.frames(GL_FROM_WORLD)):
            data, name = encode_spz(frame), f"frames/frame{t + 1:04d}.spz"
            archive.writestr(zipfile.ZipInfo(name), data)  # of the date 1980: the same asset is the same bytes
            frames.append({"file": name, "time": t / scene.fps, "gaussians": len(frame.means), "bytes": len(data)})
            bounds.add(frame)
            progress(t + 1, scene.num_frames)
        text = json.dumps(_description(scene, frames, bounds), indent=1) + "\n"
        archive.writestr(zipfile.ZipInfo(DESCRIPTION), text, zipfile.ZIP_DEFLATED)
    return (NAME,)


class _Bounds:
    """Least and largest coordinates of all points added; None of none."""

    def __init__(self) -> None:
        self.ends: tuple[torch.Tensor, torch.Tensor] | None = None

    def add(self, frame: GaussianClip) -> None:
        if len(frame.means):
            low, high = frame.means.amin(0), frame.means.amax(0)
            self.ends = (low, high) if self.ends is None else (low.minimum(self.ends[0]), high.maximum(self.ends[1]))


def _description(scene: Scene, frames: Sequence[dict[str, Any]], bounds: _Bounds) -> dict[str, Any]:
    ends = bounds.ends
    return {
        "schema": SCHEMA,
        "convention": CONVENTION,
        "fps": scene.fps,
        "seconds": scene.num_frames / scene.fps,
        "frames": list(frames),
        "bounds": None if ends is None else {"min": ends[0].tolist(), "max": ends[1].tolist()},
        "spz_from_world": quaternion_to_matrix(GL_FROM_WORLD).round(decimals=12).tolist(),
        "filter": {"name": "mip", "variance": MIP_SPLATTING.variance, "compensate": MIP_SPLATTING.compensate},
        "cameras": camera_document(scene.turntable, scene.camera),
    }
