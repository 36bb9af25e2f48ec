"""Draw the Gaussians of one frame as a camera sees them: project, sort by depth, bin into tiles, blend front to back.

A Gaussian of covariance S appears as a 2D Gaussian of covariance J W S W^T J^T + v I, where W is the camera's rotation,
J the Jacobian of the perspective division at the center and v the variance of the screen filter (EWA splatting). At a
distance d from its center its alpha is opacity exp(-d^T C d / 2), C the inverse covariance. `rasterize_reference` is
the slow twin.

Axes: camera space is x right, y down, z forward; images are (row, column) with pixel centers at half integers.

The loops over Gaussians and pixels are compiled (`ss4d.stages.ops.compiled`) and shared out over Python threads; any
number of threads may draw at once.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ss4d.stages.ops.compiled import kernel
from ss4d.stages.types import Camera, GaussianClip

MIN_ALPHA = 1 / 255
MAX_ALPHA = 0.99
MIN_TRANSMITTANCE = 1e-4
# The Jacobian is taken no further out than this many half-widths of the image: beyond, it grows without bound.
JACOBIAN_LIMIT = 1.3
NEAR = 0.01
BLACK = (0.0, 0.0, 0.0)
TILE = 16
CHECK_EVERY = 16  # splats between two looks at whether every pixel of a tile is finished
# exp(-u) for u in [0, ln(255) / 16], by interpolation at Chebyshev points: at most 2e-9 off.
EXP = tuple(
    np.polynomial.Chebyshev.interpolate(lambda u: np.exp(-u), 5, [0, math.log(255) / 16])
    .convert(kind=np.polynomial.Polynomial)
    .coef.astype(np.float32)
)

Color = tuple[float, float, float]
Floats = NDArray[np.float32]
Integers = NDArray[np.int32]


@dataclass(frozen=True)
class ScreenFilter:
    """The blur that keeps Gaussians from falling between pixels (docs/model.md, section 9).

    Attributes:
        variance: added to the 2D covariance, pixel^2.
        compensate: scale opacity by sqrt(det before / det after), so that a small Gaussian keeps its total light.
    """

    variance: float
    compensate: bool


MIP_SPLATTING = ScreenFilter(variance=0.1, compensate=True)  # what the model is trained with
CLASSIC = ScreenFilter(variance=0.3, compensate=False)  # what common viewers do


class Rasterize(Protocol):
    """What every rasterizer is called like; see `rasterize`."""

    def __call__(
        self,
        gaussians: GaussianClip,
        camera: Camera,
        *,
        background: Color = BLACK,
        screen_filter: ScreenFilter = MIP_SPLATTING,
    ) -> tuple[Tensor, Tensor]: ...


def rasterize(
    gaussians: GaussianClip,
    camera: Camera,
    *,
    background: Color = BLACK,
    screen_filter: ScreenFilter = MIP_SPLATTING,
) -> tuple[Tensor, Tensor]:
    """Color and coverage of one frame (docs/model.md, section 9), on the CPU.

    Centers nearer than 0.01 are skipped, alpha below 1/255 is skipped, alpha is capped at 0.99, and a pixel is finished
    before its transmittance would fall under 1e-4. Negative colors count as 0, as in every viewer. The result does not
    depend on the number of threads, nor on the order in which Gaussians of different depths are given.

    Args:
        gaussians: a clip of one frame.
        camera: where to look from.
        background: RGB behind the Gaussians.
        screen_filter: `MIP_SPLATTING`, or `CLASSIC` to see what common viewers show.

    Returns:
        RGB (height, width, 3) and alpha (height, width), float32.
    """
    assert gaussians.num_frames == 1, "one frame at a time"
    workers = torch.get_num_threads()
    rows, columns = math.ceil(camera.height / TILE), math.ceil(camera.width / TILE)
    rgb = np.empty((camera.height, camera.width, 3), np.float32)
    alpha = np.empty((camera.height, camera.width), np.float32)
    paint = np.asarray(background, np.float32)
    with ThreadPoolExecutor(workers) as pool:
        splats, boxes, _, _ = project_all(gaussians, camera, screen_filter, pool, workers)
        starts, members = bin_splats(boxes, rows, columns)
        # One job a row of tiles: enough jobs to keep the threads evenly busy, each long enough to be worth starting.
        jobs = [pool.submit(_blend, rgb, alpha, paint, splats, boxes, starts, members, row) for row in range(rows)]
        for job in jobs:
            job.result()
    return torch.from_numpy(rgb), torch.from_numpy(alpha)


def contributions(gaussians: GaussianClip, camera: Camera) -> Tensor:
    """How many pixels each Gaussian (n) of a clip of one frame makes up, by the weights `rasterize` blends it with.

    Args:
        gaussians: a clip of one frame.
        camera: where to look from; its sides are multiples of 16 pixels.
    """
    assert gaussians.num_frames == 1, "one frame at a time"
    assert camera.width % TILE == camera.height % TILE == 0, "whole tiles"
    workers = torch.get_num_threads()
    rows, columns = camera.height // TILE, camera.width // TILE
    with ThreadPoolExecutor(workers) as pool:
        splats, boxes, order, _ = project_all(gaussians, camera, MIP_SPLATTING, pool, workers)
        starts, members = bin_splats(boxes, rows, columns)
        jobs = [pool.submit(_weigh, splats, boxes, starts, members, row, columns) for row in range(rows)]
        weights = sum((job.result() for job in jobs), np.zeros(len(splats)))
    shown = np.zeros(len(gaussians.means))
    shown[order] = weights
    return torch.from_numpy(shown)


def project_all(
    gaussians: GaussianClip, camera: Camera, screen_filter: ScreenFilter, pool: ThreadPoolExecutor, workers: int
) -> tuple[Floats, Integers, NDArray[np.int64], Floats]:
    """The Gaussians in front of the camera, nearest first: splats (n, 10), pixel boxes (n, 4), rows (n), depths (n)."""
    fields = (gaussians.means, gaussians.scales, gaussians.quats, gaussians.colors, gaussians.opacities)
    arrays = [np.ascontiguousarray(field.detach().numpy()) for field in fields]
    size = len(arrays[0])
    view = np.array(camera.world_to_camera, np.float64)
    optics = (camera.focal, camera.width, camera.height, screen_filter.variance, screen_filter.compensate)
    splats, boxes, depths = np.empty((size, 10), np.float32), np.empty((size, 4), np.int32), np.empty(size)
    bounds = [size * worker // workers for worker in range(workers + 1)]
    jobs = [
        pool.submit(project, *arrays, view, *optics, start, stop, splats, boxes, depths)
        for start, stop in pairwise(bounds)
    ]
    for job in jobs:
        job.result()
    visible = np.flatnonzero(np.isfinite(depths))
    order = visible[np.argsort(depths[visible], kind="stable")]
    # Moved in memory as well: blending reads neighbors in depth, which would otherwise cost a cache miss each.
    return (
        np.take(splats, order, axis=0),
        np.take(boxes, order, axis=0),
        order,
        np.take(depths, order).astype(np.float32),
    )


@kernel
def project(  # type: ignore[no-untyped-def]
    means, scales, quats, colors, opacities, view, focal, width, height, variance, compensate, start, stop,
    splats, boxes, depths,
):  # fmt: skip
    """Fills rows start to stop of splats, boxes and depths; a Gaussian that shows nowhere gets an infinite depth.

    A splat is: center x, y; l11, l21, l22; reach; opacity; r, g, b. The exponent at an offset (dx, dy) is
    -(l11 dx + l21 dy)^2 - (l22 dy)^2, a Cholesky form that loses no digits on needles as a dx^2 + 2 b dx dy + c dy^2
    would. Alpha is at least 1/255 where the exponent is at least -reach. A box is the pixels this can touch: first and
    last row, first and last column.
    """
    point, axes = np.empty(3), np.empty((3, 3))
    for n in range(start, stop):
        depths[n] = np.inf
        for k in range(3):
            point[k] = view[k, 0] * means[n, 0] + view[k, 1] * means[n, 1] + view[k, 2] * means[n, 2] + view[k, 3]
        x, y, z = point[0] / point[2], point[1] / point[2], point[2]
        if not z > NEAR:  # so written, here and below, that not-a-number shows nowhere
            continue
        camera_axes(view, scales[n], quats[n], axes)
        limit_x, limit_y = JACOBIAN_LIMIT * width / (2 * focal), JACOBIAN_LIMIT * height / (2 * focal)
        slope_x, slope_y = min(max(x, -limit_x), limit_x), min(max(y, -limit_y), limit_y)
        xx, xy, yy = 0.0, 0.0, 0.0  # the 2D covariance
        for k in range(3):
            u, v = focal / z * (axes[0, k] - slope_x * axes[2, k]), focal / z * (axes[1, k] - slope_y * axes[2, k])
            xx, xy, yy = xx + u * u, xy + u * v, yy + v * v
        before = max(xx * yy - xy * xy, 0.0)
        xx, yy = xx + variance, yy + variance
        det = xx * yy - xy * xy
        opacity = opacities[n] * math.sqrt(before / det) if compensate else np.float64(opacities[n])
        if not (det > 0 and opacity >= MIN_ALPHA):
            continue
        reach = math.log(opacity / MIN_ALPHA)
        center_x, center_y = focal * x + width / 2, focal * y + height / 2
        half_x, half_y = math.sqrt(2 * reach * xx), math.sqrt(2 * reach * yy)
        top, bottom = max(center_y - half_y - 0.5, 0.0), min(center_y + half_y - 0.5, height - 1.0)
        left, right = max(center_x - half_x - 0.5, 0.0), min(center_x + half_x - 0.5, width - 1.0)
        if not (math.ceil(top) <= math.floor(bottom) and math.ceil(left) <= math.floor(right)):
            continue
        depths[n] = z
        boxes[n, 0], boxes[n, 1] = math.ceil(top), math.floor(bottom)
        boxes[n, 2], boxes[n, 3] = math.ceil(left), math.floor(right)
        splats[n, 0], splats[n, 1] = center_x, center_y
        splats[n, 2], splats[n, 3] = math.sqrt(0.5 * yy / det), -xy * math.sqrt(0.5 / (yy * det))
        splats[n, 4], splats[n, 5], splats[n, 6] = math.sqrt(0.5 / yy), reach, opacity
        for k in range(3):
            splats[n, 7 + k] = max(colors[n, k], np.float32(0))


@kernel
def camera_axes(view, scale, quat, axes):  # type: ignore[no-untyped-def]
    """Fills axes (3, 3) with a Gaussian's axes in camera space, one per column, each one deviation long."""
    w, x, y, z = np.float64(quat[0]), np.float64(quat[1]), np.float64(quat[2]), np.float64(quat[3])
    s = 2 / (w * w + x * x + y * y + z * z)
    for k in range(3):
        a, b, c = view[k, 0], view[k, 1], view[k, 2]
        axes[k, 0] = scale[0] * (a * (1 - s * (y * y + z * z)) + b * s * (x * y + w * z) + c * s * (x * z - w * y))
        axes[k, 1] = scale[1] * (a * s * (x * y - w * z) + b * (1 - s * (x * x + z * z)) + c * s * (y * z + w * x))
        axes[k, 2] = scale[2] * (a * s * (x * z + w * y) + b * s * (y * z - w * x) + c * (1 - s * (x * x + y * y)))


