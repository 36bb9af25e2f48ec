"""Depth pictures fused to a grid of signed distances (TSDF, Curless and Levoy 1996). Axes: x, y, z cell.

What cameras look through is outside, what none can see is inside, and near the surface the distances along the
cameras' rays are averaged. So the surface is closed, whatever the pictures lack.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ss4d.stages.meshing.views import Box
from ss4d.stages.ops.compiled import kernel
from ss4d.stages.ops.surface_depth import surface_depth
from ss4d.stages.ops.triangles import lens
from ss4d.stages.types import Camera, GaussianClip

Floats = NDArray[np.float32]

REACH = 3.0  # cells before and behind the surface that a ray tells the distance of
BORDER = 3  # cells around the object, which are outside
FREE = 0.1  # weight of a ray that passes a cell at a distance; one that ends near it has 1


@dataclass(frozen=True, eq=False)
class Field:
    """Signed distances on a grid, negative inside.

    Attributes:
        values: (x, y, z) float32, -1 to 1 in units of the reach.
        origin: (3,) the place of the first value in world space.
        cell: world units from one value to the next.
    """

    values: Floats
    origin: Floats
    cell: float


def fuse(frame: GaussianClip, box: Box, cameras: Sequence[Camera], cells: int) -> Field:
    """The signed distances of a clip of one frame.

    Args:
        frame: with visible Gaussians.
        box: around them.
        cameras: all around it.
        cells: along the longest side of the box.
    """
    sides = np.subtract(box.most, box.least)
    cell = float(sides.max()) / cells
    shape = np.ceil(sides / cell).astype(int) + 2 * BORDER
    origin = (np.array(box.center) - cell * (shape - 1) / 2).astype(np.float32)
    total, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for camera in cameras:
        _add(total, weight, origin, np.float32(cell), lens(camera), surface_depth(frame, camera))
    values = np.where(weight > 0, total / np.maximum(weight, np.float32(FREE)), np.float32(-1))
    return Field(values.astype(np.float32), origin, cell)


@kernel
def _add(total, weight, origin, cell, view, depth):  # type: ignore[no-untyped-def]
    """Adds what a camera sees, depth (h, w) along z and infinite where it sees nothing, to each cell."""
    height, width = depth.shape
    one, scale = np.float32(1), np.float32(1) / (cell * np.float32(REACH))
    for i in range(total.shape[0]):
        x = origin[0] + cell * np.float32(i)
        for j in range(total.shape[1]):
            y = origin[1] + cell * np.float32(j)
            a = view[0, 0] * x + view[0, 1] * y + view[0, 3]
            b = view[1, 0] * x + view[1, 1] * y + view[1, 3]
            c = view[2, 0] * x + view[2, 1] * y + view[2, 3]
            for k in range(total.shape[2]):
                z = origin[2] + cell * np.float32(k)
                away = c + view[2, 2] * z
                inverse = view[3, 0] / away
                column = int((a + view[0, 2] * z) * inverse + view[3, 1])
                row = int((b + view[1, 2] * z) * inverse + view[3, 2])
                inside = 0 <= row < height and 0 <= column < width
                before = (depth[row, column] - away) * scale if inside else np.float32(np.inf)
                if before >= one:
                    total[i, j, k] += np.float32(FREE)
                    weight[i, j, k] += np.float32(FREE)
                elif before > -one:
                    total[i, j, k] += before
                    weight[i, j, k] += one
