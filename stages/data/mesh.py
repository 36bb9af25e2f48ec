"""Own animated triangle meshes: closed parts that move and carry colors, and the whole object made of them.

Axes: t frame (1 where nothing moves), v vertex, f face; z is up. While an object is being built its front faces +y and
its right side +x. Faces run counter-clockwise seen from outside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ss4d.stages.data.surface import Mask, Surface
from ss4d.stages.ops.compiled import kernel, spread

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int32]

HALF_EXTENT = (
    0.48  # of the half unit an object may reach along an axis, so that its outermost cells are inside the grid
)
MAX_RADIUS = 0.66  # the sphere that a camera at distance 2 with a field of view of 40 degrees sees whole is 0.684
SOLID = 1 / 3  # opacity below which a surface is no part of an object's shape


@dataclass(frozen=True, eq=False)
class AnimatedMesh:
    """An object over a clip, in world space: within [-0.5, 0.5]^3, z up.

    Attributes:
        vertices: (t, v, 3) float32.
        faces: (f, 3) int32, counter-clockwise seen from outside.
        colors: (v, 3) float32 RGB, 0 to 1, without lighting.
        stored_normals: (t, v, 3) float32, of any length; None where they follow from the faces.
        opacity: (v,) float32, 0 to 1; None where all is opaque.
        one_sided: (v,) alike at all corners of a face: whether its back is not seen; None where backs are never looked
            at, as those of closed parts.
    """

    vertices: Floats
    faces: Integers
    colors: Floats
    stored_normals: Floats | None = None
    opacity: Floats | None = None
    one_sided: Mask | None = None

    @property
    def num_frames(self) -> int:
        return len(self.vertices)

    def at(self, frames: NDArray[np.integer]) -> "AnimatedMesh":
        """The object in these frames (k) alone."""
        normals = None if self.stored_normals is None else self.stored_normals[frames]
        return replace(self, vertices=self.vertices[frames], stored_normals=normals)

    def normals(self) -> Floats:
        """Normals (t, v, 3): the stored ones, else the mean of the faces around each vertex, weighted by area."""
        return mean_normals(self.vertices, self.faces) if self.stored_normals is None else self.stored_normals

    def solid(self, least: float = SOLID) -> "AnimatedMesh":
        """What counts as its shape: without what hides less than a third of what is behind it, such as a shadow.

        Args:
            least: instead of that third.
        """
        if self.opacity is None:
            return self
        sides = np.zeros(len(self.colors)) if self.one_sided is None else self.one_sided
        values = np.column_stack((self.colors, self.opacity, sides)).astype(np.float64)
        cut = Surface(self.vertices, self.faces.astype(np.int64), self.normals(), values).cut(self.opacity, least)
        return AnimatedMesh(
            vertices=cut.vertices,
            faces=cut.faces.astype(np.int32),
            colors=np.ascontiguousarray(cut.values[:, :3], np.float32),
            stored_normals=cut.normals,
            opacity=np.ascontiguousarray(cut.values[:, 3], np.float32),
            one_sided=None if self.one_sided is None else cut.values[:, 4] > 0,
        )


def mean_normals(vertices: Floats, faces: NDArray[np.integer]) -> Floats:
    """Unit normals (t, v, 3): the mean of the faces around each vertex, weighted by area; zero without any."""
    normals = np.zeros_like(vertices)
    whole = np.ascontiguousarray(faces, np.int32)
    spread(partial(_add_normals, frame, whole, out) for frame, out in zip(vertices, normals, strict=True))
    return normals


@dataclass(frozen=True, eq=False)
class Part:
    """One closed surface of an object under construction.

    Attributes:
        vertices: (t or 1, v, 3) positions.
        faces: (f, 3).
        local: (v, 3) each vertex's place in the part at rest, straightened along z; what patterns are painted by.
        along: (v,) 0 at the part's first end to 1 at its last.
        colors: (v, 3) RGB, 0 to 1.
    """

    vertices: Doubles
    faces: Integers
    local: Doubles
    along: Doubles
    colors: Doubles

    def painted(self, paint: Callable[["Part"], Doubles] | ArrayLike) -> "Part":
        """With other colors: one RGB, or what `paint` makes of the part, (v, 3)."""
        colors = paint(self) if callable(paint) else np.asarray(paint, np.float64)
        return replace(self, colors=np.broadcast_to(colors, self.local.shape))

    def shifted(self, x: ArrayLike = 0.0, y: ArrayLike = 0.0, z: ArrayLike = 0.0) -> "Part":
        """Moved by numbers, or by a number a frame (t,)."""
        offset = np.stack(np.broadcast_arrays(*(np.atleast_1d(np.asarray(a, np.float64)) for a in (x, y, z))), -1)
        return replace(self, vertices=self.vertices + offset[:, None])

    def stretched(self, x: ArrayLike = 1.0, y: ArrayLike = 1.0, z: ArrayLike = 1.0) -> "Part":
        """Scaled about the origin by positive numbers, or by a number a frame (t,)."""
        factor = np.stack(np.broadcast_arrays(*(np.atleast_1d(np.asarray(a, np.float64)) for a in (x, y, z))), -1)
        return replace(self, vertices=self.vertices * factor[:, None])

    def turned(self, axis: str, degrees: ArrayLike, about: ArrayLike = (0.0, 0.0, 0.0)) -> "Part":
        """Turned about the axis "x", "y" or "z" through `about` (3) or (t, 3), by an angle or an angle a frame (t,)."""
        matrices = rotation(axis, degrees)
        pivot = np.asarray(about, np.float64).reshape(-1, 1, 3)
        return replace(self, vertices=(self.vertices - pivot) @ matrices.swapaxes(1, 2) + pivot)

    def solid(self) -> "Part":
        """With the first frame's positions as local coordinates, for patterns that run through it as through wood."""
        return replace(self, local=self.vertices[0])

    def mirrored(self) -> "Part":
        """The left part to a right one: x becomes -x."""
        return replace(self, vertices=self.vertices * (-1, 1, 1), faces=self.faces[:, ::-1])


