"""Draw triangles by z-buffer: which one each sample of a picture sees, and where on it.

Axes: v vertex, f face; images are (row, column) with sample centers at half integers; camera space is x right, y down,
z forward. A triangle that reaches behind the camera is left out: cameras stand outside of objects.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ss4d.stages.ops.compiled import kernel
from ss4d.stages.types import Camera

NEAR = 0.01

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Seen:
    """What the samples of a picture see.

    Attributes:
        face: (h, w) int32, -1 where there is none.
        weights: (h, w, 3) float32 of the face's corners, in space rather than on the screen; 0 where there is none.
        depth: (h, w) float32 along z, infinite where there is none.
    """

    face: Integers
    weights: Floats
    depth: Floats

    @staticmethod
    def nothing(height: int, width: int) -> "Seen":
        """What samples see where there is no triangle."""
        return Seen(
            np.full((height, width), -1, np.int32),
            np.zeros((height, width, 3), np.float32),
            np.full((height, width), np.inf, np.float32),
        )


class SeeTriangles(Protocol):
    """What every rasterizer of triangles is called like; see `see_triangles`."""

    def __call__(self, points: Floats, faces: Integers, height: int, width: int) -> Seen: ...


def see_triangles(points: Floats, faces: Integers, height: int, width: int) -> Seen:
    """What each sample sees, on the CPU.

    Args:
        points: (v, 3) float32, x and y in samples and 1 / depth, as `project` gives them; 0 for what is behind.
        faces: (f, 3) int32.
        height: rows of samples.
        width: columns of samples.
    """
    seen = Seen.nothing(height, width)
    _see(points, faces, seen.face, seen.weights, seen.depth)
    return seen


def lens(camera: Camera, left: float = 0.0, top: float = 0.0, scale: float = 1.0) -> Floats:
    """The camera as (5, 4) float32 rows for the kernels.

    Rows 0 to 2 are world to camera; row 3 is focal length and principal point in drawn pixels; row 4 is its place.

    Args:
        camera: where to look from.
        left: of the first pixel drawn, in the camera's pixels.
        top: likewise.
        scale: pixels drawn for each of the camera's.
    """
    center = ((camera.width / 2 - left) * scale, (camera.height / 2 - top) * scale)
    view = np.array(camera.world_to_camera, np.float64)
    eye = -view[:3, :3].T @ view[:3, 3]
    return np.array([*view[:3], [camera.focal * scale, *center, 0], [*eye, 0]], np.float32)


@kernel
def project(vertices, view, scale):  # type: ignore[no-untyped-def]
    """Samples' (x, y) and 1 / depth of each vertex, (v, 3); 1 / depth is 0 behind the camera."""
    points = np.empty_like(vertices)
    focal, center_x, center_y = view[3, 0] * scale, view[3, 1] * scale, view[3, 2] * scale
    for n in range(len(vertices)):
        a, b, c = vertices[n, 0], vertices[n, 1], vertices[n, 2]
        x = view[0, 0] * a + view[0, 1] * b + view[0, 2] * c + view[0, 3]
        y = view[1, 0] * a + view[1, 1] * b + view[1, 2] * c + view[1, 3]
        z = view[2, 0] * a + view[2, 1] * b + view[2, 2] * c + view[2, 3]
        inverse = np.float32(1) / z if z > np.float32(NEAR) else np.float32(0)
        points[n, 0] = focal * x * inverse + center_x
        points[n, 1] = focal * y * inverse + center_y
        points[n, 2] = inverse
    return points


@kernel
def cover(points, faces, nearest, owner, limit):  # type: ignore[no-untyped-def]
    """Fills owner (h, w) with the face each sample sees, -1 for none, and nearest (h, w) with its 1 / depth.

    What is as near as 1 / limit (h, w) or nearer is not seen.
    """
    height, width = owner.shape
    half = np.float32(0.5)
    nearest[:] = 0
    owner[:] = -1
    for f in range(len(faces)):
        x0, y0, i0 = points[faces[f, 0], 0], points[faces[f, 0], 1], points[faces[f, 0], 2]
        x1, y1, i1 = points[faces[f, 1], 0], points[faces[f, 1], 1], points[faces[f, 1], 2]
        x2, y2, i2 = points[faces[f, 2], 0], points[faces[f, 2], 1], points[faces[f, 2], 2]
        area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
        if area == 0 or min(i0, i1, i2) <= 0:
            continue
        left, right = max(np.ceil(min(x0, x1, x2) - half), 0), min(np.floor(max(x0, x1, x2) - half), width - 1)
        top, bottom = max(np.ceil(min(y0, y1, y2) - half), 0), min(np.floor(max(y0, y1, y2) - half), height - 1)
        inverse = np.float32(1) / area
        step1, step2 = (y2 - y0) * inverse, (y0 - y1) * inverse  # how the weights grow with x
        for row in range(int(top), int(bottom) + 1):
            dy = np.float32(row) + half - y0
            dx = np.float32(left) + half - x0
            w1, w2 = dx * step1 - dy * (x2 - x0) * inverse, dy * (x1 - x0) * inverse + dx * step2
            for column in range(int(left), int(right) + 1):
                if w1 >= 0 and w2 >= 0 and w1 + w2 <= 1:
                    depth = i0 + w1 * (i1 - i0) + w2 * (i2 - i0)
                    if depth > nearest[row, column] and depth < limit[row, column]:
                        nearest[row, column] = depth
                        owner[row, column] = f
                w1 += step1
                w2 += step2


@kernel
def weights_at(points, corners, x, y):  # type: ignore[no-untyped-def]
    """The weights of a face's three corners at a sample, in space rather than on the screen."""
    a, b, c = corners
    x0, y0, i0 = points[a, 0], points[a, 1], points[a, 2]
    ux, uy, vx, vy = points[b, 0] - x0, points[b, 1] - y0, points[c, 0] - x0, points[c, 1] - y0
    inverse = np.float32(1) / (ux * vy - uy * vx)
    w1, w2 = ((x - x0) * vy - (y - y0) * vx) * inverse, (ux * (y - y0) - uy * (x - x0)) * inverse
    w0, w1, w2 = (np.float32(1) - w1 - w2) * i0, w1 * points[b, 2], w2 * points[c, 2]
    whole = np.float32(1) / (w0 + w1 + w2)
    return w0 * whole, w1 * whole, w2 * whole


@kernel
def _see(points, faces, face, weights, depth):  # type: ignore[no-untyped-def]
    """Fills face (h, w), weights (h, w, 3) and depth (h, w)."""
    cover(points, faces, depth, face, np.full(depth.shape, np.float32(np.inf)))
    half = np.float32(0.5)
    for row in range(face.shape[0]):
        for column in range(face.shape[1]):
            f = face[row, column]
            if f < 0:
                depth[row, column] = np.inf
                continue
            corners = (faces[f, 0], faces[f, 1], faces[f, 2])
            w0, w1, w2 = weights_at(points, corners, np.float32(column) + half, np.float32(row) + half)
            weights[row, column, 0], weights[row, column, 1], weights[row, column, 2] = w0, w1, w2
            depth[row, column] = np.float32(1) / depth[row, column]
