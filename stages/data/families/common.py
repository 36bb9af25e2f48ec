"""What several families of objects are made with: cycles, joints, eyes; objects face +y, z is up, +x is their right."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import BLACK, WHITE
from ss4d.stages.data.shapes import ellipsoid, limb


def cycle(time: Doubles, rate: float, phase: float = 0.0) -> Doubles:
    """A sine (t,) of `rate` periods a second, `phase` periods ahead."""
    return np.sin(2 * np.pi * (rate * time + phase))


def turned(parts: Sequence[Part], axis: str, degrees: ArrayLike, about: ArrayLike = (0.0, 0.0, 0.0)) -> list[Part]:
    """Every part turned alike; see `Part.turned`."""
    return [part.turned(axis, degrees, about) for part in parts]


def shifted(parts: Sequence[Part], x: ArrayLike = 0.0, y: ArrayLike = 0.0, z: ArrayLike = 0.0) -> list[Part]:
    """Every part moved alike; see `Part.shifted`."""
    return [part.shifted(x, y, z) for part in parts]


def stretched(parts: Sequence[Part], x: ArrayLike = 1.0, y: ArrayLike = 1.0, z: ArrayLike = 1.0) -> list[Part]:
    """Every part scaled alike; see `Part.stretched`."""
    return [part.stretched(x, y, z) for part in parts]


def both(parts: Sequence[Part]) -> list[Part]:
    """The parts and their mirror images on the other side."""
    return [*parts, *(part.mirrored() for part in parts)]


def eyes(rng: Generator, x: float, y: float, z: float, size: float) -> list[Part]:
    """A pair of eyes that look to the front and a little outwards."""
    white = ellipsoid(size, size, size, detail=12).painted(WHITE)
    pupil = ellipsoid(size * 0.62, size * 0.35, size * 0.62, detail=12).painted(BLACK)
    glint = ellipsoid(size * 0.2, size * 0.15, size * 0.2, detail=8).painted(WHITE)
    gaze = rng.uniform(0.1, 0.4) * size
    eye = [
        white,
        pupil.shifted(gaze * 0.5, size * 0.78, 0),
        glint.shifted(gaze * 0.5 + size * 0.2, size * 1.1, size * 0.25),
    ]
    if rng.random() < 0.4:  # plain dark eyes
        eye = [white.painted(BLACK), glint.shifted(size * 0.3, size * 0.85, size * 0.35)]
    return both(shifted(eye, x, y, z))


def leg(
    hip: Sequence[float], length: float, radius: float, swing: Doubles, knee: Doubles, *, foot: float
) -> list[Part]:
    """A leg of two segments and a foot.

    Args:
        hip: where it is hung up.
        length: of the straight leg.
        radius: at the hip.
        swing: (t,) degrees, forward positive.
        knee: (t,) degrees that the lower leg is bent backward.
        foot: half length of the foot.
    """
    middle = (0.0, 0.0, -length / 2)
    lower = [
        limb(middle, (0, 0, -length + radius * 0.5), radius * 0.75, radius * 0.6),
        ellipsoid(radius * 0.95, foot, radius * 0.6, detail=14).shifted(0, foot * 0.35, -length + radius * 0.4),
    ]
    whole = [limb((0, 0, 0), middle, radius, radius * 0.75), *turned(lower, "x", -knee, middle)]
    return shifted(turned(whole, "x", swing), *hip)
