"""Draw animated meshes by z-buffer: soft-edged RGBA, depth and normals, for every camera and frame.

Axes: v view, t frame, images are (row, column); camera space is x right, y down, z forward. Colors are used as they
are shown (no gamma). A triangle that reaches behind the camera is left out: cameras stand outside the object.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ss4d.stages.data.mesh import AnimatedMesh, Floats, Integers, face_normal
from ss4d.stages.ops.compiled import kernel, spread
from ss4d.stages.ops.triangles import cover, lens, project, weights_at
from ss4d.stages.types import Camera

SUPERSAMPLING = 2
MAX_LAYERS = 16  # surfaces that are seen through each other at most
LEAST_LIGHT = 1 / 512  # coming through the nearer ones, below which those behind are not looked at

Vector = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Light:
    """What the object is lit by, fixed in the world.

    A surface of albedo a and normal n shows a (ambient + color max(n . direction, 0)) + highlight color; ambient goes
    from `ground` to `sky` as n turns from down to up. Only the highlight (Blinn-Phong) depends on the camera.

    Attributes:
        direction: (t or 1, 3) float32 unit vectors toward the light.
        color: RGB of the light.
        sky: RGB of ambient light from above.
        ground: RGB of ambient light from below.
        specular: strength of the highlight; 0 for none.
        shininess: exponent of the highlight.
    """

    direction: Floats
    color: Vector
    sky: Vector
    ground: Vector
    specular: float = 0.0
    shininess: float = 20.0


UP = np.array([[0.0, 0.0, 1.0]], np.float32)
# Albedo as it is.
UNLIT = Light(UP, color=(0.0, 0.0, 0.0), sky=(1.0, 1.0, 1.0), ground=(1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Window:
    """A square of a camera's image drawn instead of the whole: corner and side in pixels, and its `size` as drawn."""

    left: float
    top: float
    side: float
    size: int


def render(
    mesh: AnimatedMesh, cameras: Sequence[Camera], light: Light, *, window: Window | None = None
) -> NDArray[np.uint8]:
    """Straight RGBA (v, t, h, w, 4) uint8 of every frame from every camera, all of one size.

    Each pixel is the mean of 2 x 2 samples; its color is that of the covered ones, transparent black without any.

    Args:
        mesh: the object.
        cameras: at least one; all give images of the same size.
        light: lights; `UNLIT` shows the colors alone.
        window: draw this square of each camera's image at its own size.
    """
    lenses = [optics(camera, window) for camera in cameras]
    height, width = lenses[0][1]
    normals = mesh.normals()
    images = np.empty((len(cameras), mesh.num_frames, height, width, 4), np.uint8)
    lamp = np.array([light.color, light.sky, light.ground], np.float32)
    gloss = (np.float32(light.specular), np.float32(light.shininess))
    directions = np.broadcast_to(light.direction.astype(np.float32), (mesh.num_frames, 3))
    spread(
        partial(_drawn, mesh, normals[t], t, view, (directions[t], lamp, *gloss), image[t])
        for (view, _), image in zip(lenses, images, strict=True)
        for t in range(mesh.num_frames)
    )
    return images


def _drawn(
    mesh: AnimatedMesh, normals: Floats, t: int, view: Floats, light: tuple[Any, ...], image: NDArray[np.uint8]
) -> None:
    """Fills image (h, w, 4) with frame t."""
    seen = facing(mesh, normals, t, view[4, :3])
    if seen.opacity is None:
        _draw(seen.vertices, seen.faces, seen.colors, seen.normals, view, *light, image)
    else:
        _draw_layers(seen.vertices, seen.faces, seen.colors, seen.normals, seen.opacity, view, *light, image)


@dataclass(frozen=True, eq=False)
class Facing:
    """A frame of a mesh as one camera sees it: without the backs of one-sided faces, other backs turned round.

    Attributes:
        vertices: (v, 3).
        faces: (f, 3).
        colors: (v, 3).
        normals: (v, 3) toward the camera's side of each face where backs are seen.
        opacity: (v,), or None where all is opaque.
    """

    vertices: Floats
    faces: Integers
    colors: Floats
    normals: Floats
    opacity: Floats | None


def facing(mesh: AnimatedMesh, normals: Floats, t: int, eye: Floats) -> Facing:
    """What of frame t a camera at `eye` (3) sees, given the frame's normals (v, 3)."""
    vertices = mesh.vertices[t]
    if mesh.one_sided is None:
        return Facing(vertices, mesh.faces, mesh.colors, normals, mesh.opacity)
    faces = _turned(vertices, mesh.faces, mesh.one_sided, eye)
    if faces.max(initial=0) < len(vertices):
        return Facing(vertices, faces, mesh.colors, normals, mesh.opacity)
    twice = np.tile(mesh.colors, (2, 1))
    opacity = None if mesh.opacity is None else np.tile(mesh.opacity, 2)
    return Facing(np.tile(vertices, (2, 1)), faces, twice, np.concatenate((normals, -normals)), opacity)


