"""Rotations as unit quaternions (w, x, y, z), cameras on an orbit, and how the input camera frames its object.

World space is z up and right-handed; camera space is x right, y down, z forward. Every angle is in degrees.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ss4d.stages.types import Camera, GaussianClip, MeshClip

# An asset's front faces -y, the side a glTF file's front (+z) comes to lie on when its y axis is turned up to z.
FRONT_YAW = 180.0
CROP_MARGIN = 1.2  # side of a clip's crop over the longer side of the object's box (docs/model.md, section 2)
ORBIT_RADIUS = 2.0
ORBIT_FOV = 40.0


def quaternion_to_matrix(quats: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4), which need not have unit length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """The unit quaternion (4,) of a rotation matrix (3, 3)."""
    # The largest component is found from the diagonal, the others from it: each column of the outer product of the
    # quaternion with itself is the quaternion, and that of the largest component loses no digits.
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    outer = torch.tensor(
        [
            [1 + a + e + i, h - f, c - g, d - b],
            [h - f, 1 + a - e - i, b + d, c + g],
            [c - g, b + d, 1 - a + e - i, f + h],
            [d - b, c + g, f + h, 1 - a - e + i],
        ],
        dtype=matrix.dtype,
    )
    return torch.nn.functional.normalize(outer[:, int(outer.diagonal().argmax())], dim=0)


def quaternion_product(left: Tensor, right: Tensor) -> Tensor:
    """Hamilton product (..., 4): the rotation by `right`, then by `left`."""
    w1, x1, y1, z1 = left.unbind(-1)
    w2, x2, y2, z2 = right.unbind(-1)
    return torch.stack(
        (
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
        ),
        dim=-1,
    )


def rotate_gaussians(gaussians: GaussianClip, quat: Tensor) -> GaussianClip:
    """The Gaussians turned about the origin by the rotation `quat` (4,), centers and axes alike."""
    # In float64, so that a quarter turn moves coordinates from axis to axis without touching their digits.
    quat = torch.nn.functional.normalize(quat.double(), dim=-1)
    means = (gaussians.means.double() @ quaternion_to_matrix(quat).T).float()
    return replace(gaussians, means=means, quats=quaternion_product(quat, gaussians.quats.double()).float())


def rotate_mesh(mesh: MeshClip, quat: Tensor) -> MeshClip:
    """The mesh turned about the origin by the rotation `quat` (4,)."""
    return replace(mesh, vertices=(mesh.vertices.double() @ quaternion_to_matrix(quat.double()).T).float())


def orbit_camera(
    yaw: float, pitch: float, *, size: int, radius: float = ORBIT_RADIUS, fov: float = ORBIT_FOV
) -> Camera:
    """A square camera that looks at the origin with z up (docs/model.md, section 9).

    Args:
        yaw: degrees from +y toward +x; `FRONT_YAW` sees the front.
        pitch: degrees above the xy plane, -90 to 90.
        size: pixels along each side.
        radius: distance from the origin in world units.
        fov: opening angle across the image, in degrees.
    """
    yaw, pitch = math.radians(yaw), math.radians(pitch)
    sin_yaw, cos_yaw, sin_pitch, cos_pitch = math.sin(yaw), math.cos(yaw), math.sin(pitch), math.cos(pitch)
    # The axes are written out, not built from a cross product with the z axis, which vanishes at the poles.
    return Camera(
        world_to_camera=(
            (-cos_yaw, sin_yaw, 0.0, 0.0),
            (sin_yaw * sin_pitch, cos_yaw * sin_pitch, -cos_pitch, 0.0),
            (-sin_yaw * cos_pitch, -cos_yaw * cos_pitch, -sin_pitch, radius),
            (0.0, 0.0, 0.0, 1.0),
        ),
        focal=size / (2 * math.tan(math.radians(fov) / 2)),
        width=size,
        height=size,
    )
