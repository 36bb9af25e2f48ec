"""Gaussians as PLY files in the layout of 3D Gaussian Splatting (docs/model.md, section 9).

Files are y down: world (x, y, z) is written as (x, -z, y).
"""

import math
from pathlib import Path

import numpy as np
import torch

from ss4d.stages.ops.geometry import rotate_gaussians
from ss4d.stages.types import GaussianClip

SH_C0 = 0.28209479177387814  # the constant spherical harmonic: color = 0.5 + SH_C0 f_dc
PROPERTIES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
# A quarter turn about x: up (z) becomes -y, and the front (-y) comes to face -z, toward a viewer's default camera.
PLY_FROM_WORLD = torch.tensor([math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0], dtype=torch.float64)
# The file holds logit and logarithm, which have no value at opacity 0 or 1 and at scale 0.
OPACITY_MARGIN = 1e-6
LEAST_SCALE = 1e-9


def write_ply(path: Path, gaussians: GaussianClip) -> None:
    """Writes one frame: little-endian float32, normals zero, opacity as logit, scales as ln, rotation (w, x, y, z)."""
    turned = rotate_gaussians(gaussians, PLY_FROM_WORLD)
    opacities = turned.opacities.double().clamp(OPACITY_MARGIN, 1 - OPACITY_MARGIN)
    columns = (
        turned.means,
        torch.zeros_like(turned.means),
        (turned.colors - 0.5) / SH_C0,
        opacities.logit()[:, None],
        turned.scales.clamp(min=LEAST_SCALE).log(),
        turned.quats,
    )
    rows = torch.cat([column.float() for column in columns], dim=1).numpy().astype(np.dtype("<f4"))
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property float {name}" for name in PROPERTIES]
    path.write_bytes("\n".join([*header, "end_header", ""]).encode("ascii") + rows.tobytes())
