"""Draw Gaussians with gradients on a CPU, image by image in compiled loops; see `ss4d.stages.ops.splat`.

Projection is `ss4d.stages.ops.rasterize`'s own, in float64; pixels are blended in the dtype of the Gaussians. Images
are shared out over threads, and what each says of a Gaussian is added up in their order: the same on every run.

Axes: n Gaussian, k image, g Gaussian that an image shows, nearest first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from ss4d.stages.ops.compiled import kernel, spread
from ss4d.stages.ops.rasterize import (
    JACOBIAN_LIMIT,
    MAX_ALPHA,
    MIN_TRANSMITTANCE,
    Floats,
    Integers,
    ScreenFilter,
    camera_axes,
    project,
)
from ss4d.stages.ops.splat import Gaussians, Views

# Columns of what an image says of a Gaussian: center, scale, quaternion, color, opacity.
PARTS = (3, 3, 4, 3, 1)


def draw_in_loops(gaussians: Gaussians, offsets: Tensor, views: Views, screen_filter: ScreenFilter) -> Tensor:
    """RGB over black and transmittance (k height width, 4); see `ss4d.stages.ops.splat.splat`."""
    parts = (gaussians.means, gaussians.scales, gaussians.quats, gaussians.colors, gaussians.opacities)
    drawn: Tensor = _LoopSplat.apply(*parts, offsets, views, screen_filter)  # type: ignore[no-untyped-call]
    return drawn


@dataclass(frozen=True, eq=False, kw_only=True)
class _Image:
    """An image, and what it showed.

    Attributes:
        rows: of the Gaussians of its frame.
        view: world to camera (4, 4).
        optics: focal length, width, height, variance of the screen filter, and whether that compensates.
        order: (g) which of these Gaussians show.
        splats: (g, 10) as `project` gives them.
        boxes: (g, 4) pixels that they may touch.
        ends: (height, width) the first splat that a pixel is finished before.
    """

    rows: slice
    view: NDArray[np.float64]
    optics: tuple[float, int, int, float, bool]
    order: NDArray[np.int64]
    splats: Floats
    boxes: Integers
    ends: Integers


class _LoopSplat(torch.autograd.Function):
    """Pictures (k height width, 4) of five parts of Gaussians."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        scales: Tensor,
        quats: Tensor,
        colors: Tensor,
        opacities: Tensor,
        offsets: Tensor,
        views: Views,
        screen_filter: ScreenFilter,
    ) -> Tensor:
        parts = tuple(part.detach().contiguous() for part in (means, scales, quats, colors, opacities))
        blended = means.new_zeros(len(views.frames), views.height, views.width, 4)
        first, arrays, pictures = offsets.tolist(), [part.numpy() for part in parts], blended.numpy()
        optics = (views.width, views.height, screen_filter.variance, screen_filter.compensate)
        jobs: list[Callable[[], _Image]] = [
            partial(_drawn, pictures[k], arrays, slice(first[frame], first[frame + 1]), view, (focal, *optics))
            for k, (frame, view, focal) in enumerate(
                zip(views.frames.tolist(), views.world_to_camera.double().numpy(), views.focals.tolist(), strict=True)
            )
        ]
        ctx.images = spread(jobs)
        ctx.save_for_backward(*parts, blended)
        return blended.view(-1, 4)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *parts, blended = ctx.saved_tensors
        arrays, pulls = [part.numpy() for part in parts], grad.contiguous().view_as(blended).numpy()
        jobs = [
            partial(_pulled, pulls[k], image, arrays, np.ascontiguousarray(blended[k, ..., 3].numpy()))
            for k, image in enumerate(ctx.images)
        ]
        by = parts[0].new_zeros(len(parts[0]), sum(PARTS))
        for image, pull in zip(ctx.images, spread(jobs), strict=True):
            by[image.rows] += torch.from_numpy(pull)
        return (*(part.contiguous() for part in by.split(PARTS, dim=1)), None, None, None)


