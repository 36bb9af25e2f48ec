"""One surface moved through a clip: the surface of a key frame, brought onto that of every other frame.

Each step pairs points of the moving surface with the nearest points of the frame's own that face the same way, both
ways, and moves its vertices toward them as rigidly as possible; what resists falls from step to step (non-rigid
iterative closest points, after Amberg et al. 2007, with the energy of Sorkine and Alexa 2007 in place of theirs). It
resists by its shape in the key frame throughout, and each frame is compared with its own surface, so that errors of
shape do not add up along the clip; what can is a sliding along the surface.

Axes: t frame, v vertex, p point.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from ss4d.stages.meshing.elastic import ElasticSurface
from ss4d.stages.meshing.shell import Shell
from ss4d.stages.meshing.surface_points import SurfacePoints, spread_points, unit_normals
from ss4d.stages.ops.triangles import Floats
from ss4d.stages.types import Progress, silent

Doubles = NDArray[np.float64]

RESISTANCE = np.geomspace(1e-2, 3e-4, 8)  # of the surface, step by step, where the mean of squared distances has 1
POINTS = 2  # for each triangle
TURN = 0.08  # world units that a unit normal counts for where the nearest point is looked for
SAME_WAY = 0.3  # least cosine between the normals of a pair
BELIEVED = 0.1  # world units between two points that are still likely to belong together
STAY = 1e-6  # resistance of a vertex that nothing pulls


class _Target:
    """A frame's own surface: points (p, 3) and unit normals (p, 3), and a tree of both."""

    def __init__(self, shell: Shell) -> None:
        spots = spread_points(shell, POINTS * len(shell.faces))
        self.points = spots.of(shell.vertices)
        self.normals = _unit(spots.of(unit_normals(shell.vertices, shell.faces)))
        self.tree = cKDTree(np.hstack([self.points, TURN * self.normals]))


class _Moving:
    """The surface that is moved."""

    def __init__(self, rest: Shell) -> None:
        self.faces = rest.faces
        self.elastic = ElasticSurface(rest)
        self.spots: SurfacePoints = spread_points(rest, POINTS * len(rest.faces))
        rows = np.arange(len(self.spots.faces)).repeat(3)
        entries = (self.spots.weights.reshape(-1), (rows, self.spots.faces.reshape(-1)))
        self.at_spots = csr_array(coo_array(entries, shape=(len(self.spots.faces), len(rest.vertices))))

    def step(self, positions: Doubles, target: _Target, resistance: float) -> Doubles:
        """The positions (v, 3) nearer to the target."""
        weights, wanted = self._pairs(positions, target)
        pulled = self.at_spots.T @ diags_array(weights) @ self.at_spots
        stay = STAY * diags_array(np.ones(len(positions)))
        # The matrix is symmetric and positive definite, so that no pivoting is needed.
        solver = splu(
            (resistance * self.elastic.laplacian + pulled + stay).tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        toward = self.at_spots.T @ wanted + STAY * positions
        for _ in range(2):
            rotations = self.elastic.rotations(positions)
            positions = solver.solve(resistance * self.elastic.pull(rotations) + toward)
        return positions

    def _pairs(self, positions: Doubles, target: _Target) -> tuple[Doubles, Doubles]:
        """How strongly each of the surface's points is pulled (p), and that times where to (p, 3)."""
        points = self.at_spots @ positions
        normals = _unit(self.at_spots @ unit_normals(positions, self.faces))
        both = np.hstack([points, TURN * normals])
        _, there = target.tree.query(both)
        _, here = cKDTree(both).query(target.tree.data)
        out = _belief(points, target.points[there], normals, target.normals[there])
        back = _belief(points[here], target.points, normals[here], target.normals)
        weights = out + np.bincount(here, back, len(points))
        wanted = out[:, None] * target.points[there]
        for axis in range(3):
            wanted[:, axis] += np.bincount(here, back * target.points[:, axis], len(points))
        return weights, wanted


def _belief(points: Doubles, others: Doubles, normals: Doubles, their_normals: Doubles) -> Doubles:
    """How much each pair counts (p), 1 altogether if all lie close."""
    apart = np.linalg.norm(points - others, axis=1)
    facing = np.einsum("pk,pk->p", normals, their_normals) > SAME_WAY
    belief: Doubles = facing / (1 + (apart / BELIEVED) ** 2) ** 2 / len(points)
    return belief


def _unit(vectors: Doubles) -> Doubles:
    unit: Doubles = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def register(shells: Sequence[Shell], key: int, *, progress: Progress = silent) -> Floats:
    """The vertices (t, v, 3) of the key frame's surface on those of all frames.

    From the key frame it goes both ways; each frame begins where its neighbor ended.

    Args:
        shells: the frames' own surfaces, none empty.
        key: the frame whose surface is moved.
        progress: told after each frame.
    """
    moving = _Moving(shells[key])
    found = np.empty((len(shells), *shells[key].vertices.shape), np.float32)
    found[key] = shells[key].vertices
    progress(1, len(shells))
    done = 1
    for way in (range(key + 1, len(shells)), range(key - 1, -1, -1)):
        positions = shells[key].vertices.astype(np.float64)
        for t in way:
            target = _Target(shells[t])
            for resistance in RESISTANCE:
                positions = moving.step(positions, target, resistance)
            found[t] = positions
            done += 1
            progress(done, len(shells))
    return found
