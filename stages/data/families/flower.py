"""Flowers that sway and open, alone or in a pot; they face +y, z is up."""

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.common import cycle, shifted, turned
from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import LEAF, WOOD, Palette, gradient, random_palette, random_pattern, rgb, shade, spots
from ss4d.stages.data.shapes import bend, cylinder, ellipsoid, loft, swell, tube


def build(rng: Generator, time: Doubles) -> list[Part]:
    """One to three flowers."""
    palette = random_palette(rng)
    rate, phase = rng.uniform(0.3, 0.8), rng.random()
    green = shade(rng, LEAF, 0.3)
    parts: list[Part] = []
    count = int(rng.choice([1, 1, 2, 3]))
    for index in range(count):
        flower = _flower(rng, time, palette, green, rate, phase + 0.1 * index, (1.0, 0.8, 0.65)[index])
        parts += turned(flower, "z", 0 if index == 0 else (100, -110)[index - 1] + rng.uniform(-25, 25))
    if rng.random() < 0.6:
        width, height = rng.uniform(0.18, 0.3), rng.uniform(0.2, 0.35)
        clay = random_pattern(
            rng, rgb(rng.uniform(0.02, 0.1), 0.6, 0.7) if rng.random() < 0.5 else palette.second, palette.accent
        )
        parts.append(cylinder(width * 0.7, height, top=width).painted(clay).shifted(z=-height / 2))
        parts.append(cylinder(width * 1.12, height * 0.2).painted(palette.second).shifted(z=-height * 0.1))
        parts.append(ellipsoid(width * 0.95, width * 0.95, 0.05, detail=20).painted(WOOD * 0.5))
    return parts


def _flower(
    rng: Generator, time: Doubles, palette: Palette, green: Doubles, rate: float, phase: float, scale: float
) -> list[Part]:
    height = rng.uniform(0.5, 0.9) * scale
    lean = rng.uniform(5, 30) + rng.uniform(8, 22) * cycle(time, rate, phase)
    stem = bend(height, curl=lean, num=16)
    bloom = _bloom(rng, time, palette, rate, phase, rng.uniform(0.22, 0.36) * scale)
    bloom = turned(bloom, "x", -(lean + rng.uniform(0, 25)))
    parts = [tube(stem, rng.uniform(0.018, 0.035), segments=10).painted(green), *shifted(bloom, *stem[:, -1].T)]
    for _ in range(int(rng.integers(0, 4))):
        joint = int(rng.integers(3, 10))
        share = np.linspace(0, 1, 14)
        length = rng.uniform(0.18, 0.35) * scale
        outline = length * rng.uniform(0.2, 0.35) * swell(share, peak=0.45)
        sag = rng.uniform(0.1, 0.6)
        blade = loft(
            np.stack((0 * share, share * length, length * sag * np.sin(share * 2.5)), -1),
            outline,
            0.016 + 0 * share,
            segments=12,
        )
        blade = blade.painted(gradient(shade(rng, green), green * 0.8, axis=0, width=0.2))
        wave = rng.uniform(0, 360) + 6 * cycle(time, rate, phase + 0.2)
        parts.append(blade.turned("x", 5 * cycle(time, rate * 2, phase)).turned("z", wave).shifted(*stem[:, joint].T))
    return turned(parts, "y", rng.uniform(-8, 8) + rng.uniform(2, 10) * cycle(time, rate, phase + 0.25))


def _bloom(rng: Generator, time: Doubles, palette: Palette, rate: float, phase: float, size: float) -> list[Part]:
    """Petals around +z that open and close."""
    center = size * rng.uniform(0.2, 0.4)
    seeds = spots(rng, palette.accent, palette.dark, count=40, size=0.15) if rng.random() < 0.5 else palette.accent
    parts = [ellipsoid(center, center, center * rng.uniform(0.4, 0.8), detail=20).painted(seeds)]
    share = np.linspace(0, 1, 18)
    petals, layers = int(rng.integers(5, 11)), int(rng.choice([1, 2]))
    peak, power, cup = rng.uniform(0.45, 0.75), rng.uniform(0.5, 1.2), rng.uniform(-0.3, 0.5)
    closed, opened = rng.uniform(50, 80), rng.uniform(-10, 35)
    opening = 0.5 + 0.5 * cycle(time, rate, phase + rng.random())
    if rng.random() < 0.3:  # opens once, from bud to bloom
        opening = np.clip(time / max(time[-1], 1e-9) * rng.uniform(0.8, 1.3), 0, 1) if len(time) > 1 else opening
    for layer in range(layers):
        length = size * (1 - 0.3 * layer)
        width = length * min(0.5, 2.6 / petals) * rng.uniform(0.8, 1.1)
        curve = np.stack((0 * share, share * length, cup * length * share**2), -1)
        petal = loft(curve, width * swell(share, peak=peak, power=power), 0.02 + 0 * share, segments=14)
        colors = (palette.second, palette.main) if layer else (palette.main, palette.second)
        petal = petal.painted(gradient(*colors, middle=rng.uniform(-0.5, 0.6), width=rng.uniform(0.1, 0.7)))
        tilt = closed + (opened + 22 * layer - closed) * opening
        for index in range(petals):
            turn = 360 * (index + layer / 2) / petals
            parts.append(petal.turned("x", tilt).shifted(0, center * 0.6, 0.02 * layer).turned("z", turn))
    return parts