def _drawn(
    picture: Floats, arrays: list[Floats], rows: slice, view: NDArray[np.float64], optics: tuple[Any, ...]
) -> _Image:
    """Draws one image into `picture` (height, width, 4)."""
    means, scales, quats, colors, opacities = (array[rows] for array in arrays)
    size = len(means)
    splats, boxes, depths = np.empty((size, 10), means.dtype), np.empty((size, 4), np.int32), np.empty(size)
    project(means, scales, quats, colors, opacities[:, 0], view, *optics, 0, size, splats, boxes, depths)
    shown = np.flatnonzero(np.isfinite(depths))
    order = shown[np.argsort(depths[shown], kind="stable")]
    splats, boxes = splats[order], boxes[order]
    ends = np.full(picture.shape[:2], len(order), np.int32)
    picture[..., 3] = 1
    _blend(picture, ends, splats, boxes)
    return _Image(rows=rows, view=view, optics=optics, order=order, splats=splats, boxes=boxes, ends=ends)


def _pulled(pulls: Floats, image: _Image, arrays: list[Floats], light: Floats) -> Floats:
    """What the derivative by one image (height, width, 4) says of its frame's Gaussians (n, 14)."""
    means, scales, quats, colors, _ = (array[image.rows] for array in arrays)
    left = light.astype(np.float64)
    behind = left * pulls[..., 3]  # by the light that passes each pixel's splats, so far the last
    by_splats = np.zeros((len(image.order), 9))
    _blend_back(pulls, image.ends, left, behind, image.splats, image.boxes, by_splats)
    by = np.zeros((len(means), sum(PARTS)), means.dtype)
    _project_back(means, scales, quats, colors, image.view, *image.optics, image.order, image.splats, by_splats, by)
    return by


@kernel
def _row(splat, row, width):  # type: ignore[no-untyped-def]
    """Of a row of pixels: dy, (l22 dy)^2, l21 dy, and the first and last column where alpha is at least 1/255."""
    dy = row + splat.dtype.type(0.5) - splat[1]
    vertical, shift = splat[4] * dy * splat[4] * dy, splat[3] * dy
    rest = splat[5] - vertical
    if not rest >= 0:
        return dy, vertical, shift, 0, -1
    half, middle = np.sqrt(rest) / splat[2], splat[0] - shift / splat[2] - splat.dtype.type(0.5)
    first = np.ceil(min(max(middle - half, splat.dtype.type(0)), splat.dtype.type(width)))
    last = np.floor(max(min(middle + half, splat.dtype.type(width - 1)), splat.dtype.type(-1)))
    return dy, vertical, shift, int(first), int(last)


@kernel
def _blend(picture, ends, splats, boxes):  # type: ignore[no-untyped-def]
    """Adds splats to picture (height, width, 4), RGB and transmittance; notes where a pixel is finished."""
    one, half, width = splats.dtype.type(1), splats.dtype.type(0.5), picture.shape[1]
    cap, floor = splats.dtype.type(MAX_ALPHA), splats.dtype.type(MIN_TRANSMITTANCE)
    for g in range(len(splats)):
        x, slope, opacity = splats[g, 0], splats[g, 2], splats[g, 6]
        for row in range(boxes[g, 0], boxes[g, 1] + 1):
            _, vertical, shift, first, last = _row(splats[g], splats.dtype.type(row), width)
            for column in range(first, last + 1):
                if ends[row, column] < g:
                    continue
                u = slope * (splats.dtype.type(column) + half - x) + shift
                alpha = min(opacity * np.exp(-u * u - vertical), cap)
                before = picture[row, column, 3]
                after = before * (one - alpha)
                if after < floor:
                    ends[row, column] = g
                    continue
                for k in range(3):
                    picture[row, column, k] += before * alpha * splats[g, 7 + k]
                picture[row, column, 3] = after


