"""A surface that resists being bent and stretched: as rigid as possible around each vertex (Sorkine and Alexa 2007).

Axes: v vertex, e edge in each of its two directions.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array

from ss4d.stages.meshing.shell import Shell

Doubles = NDArray[np.float64]

STIFFNESS = 0.1, 3.0  # least and most of an edge; a cotangent can be negative, or huge in thin triangles
SHARED = 0.5  # of a vertex's rotation that its neighbors have a say in, against crumpling


class ElasticSurface:
    """A surface in the shape that it wants to keep."""

    def __init__(self, rest: Shell) -> None:
        self.count = len(rest.vertices)
        positions = rest.vertices.astype(np.float64)
        pairs, stiffness = _edges(positions, rest.faces)
        self.start, self.end = np.concatenate([pairs, pairs[:, ::-1]]).T
        self.stiffness = np.concatenate([stiffness, stiffness])
        self.sides = positions[self.end] - positions[self.start]

    @cached_property
    def laplacian(self) -> csr_array:
        """(v, v): how much each vertex is held by each other."""
        return csr_array(diags_array(self._neighbors.sum(axis=1)) - self._neighbors)

    def rotations(self, positions: Doubles) -> Doubles:
        """How the surface around each vertex is turned (v, 3, 3) where the vertices are at `positions` (v, 3)."""
        sides = positions[self.end] - positions[self.start]
        products = (self.stiffness[:, None, None] * sides[:, :, None] * self.sides[:, None, :]).reshape(-1, 9)
        around = self._at_start @ products
        around = (1 - SHARED) * around + SHARED * (self._mean @ around)
        left, _, right = np.linalg.svd(around.reshape(-1, 3, 3))
        left[:, :, 2] *= np.linalg.det(left @ right)[:, None]
        rotations: Doubles = left @ right
        return rotations

    def pull(self, rotations: Doubles) -> Doubles:
        """(v, 3), which the Laplacian of the positions equals where nothing else pulls."""
        mean = (rotations[self.start] + rotations[self.end]) / 2
        pulls: Doubles = self._at_start @ (-self.stiffness[:, None] * np.einsum("eij,ej->ei", mean, self.sides))
        return pulls

    @cached_property
    def _neighbors(self) -> csr_array:
        return csr_array(coo_array((self.stiffness, (self.start, self.end)), shape=(self.count, self.count)))

    @cached_property
    def _mean(self) -> csr_array:
        """(v, v): the mean over a vertex's neighbors."""
        return csr_array(diags_array(1 / self._neighbors.sum(axis=1)) @ self._neighbors)

    @cached_property
    def _at_start(self) -> csr_array:
        """(v, e): the sum over the edges from a vertex."""
        rows = np.arange(len(self.start))
        return csr_array(coo_array((np.ones(len(rows)), (self.start, rows)), shape=(self.count, len(rows))))


def _edges(positions: Doubles, faces: NDArray[np.int32]) -> tuple[NDArray[np.int64], Doubles]:
    """Every edge once (e, 2), and its stiffness (e): half the cotangents of the angles opposite to it."""
    pairs, cotangents = [], []
    for k in range(3):
        a, b, opposite = faces[:, k], faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        one, other = positions[a] - positions[opposite], positions[b] - positions[opposite]
        area = np.linalg.norm(np.cross(one, other), axis=1)
        cotangents.append(np.einsum("fk,fk->f", one, other) / np.maximum(area, 1e-12))
        pairs.append(np.sort(np.stack([a, b], axis=1), axis=1))
    edges, rows = np.unique(np.concatenate(pairs), axis=0, return_inverse=True)
    summed = np.bincount(rows.reshape(-1), np.concatenate(cotangents), len(edges)) / 2
    return edges.astype(np.int64), np.clip(summed, *STIFFNESS)
