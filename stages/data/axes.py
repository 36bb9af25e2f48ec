"""How a clip's object lies in its grid: with the world's axes, or as the input camera sees it, so that this is known.

In the world's axes, those turned by the camera's yaw, and the camera's, the object fills the grid. In those of the
crop, the input's crop decides place and size, too. The ray through the crop's middle is the way into the depth and
meets the cube's middle in the middle of the object's depth, and there a side of the cube is as wide as the crop: but
for perspective, a row of cells into the depth is what shows in one cell of the crop, and no view has to be guessed. An
object that would leave the cube, which is rare, is made smaller.

Axes: t frame, v vertex; world space is z up.
"""

import math
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from ss4d.stages.data.mesh import AnimatedMesh, Doubles, fit, least_reach
from ss4d.stages.data.render import Window
from ss4d.stages.errors import InputError
from ss4d.stages.types import Axes, Camera


@dataclass(frozen=True, eq=False)
class Placement:
    """How an object lies in the grid: point p of the world is at (rotation @ p - center) / reach.

    Attributes:
        rotation: (3, 3), the world's directions to the grid's.
        center: (3), after the rotation.
        reach: world units for one of the grid.
    """

    rotation: Doubles
    center: Doubles
    reach: float

    def place(self, mesh: AnimatedMesh) -> AnimatedMesh:
        """The object as it lies in the grid."""
        points = (mesh.vertices.astype(np.float64) @ self.rotation.T - self.center) / self.reach
        normals = mesh.stored_normals
        if normals is not None:
            normals = np.ascontiguousarray(normals @ self.rotation.T, np.float32)
        return replace(mesh, vertices=points.astype(np.float32), stored_normals=normals)

    def see(self, camera: Camera) -> Camera:
        """The camera that shows in the grid what `camera` shows in the world, pixel for pixel."""
        view = np.array(camera.world_to_camera, np.float64)
        turned = view[:3, :3] @ self.rotation.T
        # All lengths shrink alike, so no direction changes.
        shift = (turned @ self.center + view[:3, 3]) / self.reach
        rows = ((float(x), float(y), float(z), float(w)) for (x, y, z), w in zip(turned, shift, strict=True))
        return replace(camera, world_to_camera=(*rows, (0.0, 0.0, 0.0, 1.0)))


def placement(axes: Axes, mesh: AnimatedMesh, camera: Camera, window: Window) -> Placement:
    """How `mesh`, seen by the input `camera` and cropped to `window`, lies in a grid with these axes.

    Raises:
        InputError: if there are no such axes.
    """
    if axes not in get_args(Axes):
        raise InputError(f"axes must be one of {', '.join(get_args(Axes))}; got {axes!r}")
    if axes == "world":
        return Placement(np.eye(3), np.zeros(3), 1.0)
    view = np.array(camera.world_to_camera, np.float64)
    solid = mesh.solid().vertices.astype(np.float64)
    if axes != "crop":
        right, down, ahead = view[:3, :3]
        if axes == "yaw":
            down = np.array([0.0, 0.0, -1.0])
            ahead = np.cross(right, down)
        rotation: Doubles = np.stack([right, ahead, -down])
        return Placement(rotation, *fit(solid @ rotation.T))
    x = (window.left + (window.side - camera.width) / 2) / camera.focal
    y = (window.top + (window.side - camera.height) / 2) / camera.focal
    rotation = _along(np.array([x, y, 1.0])) @ view[:3, :3]
    points = solid @ rotation.T
    eye = -rotation @ view[:3, :3].T @ view[:3, 3]
    depths = points[..., 1] - eye[1]
    depth = float(depths.min() + depths.max()) / 2
    middle = eye + np.array([0.0, depth, 0.0])
    wide = window.side / camera.focal * depth / math.hypot(x, y, 1.0)
    return Placement(rotation, middle, max(wide, least_reach(points, middle)))


def _along(ray: Doubles) -> Doubles:
    """The rotation (3, 3) from a camera's directions, right, down and ahead, to right, along the `ray`, and up."""
    ahead = ray / np.linalg.norm(ray)
    right = np.array([1.0, 0.0, 0.0]) - ahead[0] * ahead
    right /= np.linalg.norm(right)
    return np.stack([right, ahead, np.cross(right, ahead)])
