"""Cameras all around one frame of Gaussians, near enough that it fills their pictures."""

import math
from dataclasses import dataclass, replace

import numpy as np

from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.types import Camera, GaussianClip

GOLDEN = 180 * (3 - math.sqrt(5))  # degrees from a direction to the next one, so that no two lie in a row
VISIBLE = 0.1  # opacity of a Gaussian that may be a part of the surface
REACH = 2.0  # standard deviations of it that are surely seen
DISTANCE = 3.0  # of a camera from the middle, in radii of the object
FOV = 2.06 * math.degrees(math.asin(1 / DISTANCE))  # sees a little more than the whole
LEAST_RADIUS = 1e-3  # world units


@dataclass(frozen=True)
class Box:
    """Where a frame's visible Gaussians are: the corners of a box along the axes, world units."""

    least: tuple[float, ...]
    most: tuple[float, ...]

    @property
    def center(self) -> tuple[float, ...]:
        return tuple((a + b) / 2 for a, b in zip(self.least, self.most, strict=True))

    @property
    def radius(self) -> float:
        """Of the sphere around it."""
        return max(math.dist(self.least, self.most) / 2, LEAST_RADIUS)


def box_of(frame: GaussianClip) -> Box | None:
    """The box around a clip of one frame; None if nothing is seen of it."""
    shown = frame.opacities >= VISIBLE
    if not shown.any():
        return None
    means, reach = frame.means[shown], REACH * frame.scales[shown].amax(dim=1, keepdim=True)
    return Box(tuple((means - reach).amin(0).tolist()), tuple((means + reach).amax(0).tolist()))


def cameras_around(box: Box, count: int, size: int) -> list[Camera]:
    """Cameras in directions that are evenly spread over the sphere, which see the whole box.

    Args:
        box: what they look at.
        count: how many.
        size: pixels along each side of their pictures.
    """
    distance = DISTANCE * box.radius
    cameras = []
    for k in range(count):
        yaw, pitch = GOLDEN * k % 360, math.degrees(math.asin(1 - (2 * k + 1) / count))
        cameras.append(_moved(orbit_camera(yaw, pitch, size=size, radius=distance, fov=FOV), box.center))
    return cameras


def _moved(camera: Camera, by: tuple[float, ...]) -> Camera:
    view = np.array(camera.world_to_camera)
    view[:3, 3] -= view[:3, :3] @ by
    return replace(camera, world_to_camera=tuple(map(tuple, view.tolist())))
