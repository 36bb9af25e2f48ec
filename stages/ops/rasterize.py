"""Draw the Gaussians of one frame as a camera sees them: project, sort by depth, bin into tiles, blend front to back.

A Gaussian of covariance S appears as a 2D Gaussian of covariance J W S W^T J^T + v I, where W is the camera's rotation, J the
Jacobian of the perspective division at the centre and v the variance of the screen filter (EWA splatting). At distance d from
its centre its alpha is opacity exp(-d^T C d / 2) with C the inverse covariance. `rasterize_reference` is the slow twin.

Axes: camera space is x right, y down, z forward; images are (row, column) with pixel centres at half integers.

The kernels are compiled by numba without the interpreter's lock and shared out over Python threads. numba's own parallel
loops are not used: its default thread pool aborts the process when two threads enter it at once, and here any number may.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from torch import Tensor

from stages.types import Camera, GaussianClip

MIN_ALPHA = 1 / 255
MAX_ALPHA = 0.99
MIN_TRANSMITTANCE = 1e-4
# The Jacobian is taken no further out than this many half-widths of the image: beyond, it grows without bound.
JACOBIAN_LIMIT = 1.3
NEAR = 0.01
TILE = 16

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class ScreenFilter:
    """The blur that keeps Gaussians from falling between pixels.

    Attributes:
        variance: added to the 2D covariance, pixel^2.
        compensate: scale opacity by sqrt(det before / det after), so that a small Gaussian keeps its total light.
    """

    variance: float
    compensate: bool


MIP_SPLATTING = ScreenFilter(variance=0.1, compensate=True)  # what the model is trained with
CLASSIC = ScreenFilter(variance=0.3, compensate=False)  # what common viewers do


def rasterize(
    gaussians: GaussianClip,
    camera: Camera,
    *,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    screen_filter: ScreenFilter = MIP_SPLATTING,
) -> tuple[Tensor, Tensor]:
    """Colour and coverage of one frame (specification, section 9), on the CPU.

    Gaussians nearer than 0.01 are skipped, alpha below 1/255 is skipped, alpha is capped at 0.99, and a pixel is finished
    before its transmittance would fall under 1e-4. Negative colours count as 0, as in every viewer. The result does not
    depend on the number of threads, nor on the order of Gaussians at different depths.

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
    with ThreadPoolExecutor(workers) as pool:
        splats, depths, boxes = _project_all(gaussians, camera, screen_filter, pool, workers)
        visible = np.flatnonzero(np.isfinite(depths))
        order = visible[np.argsort(depths[visible], kind="stable")]
        splats, boxes = splats[order], boxes[order]
        tiles = (math.ceil(camera.height / TILE), math.ceil(camera.width / TILE))
        starts, members = _bin(boxes, *tiles)
        canvas = np.zeros((camera.height, camera.width, 4), np.float32)
        canvas[..., 3] = 1
        # One job a row of tiles: enough jobs to keep the threads evenly busy, each long enough to be worth starting.
        jobs = [pool.submit(_blend, canvas, splats, boxes, starts, members, row, tiles[1]) for row in range(tiles[0])]
        for job in jobs:
            job.result()
    transmittance = np.abs(canvas[..., 3:])
    rgb = canvas[..., :3] + transmittance * np.asarray(background, np.float32)
    return torch.from_numpy(rgb), torch.from_numpy(1 - transmittance[..., 0])


