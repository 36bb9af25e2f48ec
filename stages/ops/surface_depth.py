"""How far away the surface of a frame of Gaussians is, on the CPU.

The mean depth of all that a pixel shows lies behind the surface wherever light comes through it, and between two
surfaces along the edge of one. Here only what takes the first half of a pixel's light counts.

Axes: images are (row, column) with pixel centers at half integers.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from ss4d.stages.ops.compiled import kernel
from ss4d.stages.ops.rasterize import (
    CHECK_EVERY,
    MAX_ALPHA,
    MIP_SPLATTING,
    TILE,
    Floats,
    bin_splats,
    falloff,
    project_all,
)
from ss4d.stages.types import Camera, GaussianClip

HALF = 0.5  # of the light of a pixel, which the surface takes


def surface_depth(gaussians: GaussianClip, camera: Camera) -> Floats:
    """Depth along z (h, w) float32 of what takes the first half of each pixel's light; infinite where nothing does.

    Args:
        gaussians: a clip of one frame.
        camera: where to look from.
    """
    workers = torch.get_num_threads()
    rows, columns = math.ceil(camera.height / TILE), math.ceil(camera.width / TILE)
    depth = np.empty((camera.height, camera.width), np.float32)
    with ThreadPoolExecutor(workers) as pool:
        splats, boxes, _, depths = project_all(gaussians, camera, MIP_SPLATTING, pool, workers)
        starts, members = bin_splats(boxes, rows, columns)
        jobs = [pool.submit(_measure, depth, splats, depths, boxes, starts, members, row) for row in range(rows)]
        for job in jobs:
            job.result()
    return depth


@kernel
def _measure(depth, splats, depths, boxes, starts, members, tile_row):  # type: ignore[no-untyped-def]
    """Fills one row of tiles of depth (h, w)."""
    height, width = depth.shape
    top = tile_row * TILE
    columns = (width + TILE - 1) // TILE
    tile = np.empty((2, TILE, TILE), np.float32)  # depth times light taken, and light left
    one, half = np.float32(1), np.float32(HALF)
    for tile_column in range(columns):
        left = tile_column * TILE
        tile[0], tile[1] = 0, 1
        first, last = starts[tile_row * columns + tile_column], starts[tile_row * columns + tile_column + 1]
        for k in range(first, last):
            i = members[k]
            _take(tile, splats[i], depths[i], boxes[i, 0] - top, boxes[i, 1] - top, left, top)
            if (k - first) % CHECK_EVERY == CHECK_EVERY - 1 and tile[1].max() < half:
                break
        for row in range(min(TILE, height - top)):
            for column in range(min(TILE, width - left)):
                light = tile[1, row, column]
                seen = tile[0, row, column] / (one - light) if light < half else np.float32(np.inf)
                depth[top + row, left + column] = seen


@kernel
def _take(tile, splat, depth, first_row, last_row, left, top):  # type: ignore[no-untyped-def]
    """Lets one splat take light of the rows of a tile that it may touch; see `ss4d.stages.ops.rasterize`."""
    x, y, l11, l21, l22, reach, opacity, _, _, _ = splat
    zero, cap, half = np.float32(0), np.float32(MAX_ALPHA), np.float32(HALF)
    start = np.float32(left) + np.float32(0.5) - x
    for row in range(max(0, first_row), min(TILE - 1, last_row) + 1):
        dy = np.float32(top + row) + np.float32(0.5) - y
        vertical, shift = l22 * dy * l22 * dy, l21 * dy
        total, light = tile[0, row], tile[1, row]
        for column in range(TILE):
            horizontal = l11 * (start + np.float32(column)) + shift
            exponent = vertical + horizontal * horizontal
            alpha = min(cap, opacity * falloff(exponent, reach)) if exponent <= reach else zero
            before = light[column]
            weight = before * alpha if before >= half else zero
            total[column] += weight * depth
            light[column] = before - weight