def render_surface(mesh: AnimatedMesh, cameras: Sequence[Camera]) -> tuple[Floats, Floats]:
    """What pixel centers see: depth along z (v, t, h, w), infinite if nothing, and world normals (v, t, h, w, 3)."""
    lenses = [optics(camera, None) for camera in cameras]
    height, width = lenses[0][1]
    normals = mesh.normals()
    depth = np.empty((len(cameras), mesh.num_frames, height, width), np.float32)
    seen = np.empty((*depth.shape, 3), np.float32)
    spread(
        partial(_surveyed, mesh, normals[t], t, view, depth[v, t], seen[v, t])
        for v, (view, _) in enumerate(lenses)
        for t in range(mesh.num_frames)
    )
    return depth, seen


def _surveyed(mesh: AnimatedMesh, normals: Floats, t: int, view: Floats, depth: Floats, seen: Floats) -> None:
    shown = facing(mesh, normals, t, view[4, :3])
    _survey(shown.vertices, shown.faces, shown.normals, view, depth, seen)


def optics(camera: Camera, window: Window | None) -> tuple[Floats, tuple[int, int]]:
    """The camera as `lens` gives it, and the height and width drawn."""
    if window is None:
        return lens(camera), (camera.height, camera.width)
    return lens(camera, window.left, window.top, window.size / window.side), (window.size, window.size)


@kernel
def _facing(normals, corners, weights):  # type: ignore[no-untyped-def]
    """The unit normal at a sample."""
    (a, b, c), (u, v, w) = corners, weights
    x = u * normals[a, 0] + v * normals[b, 0] + w * normals[c, 0]
    y = u * normals[a, 1] + v * normals[b, 1] + w * normals[c, 1]
    z = u * normals[a, 2] + v * normals[b, 2] + w * normals[c, 2]
    inverse = np.float32(1) / max(np.sqrt(x * x + y * y + z * z), np.float32(1e-12))
    return x * inverse, y * inverse, z * inverse


@kernel
def _draw(vertices, faces, colors, normals, view, toward, lamp, specular, shininess, image):  # type: ignore[no-untyped-def]
    """Fills image (h, w, 4) uint8."""
    height, width = image.shape[:2]
    nearest = np.empty((height * SUPERSAMPLING, width * SUPERSAMPLING), np.float32)
    owner = np.empty(nearest.shape, np.int32)
    points = project(vertices, view, np.float32(SUPERSAMPLING))
    cover(points, faces, nearest, owner, np.full(nearest.shape, np.float32(np.inf)))
    half, one = np.float32(0.5), np.float32(1)
    for row in range(height):
        for column in range(width):
            red, green, blue, covered = np.float32(0), np.float32(0), np.float32(0), 0
            for y in range(row * SUPERSAMPLING, (row + 1) * SUPERSAMPLING):
                for x in range(column * SUPERSAMPLING, (column + 1) * SUPERSAMPLING):
                    f = owner[y, x]
                    if f < 0:
                        continue
                    covered += 1
                    corners = (faces[f, 0], faces[f, 1], faces[f, 2])
                    weights = weights_at(points, corners, np.float32(x) + half, np.float32(y) + half)
                    r, g, b = _shade(
                        vertices, colors, normals, corners, weights, view, toward, lamp, specular, shininess
                    )
                    red, green, blue = red + min(r, one), green + min(g, one), blue + min(b, one)
            share = np.float32(255) / np.float32(max(covered, 1))
            image[row, column, 0] = np.uint8(red * share + half)
            image[row, column, 1] = np.uint8(green * share + half)
            image[row, column, 2] = np.uint8(blue * share + half)
            image[row, column, 3] = np.uint8(np.float32(covered * 255) / np.float32(SUPERSAMPLING**2) + half)


