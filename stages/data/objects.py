"""Makes an object from its family and its seed; the same two give the same object on every call."""

import zlib

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.table import FAMILIES
from ss4d.stages.data.mesh import AnimatedMesh, assemble
from ss4d.stages.errors import InputError
from ss4d.stages.ops.geometry import FRONT_YAW

FPS = 12.0  # frames a second of the objects' motion


def stream(seed: int, purpose: str) -> Generator:
    """A random generator of its own for each seed and purpose, so that one draw more here changes nothing elsewhere."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def family_of(seed: int) -> str:
    """The family a seed stands for where none is asked for."""
    return sorted(FAMILIES)[stream(seed, "family").integers(len(FAMILIES))]


def make_object(family: str | None, seed: int, num_frames: int) -> AnimatedMesh:
    """An object of `family`, or of one that the seed chooses, in world space with its front at `FRONT_YAW`.

    Args:
        family: a name in `FAMILIES`, or None.
        seed: from 0.
        num_frames: length of the clip at 12 frames a second.

    Raises:
        InputError: for an unknown family.
    """
    family = family or family_of(seed)
    if family not in FAMILIES:
        raise InputError(f"No family of objects is called {family}; take one of {', '.join(sorted(FAMILIES))}.")
    rng = stream(seed, family)
    heading = FAMILIES[family].heading * rng.choice([-1, 1])
    parts = FAMILIES[family].build(rng, np.arange(num_frames) / FPS)
    # Families build with the front toward +y, which the camera of yaw 0 looks at; the world's front is at FRONT_YAW,
    # and a camera's yaw turns from +y toward +x: clockwise, seen from above.
    return assemble([part.turned("z", heading - FRONT_YAW) for part in parts], num_frames)
