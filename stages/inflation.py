"""Inflate the silhouette of each frame to a solid and paint it from the image: a 4D object without any learning.

Images are (row, column) on a grid over the crop; depth points toward the viewer. The view is taken as orthographic and
from the front (`FRONT_YAW`): the crop spans `CROP_MARGIN` world units, so that the object fills [-0.5, 0.5] in width or
height.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ss4d.stages.inflation_config import InflationConfig
from ss4d.stages.ops.compiled import kernel
from ss4d.stages.ops.geometry import CROP_MARGIN, FRONT_YAW, orbit_camera
from ss4d.stages.types import Clip, GaussianClip, Progress, silent

PERSISTENCE = np.float32(2)  # pull of a cell on the same cell in the next frame, over that on its neighbor
OVERSHOOT = np.float32(1.92)  # of the solver: best for parts some 60 cells wide
TOLERANCE = np.float32(1e-4)  # change of u in a sweep, over the largest u, at which it is solved
MAX_SWEEPS = 1000
SPREAD, FLATNESS = 0.7, 0.25  # a Gaussian's deviation along the surface and through it, in cells
OPACITY = 0.98
SURE = 0.98  # alpha above which a cell's color is the object's alone

Floats = NDArray[np.float32]


def inflate(config: InflationConfig, clip: Clip, *, progress: Progress = silent) -> GaussianClip:
    """A solid for every frame, as thick as it is wide, equal in front and behind; a frame without object has none.

    Half the thickness at a point is `depth` sqrt(u), where laplace(u) = -4 inside the mask and u = 0 on its edge: that
    makes a ball of a disc and a rounded tube of a limb. Frames are coupled where the mask covers both, so the thickness
    changes no faster than the silhouette does.

    Args:
        config: thickness and fineness.
        clip: the object, cropped as in docs/model.md, section 2.
        progress: told after every frame.
    """
    alpha, rgb = _on_grid(clip, config.resolution)
    squares = squared_thickness(alpha > 0.5)
    frames = []
    for t, (frame_rgb, frame_alpha, square) in enumerate(zip(rgb, alpha, squares, strict=True)):
        points, normals, cells = surface(square, config.depth)
        colors = _spread_colors(frame_rgb, frame_alpha)[cells[:, 0], cells[:, 1]]
        frames.append((points, normals, colors))
        progress(t + 1, len(alpha))
    return _gaussians(frames, CROP_MARGIN / config.resolution, config.resolution)


def squared_thickness(masks: NDArray[np.bool_]) -> Floats:
    """Solve laplace(u) = -4 in each mask (t, h, w), u = 0 on its edge, which runs half way between cells.

    Returns:
        u (t, h, w) float32 in cells^2, positive inside; the cells around the mask hold minus the mean of their
        neighbors inside, as if u went on smoothly through the edge, and all others -1.
    """
    u = np.zeros(masks.shape, np.float32)
    _relax(masks, u)
    inside = torch.from_numpy(masks)[:, None].float()
    pooled = functional.avg_pool2d(torch.cat((torch.from_numpy(u)[:, None], inside), dim=1), 3, stride=1, padding=1)
    beyond = torch.where(pooled[:, 1] > 0, -pooled[:, 0] / pooled[:, 1].clamp(min=1e-6), -1.0)
    solved: Floats = np.where(masks, u, beyond.numpy())
    return solved


def surface(square: Floats, depth: float) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Evenly spread points on the solid |d| <= depth sqrt(u) above and below a grid of cells.

    Args:
        square: u (h, w) as from `squared_thickness`.
        depth: thickness over width.

    Returns:
        points (n, 3): row, column and depth d in cells, pixel centers at half integers; unit normals (n, 3), outward;
        the cell (n, 2) over or under which each point lies. The first half is in front, the second its mirror image.
    """
    rows, columns = np.nonzero(square > 0)
    if not len(rows):
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), np.zeros((0, 2), np.int64)
    padded = np.pad(square, 1, constant_values=-1)  # the object may touch the grid's border
    u = padded[rows.min() : rows.max() + 3, columns.min() : columns.max() + 3]
    least = np.float32((0.75 / depth) ** 2)  # no part so thin that it falls between the cells
    u = np.where((u > 0) & (u < least), least, u)
    levels = np.arange(int(depth * np.sqrt(u.max())) + 2, dtype=np.float32) + np.float32(0.5)
    value = u - (levels[:, None, None] / np.float32(depth)) ** 2
    level, row, column = _outermost(value > 0)
    slope = np.stack(
        (
            (u[row + 1, column] - u[row - 1, column]) / 2,
            (u[row, column + 1] - u[row, column - 1]) / 2,
            -2 * levels[level] / np.float32(depth**2),
        ),
        axis=1,
    )
    length = np.linalg.norm(slope, axis=1, keepdims=True)
    normals = -slope / length
    cells = np.stack((row + rows.min() - 1, column + columns.min() - 1), axis=1)
    centers = np.concatenate((cells.astype(np.float32) + np.float32(0.5), levels[level][:, None]), axis=1)
    # A Newton step brings a cell's center onto the surface, which is about a cell away at most.
    points = centers + normals * np.minimum(value[level, row, column][:, None] / length, np.float32(1))
    mirror = np.array([1, 1, -1], np.float32)
    return (
        np.concatenate((points, points * mirror)),
        np.concatenate((normals, normals * mirror)),
        np.concatenate((cells, cells)),
    )


