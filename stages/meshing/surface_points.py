"""Points spread evenly over surfaces, and how far apart surfaces are. Axes: p point, v vertex, f face."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ss4d.stages.data.mesh import mean_normals
from ss4d.stages.meshing.shell import Shell
from ss4d.stages.ops.triangles import Floats, Integers

Doubles = NDArray[np.float64]

# Steps of a sequence in the plane that leaves no gaps (Roberts 2018): powers of the root of x^3 = x + 1.
STEPS = np.array([0.7548776662466927, 0.5698402909980532])
NEAR = 4  # points of a surface whose triangles are looked at for the nearest one
JUDGED = 10_000  # points of each surface by which two are compared


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """Where points lie on a surface, however its vertices move.

    Attributes:
        faces: (p, 3) vertices of the triangle that each lies in.
        weights: (p, 3) of these vertices, which add up to 1.
    """

    faces: Integers
    weights: Doubles

    def of(self, values: NDArray[np.floating]) -> Doubles:
        """What lies at each point (p, c), from what lies at the vertices (v, c)."""
        places: Doubles = np.einsum("pk,pkc->pc", self.weights, values[self.faces])
        return places


def spread_points(shell: Shell, count: int) -> SurfacePoints:
    """So many points, the same for the same surface: each stands for an equal area."""
    corners = shell.vertices.astype(np.float64)[shell.faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    upto = np.cumsum(areas)
    rows = np.searchsorted(upto, (np.arange(count) + 0.5) / count * upto[-1])
    across, along = (np.arange(1, count + 1)[:, None] * STEPS % 1).T
    far = np.sqrt(across)
    weights = np.stack([1 - far, far * (1 - along), far * along], axis=1)
    return SurfacePoints(shell.faces[rows], weights)


def unit_normals(vertices: NDArray[np.floating], faces: Integers) -> Floats:
    """The normals (v, 3) of a surface at its vertices."""
    normals: Floats = mean_normals(np.ascontiguousarray(vertices[None], np.float32), faces)[0]
    return normals


@dataclass(frozen=True)
class Gap:
    """How far two surfaces are apart, world units.

    Attributes:
        chamfer: the mean distance of points of either from the other, and of the two the mean (Chamfer-L1).
        far: what 99 of 100 points stay below, of the surface where it is more.
    """

    chamfer: float
    far: float


def gap(first: Shell, second: Shell) -> Gap:
    """How far two surfaces are apart, by points all over both and the triangles nearest to them."""
    ways = []
    for one, other in ((first, second), (second, first)):
        ways.append(_distances(spread_points(one, JUDGED).of(one.vertices), other))
    return Gap(
        chamfer=float(np.mean([way.mean() for way in ways])),
        far=float(max(np.quantile(way, 0.99) for way in ways)),
    )


def _distances(points: Doubles, shell: Shell) -> Doubles:
    """How far each point (p, 3) is from a surface."""
    spots = spread_points(shell, JUDGED)
    _, nearest = cKDTree(spots.of(shell.vertices)).query(points, k=NEAR)
    corners = shell.vertices.astype(np.float64)[spots.faces[nearest]]
    least: Doubles = _from_triangles(points[:, None], *np.moveaxis(corners, 2, 0)).min(axis=1)
    return least


def _from_triangles(points: Doubles, a: Doubles, b: Doubles, c: Doubles) -> Doubles:
    """How far points are from triangles with corners a, b and c (..., 3)."""
    normals = np.cross(b - a, c - a)
    beside = [np.einsum("...k,...k->...", np.cross(q - p, points - p), normals) for p, q in ((a, b), (b, c), (c, a))]
    length = np.linalg.norm(normals, axis=-1)
    above = np.abs(np.einsum("...k,...k->...", points - a, normals)) / np.maximum(length, 1e-30)
    edges = np.min([_from_segments(points, p, q) for p, q in ((a, b), (b, c), (c, a))], axis=0)
    apart: Doubles = np.where((np.min(beside, axis=0) >= 0) & (length > 1e-30), above, edges)
    return apart


def _from_segments(points: Doubles, a: Doubles, b: Doubles) -> Doubles:
    side = b - a
    squared = np.maximum(np.einsum("...k,...k->...", side, side), 1e-30)
    along = np.clip(np.einsum("...k,...k->...", points - a, side) / squared, 0, 1)
    apart: Doubles = np.linalg.norm(a + along[..., None] * side - points, axis=-1)
    return apart
