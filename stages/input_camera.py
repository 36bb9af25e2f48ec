"""The input's camera as numbers and as a `Camera`, in the model's grid and in world space.

A camera looks at the origin. Places in the crop are counted in its sides, from its middle, right and down: a point
(x, y, z) of camera space shows at focal (x, y) / z + shift. Angles are in degrees.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ss4d.stages.ops.geometry import FRONT_YAW
from ss4d.stages.types import Camera, InputCamera


@dataclass(frozen=True, kw_only=True)
class View:
    """Yaw from the front and pitch above the horizon, distance in world units, focal length and shift in sides."""

    yaw: float
    pitch: float
    distance: float
    focal: float
    shift: tuple[float, float]

    def camera(self, size: int) -> Camera:
        """As a camera of a square picture of `size` pixels."""
        numbers = (math.radians(self.yaw), math.radians(self.pitch), self.distance, self.focal, self.shift)
        matrix = world_to_camera(*(torch.tensor(number, dtype=torch.float64) for number in numbers))
        return _camera(matrix, self.focal, size)


def rotation(yaw: Tensor, pitch: Tensor) -> Tensor:
    """Rotations (..., 3, 3) to camera space, for radians (...) from the front and above the horizon."""
    around = yaw + math.radians(FRONT_YAW)
    sin_yaw, cos_yaw, sin_pitch, cos_pitch = around.sin(), around.cos(), pitch.sin(), pitch.cos()
    rows = (
        (-cos_yaw, sin_yaw, torch.zeros_like(yaw)),
        (sin_yaw * sin_pitch, cos_yaw * sin_pitch, -cos_pitch),
        (-sin_yaw * cos_pitch, -cos_yaw * cos_pitch, -sin_pitch),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def world_to_camera(yaw: Tensor, pitch: Tensor, distance: Tensor, focal: Tensor, shift: Tensor) -> Tensor:
    """The matrix (4, 4), with gradients; angles in radians.

    It is sheared, so that the principal point lies in the middle of the picture, where a `Camera` has it: to add a
    multiple of z to x before the division moves all pixels alike.
    """
    far = torch.stack([torch.zeros_like(distance), torch.zeros_like(distance), distance])
    view = torch.cat([rotation(yaw, pitch), far[:, None]], dim=1)
    sheared = view[:2] + (shift / focal)[:, None] * view[2:]
    return torch.cat([sheared, view[2:], view.new_tensor([[0.0, 0.0, 0.0, 1.0]])])


def upright_rotation(yaw: float, pitch: float) -> Tensor:
    """The rotation (3, 3), float32, from a grid with the camera's axes to a world where the camera has these angles."""
    front, there = (
        rotation(*(torch.tensor(math.radians(angle), dtype=torch.float64) for angle in angles))
        for angles in ((0.0, 0.0), (yaw, pitch))
    )
    return (there.T @ front).float()


def in_world(camera: InputCamera, size: int) -> Camera:
    """The camera in world space, for a square picture of `size` pixels: where exported files and pictures are."""
    return view_of(camera).camera(size)


def in_grid(camera: InputCamera, size: int) -> Camera:
    """The camera in the model's grid, where voxels and Gaussians are before they are exported."""
    world = torch.tensor(in_world(camera, size).world_to_camera, dtype=torch.float64)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = camera.upright.double()
    return _camera(world @ turn, focal_of(camera), size)


def yaw_in_grid(camera: InputCamera) -> float:
    """Degrees of the camera from the front of the model's grid."""
    backward = -torch.tensor(in_grid(camera, 1).world_to_camera[2][:3], dtype=torch.float64)
    return math.degrees(math.atan2(float(backward[0]), float(backward[1]))) - FRONT_YAW


def view_of(camera: InputCamera) -> View:
    """The camera's numbers."""
    x, y = camera.shift.tolist()
    return View(
        yaw=float(camera.yaw),
        pitch=float(camera.pitch),
        distance=float(camera.distance),
        focal=focal_of(camera),
        shift=(x, y),
    )


def focal_of(camera: InputCamera) -> float:
    """The focal length in sides of the crop."""
    return focal_length(float(camera.fov))


def focal_length(fov: float) -> float:
    """The focal length, in sides, of a picture that spans `fov` degrees."""
    return 0.5 / math.tan(math.radians(fov) / 2)


def opening(focal: float) -> float:
    """The degrees that a picture spans, of a focal length in sides."""
    return math.degrees(2 * math.atan(0.5 / focal))


def _camera(matrix: Tensor, focal: float, size: int) -> Camera:
    rows = tuple((x, y, z, w) for x, y, z, w in matrix.tolist())
    return Camera(world_to_camera=rows, focal=focal * size, width=size, height=size)