@kernel
def _draw_layers(vertices, faces, colors, normals, opacity, view, toward, lamp, specular, shininess, image):  # type: ignore[no-untyped-def]
    """Fills image (h, w, 4) uint8 with what can be seen through: surface behind surface, from the nearest on."""
    height, width = image.shape[:2]
    size = (height * SUPERSAMPLING, width * SUPERSAMPLING)
    nearest, owner = np.empty(size, np.float32), np.empty(size, np.int32)
    limit, left = np.full(size, np.float32(np.inf)), np.ones(size, np.float32)  # the light that still comes through
    total = np.zeros((size[0], size[1], 3), np.float32)
    points = project(vertices, view, np.float32(SUPERSAMPLING))
    half, one = np.float32(0.5), np.float32(1)
    for _ in range(MAX_LAYERS):
        cover(points, faces, nearest, owner, limit)
        more = False
        for y in range(size[0]):
            for x in range(size[1]):
                f = owner[y, x]
                if f < 0:
                    limit[y, x] = 0
                    continue
                corners = (faces[f, 0], faces[f, 1], faces[f, 2])
                weights = weights_at(points, corners, np.float32(x) + half, np.float32(y) + half)
                shade = _shade(vertices, colors, normals, corners, weights, view, toward, lamp, specular, shininess)
                hides = opacity[corners[0]] * weights[0] + opacity[corners[1]] * weights[1]
                hides = min(max(hides + opacity[corners[2]] * weights[2], np.float32(0)), one)
                for k in range(3):
                    total[y, x, k] += left[y, x] * hides * min(shade[k], one)
                left[y, x] *= one - hides
                # Past the same surface, which neighbors along an edge put at depths that differ by a rounding.
                limit[y, x] = nearest[y, x] * np.float32(1 - 1e-5) if left[y, x] > np.float32(LEAST_LIGHT) else 0
                more = more or limit[y, x] > 0
        if not more:
            break
    for row in range(height):
        for column in range(width):
            hidden = np.float32(0)
            color = np.zeros(3, np.float32)
            for y in range(row * SUPERSAMPLING, (row + 1) * SUPERSAMPLING):
                for x in range(column * SUPERSAMPLING, (column + 1) * SUPERSAMPLING):
                    hidden += one - left[y, x]
                    color += total[y, x]
            share = np.float32(255) / max(hidden, np.float32(1e-6))
            for k in range(3):
                image[row, column, k] = np.uint8(min(color[k] * share, np.float32(255)) + half)
            image[row, column, 3] = np.uint8(hidden * np.float32(255) / np.float32(SUPERSAMPLING**2) + half)


@kernel
def _turned(vertices, faces, one_sided, eye):  # type: ignore[no-untyped-def]
    """The faces that are seen from `eye` (3); those whose back is seen name vertices that much further on."""
    made = np.empty_like(faces)
    count = 0
    for f in range(len(faces)):
        x, y, z = face_normal(vertices, faces[f])
        a = faces[f, 0]
        front = x * (eye[0] - vertices[a, 0]) + y * (eye[1] - vertices[a, 1]) + z * (eye[2] - vertices[a, 2])
        if front < 0 and one_sided[faces[f, 0]]:
            continue
        made[count] = faces[f] + (len(vertices) if front < 0 else 0)
        count += 1
    return made[:count]


@kernel
def _shade(vertices, colors, normals, corners, weights, view, toward, lamp, specular, shininess):  # type: ignore[no-untyped-def]
    """The color of a sample; see `Light`."""
    (a, b, c), (u, v, w) = corners, weights
    nx, ny, nz = _facing(normals, corners, weights)
    zero, half = np.float32(0), np.float32(0.5)
    ex = view[4, 0] - (u * vertices[a, 0] + v * vertices[b, 0] + w * vertices[c, 0])
    ey = view[4, 1] - (u * vertices[a, 1] + v * vertices[b, 1] + w * vertices[c, 1])
    ez = view[4, 2] - (u * vertices[a, 2] + v * vertices[b, 2] + w * vertices[c, 2])
    lx, ly, lz = toward
    lit = max(nx * lx + ny * ly + nz * lz, zero)
    gloss = zero
    if specular > 0 and lit > 0:
        scale = np.float32(1) / np.sqrt(ex * ex + ey * ey + ez * ez)
        hx, hy, hz = ex * scale + lx, ey * scale + ly, ez * scale + lz
        shine = (nx * hx + ny * hy + nz * hz) / max(np.sqrt(hx * hx + hy * hy + hz * hz), np.float32(1e-6))
        gloss = specular * max(shine, zero) ** shininess
    up = half + half * nz
    return (
        (u * colors[a, 0] + v * colors[b, 0] + w * colors[c, 0])
        * (lamp[2, 0] + up * (lamp[1, 0] - lamp[2, 0]) + lit * lamp[0, 0])
        + gloss * lamp[0, 0],
        (u * colors[a, 1] + v * colors[b, 1] + w * colors[c, 1])
        * (lamp[2, 1] + up * (lamp[1, 1] - lamp[2, 1]) + lit * lamp[0, 1])
        + gloss * lamp[0, 1],
        (u * colors[a, 2] + v * colors[b, 2] + w * colors[c, 2])
        * (lamp[2, 2] + up * (lamp[1, 2] - lamp[2, 2]) + lit * lamp[0, 2])
        + gloss * lamp[0, 2],
    )


@kernel
def _survey(vertices, faces, normals, view, depth, seen):  # type: ignore[no-untyped-def]
    """Fills depth (h, w) and seen (h, w, 3)."""
    owner = np.empty(depth.shape, np.int32)
    points = project(vertices, view, np.float32(1))
    cover(points, faces, depth, owner, np.full(depth.shape, np.float32(np.inf)))
    half = np.float32(0.5)
    for row in range(depth.shape[0]):
        for column in range(depth.shape[1]):
            f = owner[row, column]
            if f < 0:
                depth[row, column], seen[row, column] = np.inf, 0
                continue
            corners = (faces[f, 0], faces[f, 1], faces[f, 2])
            weights = weights_at(points, corners, np.float32(column) + half, np.float32(row) + half)
            depth[row, column] = np.float32(1) / depth[row, column]
            seen[row, column] = _facing(normals, corners, weights)
