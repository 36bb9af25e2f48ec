"""Pictures of an asset with alpha: its colors, how far away it is, and which way its surface faces.

All are drawn by the one rasterizer: depth is what it gives where the colors are distances, normals follow from depth.
A picture is (h, w, 4) float32, straight colors and alpha, 0 to 1.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ss4d.stages.ops.rasterize import Rasterize
from ss4d.stages.rendering.paths import CameraPath
from ss4d.stages.types import Camera, GaussianClip

Kind = Literal["color", "depth", "normals"]
FAINT = 1e-4  # alpha below which there is nothing to divide by
NEAREST, FARTHEST = 1.0, 0.1  # gray of the least and the largest depth of the film


def pictures(gaussians: GaussianClip, path: CameraPath, kind: Kind, render: Rasterize) -> Iterator[Tensor]:
    """A picture for each shot of a path, drawn when asked for."""
    near, far = depth_range(gaussians, path) if kind == "depth" else (0.0, 1.0)
    for t, camera in path.shots:
        frame = gaussians.frame(t)
        if kind == "color":
            yield _colors(frame, camera, render)
        elif kind == "depth":
            yield _depths(frame, camera, render, near, far)
        else:
            yield _normals(frame, camera, render)


def depth_range(gaussians: GaussianClip, path: CameraPath) -> tuple[float, float]:
    """The least and the largest distance of a center in front of a camera, over the whole film; world units."""
    ends: list[float] = []
    for t, camera in path.shots:
        depths = _distances(gaussians.frame(t), camera)
        depths = depths[depths > 0]
        ends += [float(depths.min()), float(depths.max())] if len(depths) else []
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _distances(frame: GaussianClip, camera: Camera) -> Tensor:
    away = torch.tensor(camera.world_to_camera[2])
    return frame.means @ away[:3] + away[3]


def _colors(frame: GaussianClip, camera: Camera, render: Rasterize) -> Tensor:
    rgb, alpha = (part.cpu() for part in render(frame, camera))
    straight = rgb / alpha.clamp(min=FAINT)[..., None]
    return torch.cat([straight.clamp(0, 1), alpha[..., None]], dim=-1)


def _depth(frame: GaussianClip, camera: Camera, render: Rasterize) -> tuple[Tensor, Tensor]:
    """Mean distance (h, w) of what is seen, world units, and alpha (h, w)."""
    painted = replace(frame, colors=_distances(frame, camera)[:, None].expand(-1, 3).contiguous())
    rgb, alpha = (part.cpu() for part in render(painted, camera))
    return rgb[..., 0] / alpha.clamp(min=FAINT), alpha


def _depths(frame: GaussianClip, camera: Camera, render: Rasterize, near: float, far: float) -> Tensor:
    depth, alpha = _depth(frame, camera, render)
    share = ((depth - near) / max(far - near, 1e-6)).clamp(0, 1)
    gray = NEAREST + (FARTHEST - NEAREST) * share
    return torch.cat([gray[..., None].expand(-1, -1, 3), alpha[..., None]], dim=-1)


def _normals(frame: GaussianClip, camera: Camera, render: Rasterize) -> Tensor:
    """Red: right, green: up, blue: toward the camera; a half is none of either."""
    depth, alpha = _depth(frame, camera, render)
    x = (torch.arange(camera.width) + 0.5 - camera.width / 2) / camera.focal
    y = (torch.arange(camera.height) + 0.5 - camera.height / 2) / camera.focal
    points = torch.stack([x * depth, y[:, None] * depth, depth], dim=-1)  # in camera space: right, down, away
    across, below = torch.gradient(points, dim=(1, 0))
    facing = torch.nn.functional.normalize(torch.linalg.cross(below, across), dim=-1)
    facing = facing * torch.where(facing[..., 2:] > 0, -1.0, 1.0)  # what is seen faces the camera
    axes = facing * torch.tensor([1.0, -1.0, -1.0])
    return torch.cat([(axes + 1) / 2, alpha[..., None]], dim=-1)
