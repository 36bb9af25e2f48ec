"""Cuts triangles up over a clip: into finer ones, along a border of what is to be kept, and down to what faces use.

Axes: t frame, v vertex, f face, e edge, k value.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Faces = NDArray[np.int64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles that move.

    Attributes:
        vertices: (t, v, 3) float32.
        faces: (f, 3).
        normals: (t, v, 3) float32, of any length.
        values: (v, k) what else each vertex has, such as a color.
    """

    vertices: Floats
    faces: Faces
    normals: Floats
    values: Doubles

    def halved(self, chosen: Callable[[Faces], Mask], check: Callable[[int], None]) -> "Surface":
        """With the chosen edges cut in the middle; faces on both sides of an edge are cut alike.

        Args:
            chosen: which of the edges (e, 2).
            check: called before with the number of faces that there will be.
        """
        count = self.vertices.shape[1]
        ends = np.sort(np.stack((self.faces, np.roll(self.faces, -1, 1)), -1), -1).reshape(-1, 2)
        names, which = np.unique(ends[:, 0] * count + ends[:, 1], return_inverse=True)
        edges = np.stack((names // max(count, 1), names % max(count, 1)), -1)
        cut = chosen(edges)
        if not cut.any():
            return self
        check(len(self.faces) + int(cut[which].sum()))  # each edge of a face that is cut adds a face
        middle = np.full(len(edges), -1)
        middle[cut] = count + np.arange(cut.sum())
        a, b = edges[cut].T
        return Surface(
            vertices=np.concatenate((self.vertices, (self.vertices[:, a] + self.vertices[:, b]) / 2), axis=1),
            faces=_retriangulated(self.faces, middle[which.reshape(-1, 3)]),
            normals=np.concatenate((self.normals, (self.normals[:, a] + self.normals[:, b]) / 2), axis=1),
            values=np.concatenate((self.values, (self.values[a] + self.values[b]) / 2)),
        )

    def longer(self, edges: Faces, length: float) -> Mask:
        """Which edges (e, 2) are longer than `length` in some frame."""
        longest = np.zeros(len(edges), np.float32)
        for frame in self.vertices:  # not all at once, which would take the memory of all frames' edges
            longest = np.maximum(longest, np.linalg.norm(frame[edges[:, 0]] - frame[edges[:, 1]], axis=-1))
        return np.asarray(longest > length)

    def cut(self, height: NDArray[np.floating], at: float) -> "Surface":
        """Only what has at least the height `at`, where height (v,) runs straight along edges.

        A corner on the border has the values and the normal of the end of its edge that is kept: what is cut away
        often has none that mean anything.
        """
        inside = height >= at
        kept = inside[self.faces]
        count = kept.sum(1)
        # Turn each face so that its one kept corner comes first, or its one lost corner last.
        turn = np.where(count == 1, kept.argmax(1), np.where(count == 2, (np.argmin(kept, 1) + 1) % 3, 0))
        faces = np.take_along_axis(self.faces, (turn[:, None] + np.arange(3)) % 3, 1)
        one, two = faces[count == 1], faces[count == 2]
        crossed = np.concatenate((one[:, [0, 1]], one[:, [0, 2]], two[:, [1, 2]], two[:, [0, 2]]))
        size = max(self.vertices.shape[1], 1)
        names, which = np.unique(crossed[:, 0] * size + crossed[:, 1], return_inverse=True)
        first, last = names // size, names % size
        share = ((height[first] - at) / (height[first] - height[last])).astype(np.float32)[:, None]
        border = self.vertices[:, first] + share * (self.vertices[:, last] - self.vertices[:, first])
        new = self.vertices.shape[1] + which.reshape(-1)
        ab, ac, bc, ca = np.split(new, np.cumsum((len(one), len(one), len(two))))
        made = ((one[:, 0], ab, ac), (two[:, 0], two[:, 1], bc), (two[:, 0], bc, ca))
        return Surface(
            vertices=np.concatenate((self.vertices, border), axis=1),
            faces=np.concatenate((faces[count == 3], *(np.stack(corners, -1) for corners in made))),
            normals=np.concatenate((self.normals, self.normals[:, first]), axis=1),
            values=np.concatenate((self.values, self.values[first])),
        ).compact()

    def compact(self) -> "Surface":
        """Without the vertices that no face uses."""
        used, faces = np.unique(self.faces, return_inverse=True)
        if len(used) == self.vertices.shape[1]:
            return self
        return replace(
            self,
            vertices=self.vertices[:, used],
            faces=faces.reshape(-1, 3),
            normals=self.normals[:, used],
            values=self.values[used],
        )


def _retriangulated(faces: Faces, middles: Faces) -> Faces:
    """Faces (f, 3) with the middles (f, 3) of their edges 01, 12, 20 as new corners; -1 where an edge stays whole."""
    cut = middles >= 0
    count = cut.sum(1)
    # Turn each face so that its one cut edge comes first, or its one whole edge last.
    turn = np.where(count == 1, cut.argmax(1), np.where(count == 2, (np.argmin(cut, 1) + 1) % 3, 0))
    order = (turn[:, None] + np.arange(3)) % 3
    (a, b, c), (p, q, r) = np.take_along_axis(faces, order, 1).T, np.take_along_axis(middles, order, 1).T
    shapes = {
        0: [(a, b, c)],
        1: [(a, p, c), (p, b, c)],
        2: [(a, p, c), (p, q, c), (p, b, q)],
        3: [(a, p, r), (p, b, q), (r, q, c), (p, q, r)],
    }
    return np.concatenate([np.stack(face, -1)[count == cuts] for cuts, made in shapes.items() for face in made])