@kernel
def bin_splats(boxes, tile_rows, tile_columns):  # type: ignore[no-untyped-def]
    """Splats of each tile in the given order: tile j owns members[starts[j]] to members[starts[j + 1]]."""
    starts = np.zeros(tile_rows * tile_columns + 1, np.int64)
    for i in range(len(boxes)):
        for row in range(boxes[i, 0] // TILE, boxes[i, 1] // TILE + 1):
            for column in range(boxes[i, 2] // TILE, boxes[i, 3] // TILE + 1):
                starts[row * tile_columns + column + 1] += 1
    starts = np.cumsum(starts)
    members = np.empty(starts[-1], np.int32)
    ends = starts[:-1].copy()
    for i in range(len(boxes)):
        for row in range(boxes[i, 0] // TILE, boxes[i, 1] // TILE + 1):
            for column in range(boxes[i, 2] // TILE, boxes[i, 3] // TILE + 1):
                tile = row * tile_columns + column
                members[ends[tile]] = i
                ends[tile] += 1
    return starts, members


@kernel
def _blend(rgb, alpha, paint, splats, boxes, starts, members, tile_row):  # type: ignore[no-untyped-def]
    """Blends one row of tiles into rgb (height, width, 3) and alpha (height, width), over the background `paint`."""
    height, width = alpha.shape
    top = tile_row * TILE
    columns = (width + TILE - 1) // TILE
    tile = np.empty((4, TILE, TILE), np.float32)  # RGB and transmittance; negative once the pixel is finished
    for tile_column in range(columns):
        left = tile_column * TILE
        tile[:3], tile[3] = 0, 1
        first, last = starts[tile_row * columns + tile_column], starts[tile_row * columns + tile_column + 1]
        for k in range(first, last):
            i = members[k]
            _blend_splat(tile, splats[i], boxes[i, 0] - top, boxes[i, 1] - top, left, top)
            if (k - first) % CHECK_EVERY == CHECK_EVERY - 1 and tile[3].max() < 0:
                break
        for row in range(min(TILE, height - top)):
            for column in range(min(TILE, width - left)):
                light = abs(tile[3, row, column])
                alpha[top + row, left + column] = np.float32(1) - light
                for c in range(3):
                    rgb[top + row, left + column, c] = tile[c, row, column] + light * paint[c]


@kernel
def _blend_splat(tile, splat, first_row, last_row, left, top):  # type: ignore[no-untyped-def]
    """Blends one splat into the rows of a tile that it may touch.

    A row is always worked on in full width and without branches, which lets the compiler do it in a few vector
    instructions; that is why the exponential is a polynomial.
    """
    x, y, l11, l21, l22, reach, opacity, r, g, b = splat
    zero, one, cap, floor = np.float32(0), np.float32(1), np.float32(MAX_ALPHA), np.float32(MIN_TRANSMITTANCE)
    start = np.float32(left) + np.float32(0.5) - x
    for row in range(max(0, first_row), min(TILE - 1, last_row) + 1):
        dy = np.float32(top + row) + np.float32(0.5) - y
        vertical, shift = l22 * dy * l22 * dy, l21 * dy
        red, green, blue, light = tile[0, row], tile[1, row], tile[2, row], tile[3, row]
        for column in range(TILE):
            horizontal = l11 * (start + np.float32(column)) + shift
            exponent = vertical + horizontal * horizontal
            alpha = min(cap, opacity * falloff(exponent, reach)) if exponent <= reach else zero
            before = light[column]
            after = before * (one - alpha)
            weight = before * alpha if after >= floor else zero
            red[column] += weight * r
            green[column] += weight * g
            blue[column] += weight * b
            light[column] = after if after >= floor else -abs(before)


@kernel
def falloff(exponent, reach):  # type: ignore[no-untyped-def]
    """exp(-exponent) for exponents up to `reach`, as the 16th power of a polynomial."""
    u = min(exponent, reach) * np.float32(1 / 16)
    p = EXP[0] + u * (EXP[1] + u * (EXP[2] + u * (EXP[3] + u * (EXP[4] + u * EXP[5]))))
    p *= p
    p *= p
    p *= p
    p *= p
    return p


@kernel
def _weigh(splats, boxes, starts, members, tile_row, columns):  # type: ignore[no-untyped-def]
    """The weights (n) with which the splats appear in one row of tiles, summed over its pixels."""
    weights, top = np.zeros(len(splats)), tile_row * TILE
    tile, white = np.empty((4, TILE, TILE), np.float32), np.empty(10, np.float32)
    for tile_column in range(columns):
        tile[3] = 1
        first, last = starts[tile_row * columns + tile_column], starts[tile_row * columns + tile_column + 1]
        for k in range(first, last):
            i = members[k]
            white[:], white[7:], tile[:3] = splats[i], np.float32(1), 0
            _blend_splat(tile, white, boxes[i, 0] - top, boxes[i, 1] - top, tile_column * TILE, top)
            weights[i] += tile[0].sum()
            if (k - first) % CHECK_EVERY == CHECK_EVERY - 1 and tile[3].max() < 0:
                break
    return weights
