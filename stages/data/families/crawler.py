"""Small animals with many legs: beetles, ladybirds, spiders and crabs; they face +y, z is up."""

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.common import both, cycle, eyes, shifted, turned
from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import Palette, random_palette, random_pattern, shade, spots
from ss4d.stages.data.shapes import ellipsoid, limb, tube


def build(rng: Generator, time: Doubles) -> list[Part]:
    """One animal that walks on six or eight legs."""
    palette = random_palette(rng)
    pairs = int(rng.choice([3, 4]))
    rate, phase = rng.uniform(0.7, 1.4), rng.random()
    wide, long, tall = rng.uniform(0.2, 0.3), rng.uniform(0.2, 0.38), rng.uniform(0.13, 0.24)
    back = random_pattern(rng, palette.main, palette.second, plain=0.05)
    if rng.random() < 0.35:
        back = spots(rng, palette.main, palette.dark, count=int(rng.integers(6, 16)), size=rng.uniform(0.15, 0.28))
    height = rng.uniform(0.16, 0.3)
    body = [ellipsoid(wide, long, tall, squareness=rng.uniform(2, 2.6), detail=36).painted(back).shifted(y=-long * 0.3)]
    size = rng.uniform(0.1, 0.16)
    body += shifted(_head(rng, time, palette, size, rate), y=long * 0.75, z=-0.02)
    if rng.random() < 0.35:
        body += _claws(rng, time, palette, wide, long, rate)
    bob = 0.015 * cycle(time, 2 * rate, phase)
    parts = shifted(turned(body, "x", rng.uniform(-5, 12)), z=height + bob)
    reach, radius = rng.uniform(0.3, 0.5), rng.uniform(0.022, 0.04)
    color = shade(rng, palette.dark if rng.random() < 0.5 else palette.main)
    foot = palette.accent if rng.random() < 0.4 else color
    for index in range(pairs):
        place = index / (pairs - 1) - 0.5
        for side in (-1, 1):
            ahead = phase + 0.5 * ((index + (side > 0)) % 2)
            step = _leg(time, rate, ahead, reach, radius, height, rng.uniform(0.2, 0.3))
            pair = [step[0].painted(color), step[1].painted(foot)]
            pair = turned(pair, "z", place * rng.uniform(60, 75))
            pair = pair if side > 0 else [part.mirrored() for part in pair]
            parts += shifted(pair, side * wide * 0.6, place * long * 0.9, 0)
    return parts


def _leg(
    time: Doubles, rate: float, phase: float, reach: float, radius: float, height: float, arch: float
) -> list[Part]:
    """A leg toward +x from the body's height over a knee down to the ground, stepping along y."""
    stride, lift = 0.3 * reach * cycle(time, rate, phase), 0.1 * np.clip(cycle(time, rate, phase + 0.25), 0, None)
    zero = np.zeros_like(stride)
    hip = np.stack((zero, zero, zero + height), -1)
    knee = np.stack((zero + reach * 0.5, stride * 0.5, zero + height + arch * 0.6 + lift * 0.5), -1)
    toe = np.stack((zero + reach, stride, lift + radius), -1)
    return [limb(hip, knee, radius * 1.2, radius), limb(knee, toe, radius, radius * 0.6)]


def _head(rng: Generator, time: Doubles, palette: Palette, size: float, rate: float) -> list[Part]:
    color = palette.dark if rng.random() < 0.4 else shade(rng, palette.main)
    bow = size * np.array([(0.3, 0.5, 0.6), (0.7, 1.2, 1.5), (1.2, 1.5, 2.0)])
    feeler = tube(bow, [0.018, 0.014, 0.014], segments=8)
    sway = rng.uniform(3, 12) * cycle(time, rate, rng.random())
    parts = [
        ellipsoid(size, size * 0.9, size * 0.9, detail=22).painted(color),
        *both([feeler.turned("x", sway).painted(palette.dark)]),
    ]
    if rng.random() < 0.4:  # eyes on stalks
        stalk = limb((size * 0.45, size * 0.4, size * 0.5), (size * 0.5, size * 0.5, size * 1.3), 0.02).painted(color)
        return [*parts, *both([stalk]), *eyes(rng, size * 0.5, size * 0.5, size * 1.4, size * 0.3)]
    return [*parts, *eyes(rng, size * 0.45, size * 0.68, size * 0.3, size * rng.uniform(0.22, 0.36))]


def _claws(rng: Generator, time: Doubles, palette: Palette, wide: float, long: float, rate: float) -> list[Part]:
    size = rng.uniform(0.09, 0.13)
    snap = rng.uniform(8, 22) * (1 + cycle(time, rate))
    jaw = ellipsoid(size * 0.4, size, size * 0.45, detail=16).painted(palette.accent).shifted(size * 0.3, size * 0.8, 0)
    claw = [jaw.turned("z", -snap), jaw.mirrored().turned("z", snap)]
    arm = limb((0, 0, 0), (0.18, 0.2, 0.08), 0.035).painted(palette.main)
    whole = [arm, *shifted(turned(claw, "z", 15), 0.18, 0.2, 0.08)]
    wave = rng.uniform(4, 15) * cycle(time, rate / 2, rng.random())
    return both(shifted(turned(whole, "x", 10 + wave), wide * 0.6, long * 0.4, 0))