def rotation(axis: str, degrees: ArrayLike) -> Doubles:
    """Matrices (t, 3, 3) that turn counter-clockwise about the axis "x", "y" or "z", seen against it."""
    angle = np.radians(np.atleast_1d(np.asarray(degrees, np.float64)))
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrices = np.tile(np.eye(3), (len(angle), 1, 1))
    matrices[:, first, first] = matrices[:, second, second] = np.cos(angle)
    matrices[:, second, first] = np.sin(angle)
    matrices[:, first, second] = -np.sin(angle)
    return matrices


def assemble(parts: Sequence[Part], num_frames: int) -> AnimatedMesh:
    """The parts as one object of `num_frames` frames, centered and scaled by `fitted`."""
    vertices = [np.broadcast_to(part.vertices, (num_frames, *part.vertices.shape[1:])) for part in parts]
    first = np.cumsum([0] + [len(part.local) for part in parts])
    return AnimatedMesh(
        vertices=fitted(np.concatenate(vertices, axis=1)),
        faces=np.concatenate([part.faces + start for part, start in zip(parts, first, strict=False)]).astype(np.int32),
        colors=np.clip(np.concatenate([part.colors for part in parts]), 0, 1).astype(np.float32),
    )


def fitted(vertices: NDArray[np.floating]) -> Floats:
    """Vertices (t, v, 3) moved and scaled alike in every frame so that the whole clip fills the unit cube.

    The box over all frames is centered on the origin; the object then reaches at most 0.48 along an axis and 0.66 from
    the origin, so that the cameras of docs/model.md, section 9 see it whole.
    """
    return placed(vertices, *fit(vertices))


def fit(vertices: NDArray[np.floating]) -> tuple[Doubles, float]:
    """What `fitted` takes away from vertices (t, v, 3), and then divides them by."""
    center = (np.asarray(vertices.min((0, 1)), np.float64) + np.asarray(vertices.max((0, 1)), np.float64)) / 2
    return center, least_reach(vertices, center)


def least_reach(vertices: NDArray[np.floating], center: Doubles) -> float:
    """The least length that vertices (t, v, 3), counted from `center`, are divided by to fit the unit cube."""
    reach = 0.0
    for frame in vertices:  # in 64 bits, all at once would be many times as large as they are
        centered = np.asarray(frame, np.float64) - center
        squares = (centered**2).sum(-1)
        reach = max(reach, float(np.abs(centered).max()) / HALF_EXTENT, float(np.sqrt(squares.max())) / MAX_RADIUS)
    return reach


def placed(vertices: NDArray[np.floating], center: Doubles, reach: float) -> Floats:
    """Vertices (t, v, 3) from `center` on, in units of `reach`."""
    made = np.empty(vertices.shape, np.float32)
    for frame, out in zip(vertices, made, strict=True):
        out[:] = (np.asarray(frame, np.float64) - center) / reach
    return made


@kernel
def face_normal(vertices, face):  # type: ignore[no-untyped-def]
    """The normal of a face (3) of vertices (v, 3); its length is twice the area."""
    a, b, c = face[0], face[1], face[2]
    x, y, z = vertices[a, 0], vertices[a, 1], vertices[a, 2]
    ux, uy, uz = vertices[b, 0] - x, vertices[b, 1] - y, vertices[b, 2] - z
    vx, vy, vz = vertices[c, 0] - x, vertices[c, 1] - y, vertices[c, 2] - z
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


@kernel
def _add_normals(vertices, faces, normals):  # type: ignore[no-untyped-def]
    """Fills normals (v, 3), which start at zero."""
    for f in range(len(faces)):
        nx, ny, nz = face_normal(vertices, faces[f])
        for corner in range(3):
            v = faces[f, corner]
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz
    for v in range(len(normals)):
        length = np.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2)
        for k in range(3):
            normals[v, k] /= max(length, np.float32(1e-20))