@kernel
def _blend_back(pulls, ends, left, behind, splats, boxes, by_splats):  # type: ignore[no-untyped-def]
    """Fills by_splats (g, 9), from the last splat to the first: center x, y; l11, l21, l22; opacity; r, g, b.

    left (height, width) is the light after a splat, behind the sum of what the splats after it and the background
    contribute to the loss's derivative.
    """
    half, width = splats.dtype.type(0.5), ends.shape[1]
    cap = splats.dtype.type(MAX_ALPHA)
    for g in range(len(splats) - 1, -1, -1):
        x, l11, l21, l22, opacity = splats[g, 0], splats[g, 2], splats[g, 3], splats[g, 4], splats[g, 6]
        for row in range(boxes[g, 0], boxes[g, 1] + 1):
            dy, vertical, shift, first, last = _row(splats[g], splats.dtype.type(row), width)
            plain = along = across = 0.0  # sums of the derivative by log alpha, times 1, u, and u dx
            for column in range(first, last + 1):
                if ends[row, column] <= g:
                    continue
                dx = splats.dtype.type(column) + half - x
                u = l11 * dx + shift
                alpha = min(opacity * np.exp(-u * u - vertical), cap)
                before = left[row, column] / (1 - np.float64(alpha))
                weight, gain = before * alpha, 0.0
                for k in range(3):
                    by_splats[g, 6 + k] += weight * pulls[row, column, k]
                    gain += pulls[row, column, k] * np.float64(splats[g, 7 + k])
                if alpha < cap:
                    by_log = (before * gain - behind[row, column] / (1 - np.float64(alpha))) * alpha
                    plain += by_log
                    along += by_log * u
                    across += by_log * u * dx
                behind[row, column] += weight * gain
                left[row, column] = before
            by_splats[g, 0] += 2 * l11 * along
            by_splats[g, 1] += 2 * l21 * along + 2 * l22 * l22 * dy * plain
            by_splats[g, 2] -= 2 * across
            by_splats[g, 3] -= 2 * dy * along
            by_splats[g, 4] -= 2 * l22 * dy * dy * plain
            by_splats[g, 5] += plain / opacity


@kernel
def _project_back(  # type: ignore[no-untyped-def]
    means, scales, quats, colors, view, focal, width, height, variance, compensate, order, splats, by_splats, by
):
    """Fills rows `order` of by (n, 14), the derivatives by the Gaussians, from by_splats (g, 9); `project` backward.

    The determinant of the 2D covariance before the filter is a sum of squares, |u x v|^2 for the rows u, v of the
    projected axes (Cauchy and Binet): its derivative loses no digits on needles.
    """
    p, axes, turn, pull, u, v, w, by_u, by_v = (
        np.empty(3), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)),
        np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3),
    )  # fmt: skip
    limits = JACOBIAN_LIMIT * width / (2 * focal), JACOBIAN_LIMIT * height / (2 * focal)
    for g in range(len(order)):
        n = order[g]
        for k in range(3):
            p[k] = view[k, 0] * means[n, 0] + view[k, 1] * means[n, 1] + view[k, 2] * means[n, 2] + view[k, 3]
        _turn(quats[n], turn)
        camera_axes(view, scales[n], quats[n], axes)
        z, zoom = p[2], focal / p[2]
        x, y = p[0] / z, p[1] / z
        bent_x, bent_y = min(max(x, -limits[0]), limits[0]), min(max(y, -limits[1]), limits[1])
        xx, xy, yy = 0.0, 0.0, 0.0
        for k in range(3):
            u[k], v[k] = zoom * (axes[0, k] - bent_x * axes[2, k]), zoom * (axes[1, k] - bent_y * axes[2, k])
            xx, xy, yy = xx + u[k] * u[k], xy + u[k] * v[k], yy + v[k] * v[k]
        _cross(u, v, w)
        before = w[0] * w[0] + w[1] * w[1] + w[2] * w[2]
        after = before + variance * (xx + yy) + variance * variance
        tall = yy + variance

        by_11, by_21, by_22 = (
            by_splats[g, 2] * splats[g, 2],
            by_splats[g, 3] * splats[g, 3],
            by_splats[g, 4] * splats[g, 4],
        )
        by_opacity = by_splats[g, 5] * splats[g, 6] if compensate else 0.0
        by_after = -(by_11 + by_21 + by_opacity) / (2 * after)
        by_before = by_after + (by_opacity / (2 * before) if by_opacity != 0 else 0.0)
        by_xx = variance * by_after
        by_yy = by_xx + (by_11 - by_21 - by_22) / (2 * tall)
        by_xy = -by_splats[g, 3] * np.sqrt(0.5 / (tall * after))
        _cross(v, w, by_u)
        _cross(w, u, by_v)
        by_zoom, by_x, by_y = 0.0, 0.0, 0.0
        for k in range(3):
            by_u[k] = 2 * by_before * by_u[k] + 2 * by_xx * u[k] + by_xy * v[k]
            by_v[k] = 2 * by_before * by_v[k] + 2 * by_yy * v[k] + by_xy * u[k]
            by_zoom += (by_u[k] * u[k] + by_v[k] * v[k]) / zoom
            by_x -= zoom * by_u[k] * axes[2, k]
            by_y -= zoom * by_v[k] * axes[2, k]
        for i in range(3):  # by the axes in world space
            for k in range(3):
                depth = -bent_x * by_u[k] - bent_y * by_v[k]
                pull[i, k] = zoom * (view[0, i] * by_u[k] + view[1, i] * by_v[k] + view[2, i] * depth)
        by_x = focal * by_splats[g, 0] + (by_x if abs(x) <= limits[0] else 0.0)
        by_y = focal * by_splats[g, 1] + (by_y if abs(y) <= limits[1] else 0.0)
        by_z = -(by_x * x + by_y * y + by_zoom * zoom) / z
        for i in range(3):
            by[n, i] = (view[0, i] * by_x + view[1, i] * by_y) / z + view[2, i] * by_z
            by[n, 3 + i] = turn[0, i] * pull[0, i] + turn[1, i] * pull[1, i] + turn[2, i] * pull[2, i]
            by[n, 10 + i] = by_splats[g, 6 + i] if colors[n, i] >= 0 else 0.0
        for i in range(3):
            for k in range(3):
                pull[i, k] *= scales[n, k]
        _turn_back(quats[n], pull, by[n, 6:10])
        by[n, 13] = by_splats[g, 5] * (np.sqrt(before / after) if compensate else 1.0)


