"""Build the closed surfaces objects are made of: rings of vertices along a curve, with a pole at either end.

Axes: t frame (1 where nothing moves), n ring, v vertex. Shapes stand along z about the origin unless a curve says else.
"""

import numpy as np
from numpy.typing import ArrayLike

from ss4d.stages.data.mesh import Doubles, Integers, Part

GRAY = 0.6


def rings(centers: Doubles, across: Doubles, over: Doubles, *, segments: int, squareness: float = 2.0) -> Part:
    """The surface through the rings center + across cos + over sin; the first and the last ring must be points.

    Args:
        centers: (t or 1, n, 3).
        across: (t or 1, n, 3) half an axis of each ring's ellipse.
        over: (t or 1, n, 3) the other half axis; across x over points to the next ring.
        segments: vertices a ring.
        squareness: exponent of the ring's superellipse: 2 an ellipse, 8 nearly a rectangle, 1 a diamond.
    """
    angle = np.arange(segments) * (2 * np.pi / segments)
    cos, sin = np.cos(angle), np.sin(angle)
    # The radius along each direction, which spreads vertices evenly over flat sides, too.
    radius = (np.abs(cos) ** squareness + np.abs(sin) ** squareness) ** (-1 / squareness)
    cos, sin = (cos * radius)[:, None], (sin * radius)[:, None]
    inner = slice(1, -1)
    body = centers[:, inner, None] + across[:, inner, None] * cos + over[:, inner, None] * sin
    t, n = body.shape[:2]
    first, last = (np.broadcast_to(centers[:, end], (t, 1, 3)) for end in ([0], [-1]))
    length = np.linalg.norm(np.diff(centers[0], axis=0), axis=-1).cumsum()
    along = np.concatenate(([0.0], length)) / max(length[-1], 1e-9)
    width, depth = (np.linalg.norm(axis[0, inner], axis=-1)[:, None] for axis in (across, over))
    height = np.broadcast_to((along[inner] * length[-1])[:, None], (n, segments))
    local = np.stack((width * cos[:, 0], depth * sin[:, 0], height), -1).reshape(-1, 3)
    return Part(
        vertices=np.concatenate((first, body.reshape(t, -1, 3), last), axis=1),
        faces=_faces(n, segments),
        local=np.concatenate(([[0, 0, 0]], local, [[0, 0, length[-1]]])),
        along=np.concatenate(([0.0], np.repeat(along[inner], segments), [1.0])),
        colors=np.full((n * segments + 2, 3), GRAY),
    )


def loft(curve: ArrayLike, widths: ArrayLike, depths: ArrayLike, *, across: ArrayLike = (1.0, 0.0, 0.0),
         segments: int = 16, squareness: float = 2.0) -> Part:  # fmt: skip
    """A body along a curve; with a small depth, a sheet: a wing, a petal, a fin.

    Args:
        curve: (n, 3) or (t, n, 3) points; the first and the last are the tips.
        widths: (n) or (t, n) half width along `across`; the ends do not count.
        depths: (n) or (t, n) half width along the third direction.
        across: (3) or (t, n, 3): roughly the direction of the width, never along the curve.
        segments: vertices a ring.
        squareness: see `rings`.
    """
    centers = np.asarray(curve, np.float64)
    centers = centers[None] if centers.ndim == 2 else centers
    tangent = _unit(np.gradient(centers, axis=1))
    hint = np.broadcast_to(np.asarray(across, np.float64), centers.shape)
    side = _unit(hint - tangent * (hint * tangent).sum(-1, keepdims=True))
    third = np.cross(tangent, side)
    width, depth = (np.asarray(size, np.float64)[..., None] for size in (widths, depths))
    return rings(centers, side * width, third * depth, segments=segments, squareness=squareness)


def tube(curve: ArrayLike, radii: ArrayLike, *, across: ArrayLike = (1.0, 0.0, 0.0), segments: int = 12,
         flat: float = 1.0) -> Part:  # fmt: skip
    """A tube along a curve (n, 3) or (t, n, 3) with rounded ends.

    Args:
        curve: the axis.
        radii: (n) or (t, n), or one number.
        across: see `loft`.
        segments: vertices a ring.
        flat: depth over width.
    """
    centers = np.asarray(curve, np.float64)
    centers = centers[None] if centers.ndim == 2 else centers
    radius = np.broadcast_to(np.asarray(radii, np.float64), centers.shape[:2])
    angle = np.radians([90, 67.5, 45, 22.5])
    start, end = (_unit(centers[:, i] - centers[:, j])[:, None] for i, j in ((0, 1), (-1, -2)))
    before = centers[:, :1] + start * (np.sin(angle) * radius[:, :1])[..., None]
    after = centers[:, -1:] + end * (np.sin(angle[::-1]) * radius[:, -1:])[..., None]
    cap, cap_end = np.cos(angle) * radius[:, :1], np.cos(angle[::-1]) * radius[:, -1:]
    sizes = np.concatenate((cap, radius, cap_end), axis=1)
    return loft(np.concatenate((before, centers, after), axis=1), sizes, sizes * flat, across=across, segments=segments)