def _project_all(
    gaussians: GaussianClip, camera: Camera, screen_filter: ScreenFilter, pool: ThreadPoolExecutor, workers: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every Gaussian on the screen: splats (n, 10) and depths (n,) float32, pixel boxes (n, 4) int32; see `_project`."""
    fields = (gaussians.means, gaussians.scales, gaussians.quats, gaussians.colors, gaussians.opacities)
    arrays = [np.ascontiguousarray(field.detach().numpy()) for field in fields]
    view = np.array(camera.world_to_camera, np.float64)
    size = len(arrays[0])
    splats, depths = np.empty((size, 10), np.float32), np.empty(size, np.float32)
    boxes = np.empty((size, 4), np.int32)
    bounds = np.linspace(0, size, workers + 1).astype(int)
    lens = (float(camera.focal), camera.width, camera.height)
    blur = (float(screen_filter.variance), screen_filter.compensate)
    jobs = [
        pool.submit(_project, *arrays, view, *lens, *blur, start, stop, splats, depths, boxes)
        for start, stop in zip(bounds[:-1], bounds[1:], strict=True)
    ]
    for job in jobs:
        job.result()
    return splats, depths, boxes


def _kernel(function: Function) -> Function:
    """Compile at the first call, keep the machine code on disk, run without the interpreter's lock."""
    return cast(Function, numba.njit(function, cache=True, nogil=True, error_model="numpy"))


@_kernel
def _project(  # type: ignore[no-untyped-def]
    means, scales, quats, colors, opacities, view, focal, width, height, variance, compensate, start, stop,
    splats, depths, boxes,
):  # fmt: skip
    """Fill rows start to stop of splats, depths and boxes; a Gaussian that shows nowhere gets an infinite depth.

    A splat is: centre x, y; l11, l21, l22; reach; opacity; r, g, b. The exponent at an offset (dx, dy) is
    -(l11 dx + l21 dy)^2 - (l22 dy)^2, a Cholesky form that loses no digits on needles as a dx^2 + 2 b dx dy + c dy^2
    would. Alpha is at least 1/255 where the exponent is at least -reach. A box is the pixels this can touch: first and
    last row, first and last column.
    """
    limit_x, limit_y = JACOBIAN_LIMIT * width / (2 * focal), JACOBIAN_LIMIT * height / (2 * focal)
    rotation = view[:3, :3]
    m = np.empty((3, 3))
    for i in range(start, stop):
        depths[i] = np.inf
        px, py, pz = np.float64(means[i, 0]), np.float64(means[i, 1]), np.float64(means[i, 2])
        z = view[2, 0] * px + view[2, 1] * py + view[2, 2] * pz + view[2, 3]
        if not z > NEAR:
            continue
        x = (view[0, 0] * px + view[0, 1] * py + view[0, 2] * pz + view[0, 3]) / z
        y = (view[1, 0] * px + view[1, 1] * py + view[1, 2] * pz + view[1, 3]) / z
        # m = W R diag(scales): its products are the covariance in camera space.
        qw, qx, qy, qz = np.float64(quats[i, 0]), np.float64(quats[i, 1]), np.float64(quats[i, 2]), np.float64(quats[i, 3])
        s = 2 / (qw * qw + qx * qx + qy * qy + qz * qz)
        sx, sy, sz = np.float64(scales[i, 0]), np.float64(scales[i, 1]), np.float64(scales[i, 2])
        for k in range(3):
            a, b, c = rotation[k, 0], rotation[k, 1], rotation[k, 2]
            m[k, 0] = sx * (a * (1 - s * (qy * qy + qz * qz)) + b * s * (qx * qy + qw * qz) + c * s * (qx * qz - qw * qy))
            m[k, 1] = sy * (a * s * (qx * qy - qw * qz) + b * (1 - s * (qx * qx + qz * qz)) + c * s * (qy * qz + qw * qx))
            m[k, 2] = sz * (a * s * (qx * qz + qw * qy) + b * s * (qy * qz - qw * qx) + c * (1 - s * (qx * qx + qy * qy)))
        jx, jy = -min(max(x, -limit_x), limit_x), -min(max(y, -limit_y), limit_y)
        cxx, cxy, cyy = 0.0, 0.0, 0.0
        for k in range(3):
            u, v = focal / z * (m[0, k] + jx * m[2, k]), focal / z * (m[1, k] + jy * m[2, k])
            cxx, cxy, cyy = cxx + u * u, cxy + u * v, cyy + v * v
        before = max(cxx * cyy - cxy * cxy, 0.0)
        cxx, cyy = cxx + variance, cyy + variance
        det = cxx * cyy - cxy * cxy
        opacity = np.float64(opacities[i])
        if compensate:
            opacity *= math.sqrt(before / det)
        if not (opacity >= MIN_ALPHA and det > 0):
            continue
        reach = math.log(opacity / MIN_ALPHA)
        center_x, center_y = focal * x + width / 2, focal * y + height / 2
        half_x, half_y = math.sqrt(2 * reach * cxx), math.sqrt(2 * reach * cyy)
        left, right = max(center_x - half_x - 0.5, 0.0), min(center_x + half_x - 0.5, width - 1.0)
        top, bottom = max(center_y - half_y - 0.5, 0.0), min(center_y + half_y - 0.5, height - 1.0)
        if not (math.ceil(left) <= math.floor(right) and math.ceil(top) <= math.floor(bottom)):
            continue
        depths[i] = z
        boxes[i, 0], boxes[i, 1] = math.ceil(top), math.floor(bottom)
        boxes[i, 2], boxes[i, 3] = math.ceil(left), math.floor(right)
        splats[i, 0], splats[i, 1] = center_x, center_y
        splats[i, 2], splats[i, 3] = math.sqrt(0.5 * cyy / det), -cxy * math.sqrt(0.5 / (cyy * det))
        splats[i, 4], splats[i, 5], splats[i, 6] = math.sqrt(0.5 / cyy), reach, opacity
        for k in range(3):
            splats[i, 7 + k] = max(colors[i, k], np.float32(0))


@_kernel
def _bin(boxes, tile_rows, tile_columns):  # type: ignore[no-untyped-def]
    """Members of each tile in the order of `boxes`: tile j owns members[starts[j]] to members[starts[j + 1]]."""
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


@_kernel
def _blend(canvas, splats, boxes, starts, members, tile_row, tile_columns):  # type: ignore[no-untyped-def]
    """Blend one row of tiles into canvas (height, width, 4): RGB and transmittance, negative once the pixel is finished."""
    height, width = canvas.shape[:2]
    one, half, cap, floor = np.float32(1), np.float32(0.5), np.float32(MAX_ALPHA), np.float32(MIN_TRANSMITTANCE)
    top, bottom = tile_row * TILE, min(tile_row * TILE + TILE, height) - 1
    for tile_column in range(tile_columns):
        left, right = tile_column * TILE, min(tile_column * TILE + TILE, width) - 1
        tile = tile_row * tile_columns + tile_column
        unfinished = (bottom - top + 1) * (right - left + 1)
        for k in range(starts[tile], starts[tile + 1]):
            i = members[k]
            x, y, l11, l21, l22 = splats[i, 0], splats[i, 1], splats[i, 2], splats[i, 3], splats[i, 4]
            reach, opacity, r, g, b = splats[i, 5], splats[i, 6], splats[i, 7], splats[i, 8], splats[i, 9]
            for row in range(max(top, boxes[i, 0]), min(bottom, boxes[i, 1]) + 1):
                dy = np.float32(row) + half - y
                vertical = l22 * dy * l22 * dy
                if vertical > reach:
                    continue
                # The ellipse cuts this row where |l11 dx + l21 dy| = sqrt(reach - vertical).
                span, shift = math.sqrt(reach - vertical), l21 * dy
                first = max(left, boxes[i, 2], math.ceil(x - half - (span + shift) / l11))
                last = min(right, boxes[i, 3], math.floor(x - half + (span - shift) / l11))
                for column in range(first, last + 1):
                    light = canvas[row, column, 3]
                    if light < 0:
                        continue
                    horizontal = l11 * (np.float32(column) + half - x) + shift
                    alpha = min(cap, opacity * math.exp(-vertical - horizontal * horizontal))
                    passed = light * (one - alpha)
                    if passed < floor:
                        canvas[row, column, 3] = -light
                        unfinished -= 1
                        continue
                    weight = light * alpha
                    canvas[row, column, 0] += weight * r
                    canvas[row, column, 1] += weight * g
                    canvas[row, column, 2] += weight * b
                    canvas[row, column, 3] = passed
            if unfinished == 0:
                break