@kernel
def _cross(a, b, out):  # type: ignore[no-untyped-def]
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        out[k] = a[i] * b[j] - a[j] * b[i]


@kernel
def _turn(quat, turn):  # type: ignore[no-untyped-def]
    """Fills turn (3, 3), the rotation matrix of a quaternion of any length."""
    w, x, y, z = np.float64(quat[0]), np.float64(quat[1]), np.float64(quat[2]), np.float64(quat[3])
    s = 2 / (w * w + x * x + y * y + z * z)
    turn[0, 0], turn[0, 1], turn[0, 2] = 1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)
    turn[1, 0], turn[1, 1], turn[1, 2] = s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x)
    turn[2, 0], turn[2, 1], turn[2, 2] = s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y)


@kernel
def _turn_back(quat, p, by):  # type: ignore[no-untyped-def]
    """Fills by (4) from the derivatives p (3, 3) by the rotation matrix."""
    length = np.sqrt(
        np.float64(quat[0]) ** 2 + np.float64(quat[1]) ** 2 + np.float64(quat[2]) ** 2 + np.float64(quat[3]) ** 2
    )
    w, x, y, z = quat[0] / length, quat[1] / length, quat[2] / length, quat[3] / length
    by_w = 2 * (x * (p[2, 1] - p[1, 2]) + y * (p[0, 2] - p[2, 0]) + z * (p[1, 0] - p[0, 1]))
    by_x = 2 * (y * (p[0, 1] + p[1, 0]) + z * (p[0, 2] + p[2, 0]) + w * (p[2, 1] - p[1, 2])) - 4 * x * (
        p[1, 1] + p[2, 2]
    )
    by_y = 2 * (x * (p[0, 1] + p[1, 0]) + z * (p[1, 2] + p[2, 1]) + w * (p[0, 2] - p[2, 0])) - 4 * y * (
        p[0, 0] + p[2, 2]
    )
    by_z = 2 * (x * (p[0, 2] + p[2, 0]) + y * (p[1, 2] + p[2, 1]) + w * (p[1, 0] - p[0, 1])) - 4 * z * (
        p[0, 0] + p[1, 1]
    )
    along = w * by_w + x * by_x + y * by_y + z * by_z  # a change of length turns nothing
    by[0], by[1] = (by_w - along * w) / length, (by_x - along * x) / length
    by[2], by[3] = (by_y - along * y) / length, (by_z - along * z) / length
