"""Gaussians as PLY files in the layout of 3D Gaussian Splatting (docs/model.md, section 9).

Files are y down: world (x, y, z) is written as (x, -z, y).
"""

from pathlib import Path

import numpy as np
import torch

from ss4d.stages.export.packing import SH_C0
from ss4d.stages.export.scene import PLY_FROM_WORLD, Scene, write_frames
from ss4d.stages.types import GaussianClip, Progress

PROPERTIES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
# What converters read to tell other formats that the model draws with a filter of 0.1 and opacity compensation: drawn
# with the common filter, its pictures lie 28 dB apart at 128 pixels.
FILTER_COMMENT = "comment SplatRenderMode: mip"
# The file holds logit and logarithm, which have no value at opacity 0 or 1 and at scale 0.
OPACITY_MARGIN = 1e-6
LEAST_SCALE = 1e-9


def write_plys(scene: Scene, folder: Path, *, progress: Progress) -> tuple[str, ...]:
    """Writes `frames/frame0001.ply` and so on: a sequence that viewers of splats play."""
    return write_frames(scene, folder, "frames/frame{:04d}.ply", encode_ply, PLY_FROM_WORLD, progress)


def encode_ply(frame: GaussianClip) -> bytes:
    """One frame, y down already: little-endian float32, normals zero, logit of opacity, ln of scales, (w, x, y, z)."""
    opacities = frame.opacities.double().clamp(OPACITY_MARGIN, 1 - OPACITY_MARGIN)
    columns = (
        frame.means,
        torch.zeros_like(frame.means),
        (frame.colors - 0.5) / SH_C0,
        opacities.logit()[:, None],
        frame.scales.clamp(min=LEAST_SCALE).log(),
        frame.quats,
    )
    rows = torch.cat([column.float() for column in columns], dim=1).numpy().astype(np.dtype("<f4"))
    header = ["ply", "format binary_little_endian 1.0", FILTER_COMMENT, f"element vertex {len(rows)}"]
    header += [f"property float {name}" for name in PROPERTIES]
    return "\n".join([*header, "end_header", ""]).encode("ascii") + rows.tobytes()
