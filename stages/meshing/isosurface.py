"""The surface where a grid of signed distances is zero, found by one of two packages."""

from collections.abc import Callable, Mapping
from importlib import import_module

import numpy as np

from ss4d.stages.ops.cuda import flexicubes
from ss4d.stages.ops.triangles import Floats, Integers

# From values (x, y, z) that are negative inside, and positive on the grid's border, to vertices (v, 3) in cells from
# the first value and triangles (f, 3), counterclockwise from outside.
IsoSurface = Callable[[Floats], tuple[Floats, Integers]]


def marching_cubes(values: Floats) -> tuple[Floats, Integers]:
    """By scikit-image, on the CPU: Lewiner's marching cubes, whose surfaces are closed."""
    measure = import_module("skimage.measure")
    vertices, faces, _, _ = measure.marching_cubes(values, 0.0, allow_degenerate=False)
    return vertices.astype(np.float32), faces.astype(np.int32)


# Made when they are asked for, since a package may not be there.
ISO_SURFACES: Mapping[str, Callable[[], IsoSurface]] = {
    "marching_cubes": lambda: marching_cubes,
    "flexicubes": flexicubes,
}
