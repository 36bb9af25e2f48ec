"""Closed surfaces of solids that are known exactly, each found anew for every frame, as a clip's own are."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ss4d.stages.meshing.isosurface import marching_cubes
from ss4d.stages.meshing.shell import Shell, simplified

Places = NDArray[np.float64]
CELLS = 40


def shell_of(distance: Callable[[Places], Places], faces: int = 1200) -> Shell:
    """The surface where a function of places (..., 3) in the unit cube, negative inside, is zero."""
    ticks = np.linspace(-0.5, 0.5, CELLS)
    values = distance(np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), axis=-1))
    vertices, triangles = marching_cubes(values.astype(np.float32))
    cell = 1 / (CELLS - 1)
    return simplified(Shell((vertices * cell - 0.5).astype(np.float32), triangles), faces, cell)


def ball(places: Places, center: tuple[float, float, float] = (0, 0, 0), radius: float = 0.17) -> Places:
    return np.linalg.norm(places - center, axis=-1) - radius


def pair(places: Places, half: float) -> Places:
    """Two balls, `half` from the middle each."""
    return np.minimum(ball(places, (half, 0, 0)), ball(places, (-half, 0, 0)))


def ring(places: Places, radius: float) -> Places:
    """A tube of radius 0.1 around a circle: a ball with dents where the circle is smaller."""
    return np.hypot(np.hypot(places[..., 0], places[..., 1]) - radius, places[..., 2]) - 0.1


def fish(places: Places) -> Places:
    """A body with a fin above and a tail: no side looks like another."""
    body = np.linalg.norm(places / (0.36, 0.14, 0.16), axis=-1) - 1
    fin = np.linalg.norm((places - (-0.05, 0, 0.2)) / (0.12, 0.05, 0.14), axis=-1) - 1
    tail = np.linalg.norm((places - (0.36, 0, 0)) / (0.1, 0.06, 0.2), axis=-1) - 1
    return np.minimum(np.minimum(body, fin), tail) * 0.1


def waved(places: Places, swing: float) -> Places:
    """Where the places (..., 3) of a fish go as it waves; `-swing` undoes it."""
    moved = places.copy()
    moved[..., 1] += swing * np.sin(5 * places[..., 0])
    return moved


def waving(swing: float) -> Shell:
    return shell_of(lambda places: fish(waved(places, -swing)))