def _outermost(solid: NDArray[np.bool_]) -> tuple[NDArray[np.int64], ...]:
    """Level, row and column of the cells of `solid` (levels, h, w) with an empty cell beside them.

    The last level and the border of the others are empty; behind the first level lies its own mirror image.
    """
    inner = solid[:-1, 1:-1, 1:-1]
    deep = solid[1:, 1:-1, 1:-1] & solid[:-1, 2:, 1:-1] & solid[:-1, :-2, 1:-1]
    deep &= solid[:-1, 1:-1, 2:] & solid[:-1, 1:-1, :-2]
    level, row, column = np.nonzero(inner & ~deep)
    return level, row + 1, column + 1


def facing(normals: Tensor) -> Tensor:
    """Rotations (n, 4) as (w, x, y, z) that turn the z axis to unit `normals` (n, 3)."""
    x, y, z = normals.unbind(1)
    quats = torch.stack((1 + z, -y, x, torch.zeros_like(x)), dim=1)
    half_turn = quats.new_tensor([0.0, 1.0, 0.0, 0.0])  # straight down any axis in the xy plane will do
    return functional.normalize(torch.where(z[:, None] < -0.99999, half_turn, quats), dim=1)


def _on_grid(clip: Clip, resolution: int) -> tuple[Floats, Floats]:
    """Alpha (t, r, r) and RGB times alpha (t, r, r, 3), 0 to 1, as means over the grid's cells."""
    layers = torch.cat((clip.rgb, clip.alpha[..., None]), dim=-1).numpy()
    method = cv2.INTER_AREA if layers.shape[1] > resolution else cv2.INTER_LINEAR
    small = np.stack([cv2.resize(frame, (resolution, resolution), interpolation=method) for frame in layers])
    scaled: Floats = small.astype(np.float32) / np.float32(255)
    return scaled[..., 3], scaled[..., :3]


def _spread_colors(rgb: Floats, alpha: Floats) -> Floats:
    """The object's colors (r, r, 3) from premultiplied ones; cells on the edge take theirs from the cells within."""
    sure = np.where(alpha > SURE, 1, 0.01 * alpha**4).astype(np.float32)[..., None]
    colors = rgb / np.maximum(alpha, 1e-3)[..., None]
    layers = cv2.GaussianBlur(np.concatenate((colors * sure, sure), axis=-1), (7, 7), 1.2)
    from_within = layers[..., :3] / np.maximum(layers[..., 3:], 1e-9)
    return np.where(alpha[..., None] > SURE, colors, from_within).clip(0, 1)


def _gaussians(frames: list[tuple[Floats, Floats, Floats]], cell: float, resolution: int) -> GaussianClip:
    """Flat Gaussians at points with normals, both (row, column, depth) on the grid, and colors, frame by frame."""
    points, normals, colors = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*frames, strict=True))
    right, down, forward = torch.tensor(orbit_camera(FRONT_YAW, 0, size=1).world_to_camera)[:3, :3]
    axes = torch.stack((down, right, -forward))  # what row, column and depth run along
    counts = torch.tensor([0] + [len(parts[0]) for parts in frames])
    return GaussianClip(
        means=((points - torch.tensor([resolution / 2, resolution / 2, 0])) @ axes * cell).clamp(-0.5, 0.5),
        scales=torch.tensor([SPREAD, SPREAD, FLATNESS]).mul(cell).expand(len(points), 3).contiguous(),
        quats=facing(normals @ axes),
        colors=colors,
        opacities=torch.full((len(points),), OPACITY),
        offsets=counts.cumsum(0),
    )


@kernel
def _relax(masks, u):  # type: ignore[no-untyped-def]
    """Solve for u (t, h, w), which starts at zero, by successive over-relaxation.

    Beyond an edge the solution continues as its mirror image with the sign changed: that puts the 0 on the edge.
    """
    frames, height, width = masks.shape
    for _ in range(MAX_SWEEPS):
        largest, change = np.float32(0), np.float32(0)
        for t in range(frames):
            for y in range(height):
                for x in range(width):
                    if not masks[t, y, x]:
                        continue
                    before, total, weight = u[t, y, x], np.float32(4), np.float32(8)
                    if y > 0 and masks[t, y - 1, x]:
                        total, weight = total + u[t, y - 1, x], weight - np.float32(1)
                    if y + 1 < height and masks[t, y + 1, x]:
                        total, weight = total + u[t, y + 1, x], weight - np.float32(1)
                    if x > 0 and masks[t, y, x - 1]:
                        total, weight = total + u[t, y, x - 1], weight - np.float32(1)
                    if x + 1 < width and masks[t, y, x + 1]:
                        total, weight = total + u[t, y, x + 1], weight - np.float32(1)
                    if t > 0 and masks[t - 1, y, x]:
                        total, weight = total + PERSISTENCE * u[t - 1, y, x], weight + PERSISTENCE
                    if t + 1 < frames and masks[t + 1, y, x]:
                        total, weight = total + PERSISTENCE * u[t + 1, y, x], weight + PERSISTENCE
                    after = before + OVERSHOOT * (total / weight - before)
                    u[t, y, x] = after
                    largest, change = max(largest, after), max(change, abs(after - before))
        if change <= TOLERANCE * largest:
            return
