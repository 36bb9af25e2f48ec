"""Balls and soft characters that bounce, squash and stretch; they face +y, z is up."""

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.common import both, eyes, shifted, stretched, turned
from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import BLACK, gradient, random_palette, random_pattern
from ss4d.stages.data.shapes import ellipsoid, limb, revolve, tube


def build(rng: Generator, time: Doubles) -> list[Part]:
    """One bouncing thing: a patterned ball, a cube, or a creature with a face."""
    palette = random_palette(rng)
    rate, phase = rng.uniform(0.5, 1.1), rng.random()
    size = 0.3
    wide, tall = size * rng.uniform(0.8, 1.2), size * rng.uniform(0.8, 1.2)
    squareness = rng.choice([2.0, rng.uniform(2, 3), rng.uniform(3, 7)], p=[0.5, 0.25, 0.25])
    skin = random_pattern(rng, palette.main, palette.second, plain=0.05)
    parts = [ellipsoid(wide, wide, tall, squareness=squareness, detail=48).painted(skin)]
    face = rng.random() < 0.5
    if face:
        parts += _face(rng, wide, tall, palette.dark)
        parts += _top(rng, palette.accent, palette.second, wide, tall)
    place = (rate * time + phase) % 1
    height = rng.uniform(0.15, 0.7) * 4 * place * (1 - place)  # thrown up, falling down
    contact = np.exp(-((np.minimum(place, 1 - place) / 0.1) ** 2))
    fast = np.abs(2 * place - 1)
    tallness = 1 + rng.uniform(0.05, 0.2) * fast - rng.uniform(0.3, 0.55) * contact
    flat = 1 / np.sqrt(tallness)
    if not face:
        spin = rng.uniform(60, 240) * rng.choice([-1, 1])
        parts = turned(turned(parts, "x", rng.uniform(0, 90)), "z", rng.uniform(0, 360))
        parts = turned(parts, str(rng.choice(["x", "y", "z"])), spin * time)
    else:
        parts = turned(parts, "z", rng.uniform(0, 25) * np.sin(2 * np.pi * (rate * time / 2 + phase)))
    drift = rng.uniform(0, 0.15) * np.sin(np.pi * (rate * time + phase))
    # Squashed toward the ground: the lowest point stays where the height says.
    return shifted(stretched(shifted(parts, z=tall), flat, flat, tallness), drift, 0, height)


def _face(rng: Generator, wide: float, tall: float, dark: Doubles) -> list[Part]:
    parts = eyes(rng, wide * rng.uniform(0.28, 0.42), wide * 0.9, tall * 0.25, rng.uniform(0.05, 0.08))
    bow = rng.uniform(-0.03, 0.08)
    x = np.linspace(-1, 1, 10) * wide * rng.uniform(0.2, 0.4)
    mouth = np.stack((x, wide * 0.98 - x**2 / wide * 0.6, -tall * 0.25 - bow * (1 - (x / x[-1]) ** 2)), -1)
    parts.append(tube(mouth, 0.018, across=(0, 1, 0), segments=8).painted(BLACK))
    if rng.random() < 0.7:
        foot = ellipsoid(wide * 0.35, wide * 0.5, 0.06, detail=14).painted(dark)
        parts += both([foot.shifted(wide * 0.4, wide * 0.15, -tall)])
    return parts


def _top(rng: Generator, accent: Doubles, second: Doubles, wide: float, tall: float) -> list[Part]:
    kind = rng.integers(4)
    if kind == 0:  # ears
        share = rng.uniform(0.5, 1.4)
        ear = ellipsoid(wide * 0.18, wide * 0.1, tall * share * 0.5, detail=16).painted(
            gradient(accent, second, width=0.4)
        )
        return both([ear.shifted(z=tall * (0.8 + share * 0.3)).turned("y", rng.uniform(10, 35))])
    if kind == 1:  # horns
        return both([limb((wide * 0.4, 0, tall * 0.75), (wide * 0.75, 0, tall * 1.35), 0.06, 0.01).painted(accent)])
    if kind == 2:  # a bobble
        stalk = limb((0, 0, tall * 0.9), (0, 0, tall * 1.3), 0.02).painted(second)
        return [stalk, ellipsoid(0.06, 0.06, 0.06, detail=14).painted(accent).shifted(z=tall * 1.4)]
    brim = [(0, 0.02), (wide * 0.9, 0), (wide * 0.95, 0.03), (wide * 0.55, 0.05), (wide * 0.5, 0.2), (0, 0.22)]
    return [revolve(brim, segments=24).painted(gradient(accent, second, width=0.1)).shifted(z=tall * 0.86)]