def limb(
    start: ArrayLike, end: ArrayLike, radius: float, end_radius: float | None = None, *, segments: int = 12
) -> Part:
    """A straight tapered tube with rounded ends between two points (3) or (t, 3)."""
    first, last = np.broadcast_arrays(np.atleast_2d(np.asarray(start, float)), np.atleast_2d(np.asarray(end, float)))
    share = np.linspace(0, 1, 7)
    curve = first[:, None] + (last - first)[:, None] * share[:, None]
    radii = radius + ((radius if end_radius is None else end_radius) - radius) * share
    # The width may not lie along the limb: take the axis that is most across it over the clip.
    hint = np.eye(3)[np.abs(last - first).max(0).argmin()]
    return tube(curve, radii, across=hint, segments=segments)


def ellipsoid(x: float, y: float, z: float, *, squareness: float = 2.0, detail: int = 24) -> Part:
    """An ellipsoid of the given half axes; with a larger squareness, a box with rounded edges."""
    angle = np.linspace(-90, 90, detail // 2 + 3) * np.pi / 180
    cos, sin = np.cos(angle), np.sin(angle)
    radius = (np.abs(cos) ** squareness + np.abs(sin) ** squareness) ** (-1 / squareness)
    profile = np.stack((cos * radius, sin * radius), -1)
    return revolve(profile, segments=detail, squareness=squareness).stretched(x, y, z).solid()


def revolve(profile: ArrayLike, *, segments: int = 24, squareness: float = 2.0) -> Part:
    """The surface around z of a profile (n, 2) or (t, n, 2) of (radius, height) that starts and ends on the axis.

    The solid lies to the left of the profile's way: upwards outside, downwards inside.
    """
    points = np.asarray(profile, np.float64)
    points = points[None] if points.ndim == 2 else points
    zero = np.zeros_like(points[..., 0])
    centers = np.stack((zero, zero, points[..., 1]), -1)
    across, over = np.stack((points[..., 0], zero, zero), -1), np.stack((zero, points[..., 0], zero), -1)
    return rings(centers, across, over, segments=segments, squareness=squareness)


def cylinder(radius: float, height: float, *, top: float | None = None, edge: float = 0.12, segments: int = 24) -> Part:
    """A drum about z from -height / 2 to height / 2; `top` is its upper radius, `edge` rounds the rims."""
    top = radius if top is None else top
    low, high = -height / 2, height / 2
    bevel = edge * min(max(radius, top), height) / 2
    flat = np.linspace(0, 1, 4)[:-1, None] * (radius - bevel, 0) + (0, low)
    share = np.linspace(0, 1, 6)[:, None]
    wall = (1 - share) * (radius, low + bevel) + share * (top, high - bevel)
    lid = np.linspace(1, 0, 4)[1:, None] * (max(top - bevel, 0), 0) + (0, high)
    rim = [[max(top - bevel, 1e-3), high]]
    return revolve(np.concatenate((flat, [[max(radius - bevel, 1e-3), low]], wall, rim, lid)), segments=segments)


def bend(length: float, *, curl: ArrayLike = 0.0, num: int = 12) -> Doubles:
    """A curve (t, n, 3) of the given length that starts upwards along z and turns by `curl` degrees (t,) toward +y."""
    share = np.linspace(0, 1, num)
    angle = np.radians(np.atleast_1d(np.asarray(curl, np.float64)))[:, None] * share
    step = length / (num - 1)
    middle = (angle[:, 1:] + angle[:, :-1]) / 2
    walk = np.stack((np.zeros_like(middle), np.sin(middle), np.cos(middle)), -1) * step
    return np.concatenate((np.zeros((len(angle), 1, 3)), walk.cumsum(1)), axis=1)


def swell(share: Doubles, *, peak: float = 0.5, power: float = 1.0) -> Doubles:
    """A leaf's outline: 0 at 0 and 1, 1 at `peak`; a larger power makes it more pointed."""
    bow = np.where(share < peak, share / peak, (1 - share) / (1 - peak))
    return np.sin(np.clip(bow, 0, 1) * np.pi / 2) ** power


def _unit(vectors: Doubles) -> Doubles:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))


def _faces(num_rings: int, segments: int) -> Integers:
    """Triangles (f, 3) over: first pole, `num_rings` rings of `segments` vertices, last pole."""
    here = np.arange(segments)
    following = (here + 1) % segments
    start = 1 + segments * np.arange(num_rings - 1)[:, None]
    a, b, c, d = start + here, start + following, start + segments + here, start + segments + following
    last = 1 + segments * (num_rings - 1)
    pole, far = np.zeros_like(here), np.full_like(here, last + segments)
    return np.concatenate(
        (
            np.stack((pole, 1 + following, 1 + here), -1),
            np.stack((a, b, d), -1).reshape(-1, 3),
            np.stack((a, d, c), -1).reshape(-1, 3),
            np.stack((last + here, last + following, far), -1),
        )
    ).astype(np.int32)
