"""Trees, palms, firs and cacti that sway in the wind; they face +y, z is up."""

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.common import cycle, shifted
from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import LEAF, WOOD, Palette, gradient, random_palette, rgb, shade, spots, stripes
from ss4d.stages.data.shapes import bend, cylinder, ellipsoid, loft, swell, tube


def build(rng: Generator, time: Doubles) -> list[Part]:
    """One plant on a little mound or in a pot."""
    palette = random_palette(rng)
    hue = rng.uniform(0.2, 0.42) if rng.random() < 0.65 else rng.uniform(-0.12, 0.15)
    leaf = rgb(hue, rng.uniform(0.45, 0.9), rng.uniform(0.35, 0.8))
    rate, phase = rng.uniform(0.35, 0.9), rng.random()
    kind = (_round, _palm, _fir, _cactus)[rng.integers(4)]
    plant = kind(rng, time, palette, leaf, rate, phase)
    width = rng.uniform(0.2, 0.35)
    mound = ellipsoid(width, width, rng.uniform(0.05, 0.1), detail=22).painted(
        shade(rng, LEAF if rng.random() < 0.5 else WOOD, 0.3)
    )
    pot = (
        cylinder(width * 0.6, width, top=width * 0.85)
        .painted(gradient(palette.main, palette.second, width=0.1))
        .shifted(z=-width / 2)
    )
    return [*plant, pot if rng.random() < 0.35 else mound]


def _trunk(
    rng: Generator, time: Doubles, rate: float, phase: float, height: float, radius: float, sway: float
) -> tuple[Part, Doubles]:
    lean = rng.uniform(-15, 15) + 1.6 * sway * cycle(time, rate, phase)
    curve = bend(height, curl=lean, num=16)
    part = tube(curve, radius * (1 - 0.5 * np.linspace(0, 1, 16)), segments=12)
    return part.painted(stripes(shade(rng, WOOD, 0.3), WOOD * 0.7, count=rng.uniform(3, 9), wave=0.2)), curve


def _round(rng: Generator, time: Doubles, palette: Palette, leaf: Doubles, rate: float, phase: float) -> list[Part]:
    height = rng.uniform(0.4, 0.7)
    trunk, curve = _trunk(rng, time, rate, phase, height, rng.uniform(0.05, 0.09), rng.uniform(8, 20))
    parts = [trunk]
    fruit = palette.accent if rng.random() < 0.6 else leaf * 0.7
    for index in range(int(rng.integers(4, 9))):
        size = rng.uniform(0.14, 0.25)
        tone = shade(rng, leaf, 0.2)
        blob = ellipsoid(size, size * rng.uniform(0.8, 1.1), size * rng.uniform(0.7, 1.0), detail=22)
        blob = blob.painted(spots(rng, tone, fruit, count=int(rng.integers(4, 14)), size=0.16))
        angle, out = rng.uniform(0, 360), rng.uniform(0.14, 0.3) * (index > 0)
        stir = 0.04 * cycle(time, rate * 1.5, rng.random())
        x, y = out * np.cos(np.radians(angle)), out * np.sin(np.radians(angle))
        parts.append(blob.shifted(x + stir, y, rng.uniform(-0.08, 0.25) + stir / 2).shifted(*curve[:, -1].T))
    return parts


def _palm(rng: Generator, time: Doubles, palette: Palette, leaf: Doubles, rate: float, phase: float) -> list[Part]:
    trunk, curve = _trunk(rng, time, rate, phase, rng.uniform(0.6, 0.9), rng.uniform(0.045, 0.07), rng.uniform(10, 25))
    count, length = int(rng.integers(6, 10)), rng.uniform(0.4, 0.6)
    share = np.linspace(0, 1, 20)
    outline = length * rng.uniform(0.13, 0.2) * swell(share, peak=0.4)
    rise, fall = rng.uniform(0.2, 0.7), rng.uniform(0.6, 1.3)
    crown: list[Part] = []
    for index in range(count):
        drop = fall * (1 + 0.3 * cycle(time, rate, phase + 0.2 + rng.uniform(-0.1, 0.1)))[:, None]
        blade = np.stack(np.broadcast_arrays(0 * share, share * length, length * (rise * share - drop * share**2)), -1)
        part = loft(blade, outline, 0.018 + 0 * share, segments=12).painted(
            stripes(leaf, leaf * 0.7, count=8, share=0.3)
        )
        crown.append(part.turned("z", 360 * index / count + rng.uniform(-12, 12)))
    nut = ellipsoid(0.055, 0.055, 0.055, detail=12).painted(palette.accent if rng.random() < 0.4 else WOOD * 0.6)
    crown += [nut.shifted(0, 0.06, -0.04).turned("z", 120 * k) for k in range(3)]
    return [trunk, *shifted(crown, *curve[:, -1].T)]


def _fir(rng: Generator, time: Doubles, palette: Palette, leaf: Doubles, rate: float, phase: float) -> list[Part]:
    layers, width, height = int(rng.integers(2, 6)), rng.uniform(0.28, 0.42), rng.uniform(0.7, 1.0)
    parts = [cylinder(0.06, 0.3).painted(WOOD).shifted(z=0.12)]
    decorated = rng.random() < 0.5
    step = height / layers
    for index in range(layers):
        size = width * (1 - 0.7 * index / layers)
        cone = cylinder(size, step * 1.5, top=0.01, edge=0.3, segments=28)
        tone = shade(rng, leaf, 0.1)
        cone = cone.painted(
            spots(rng, tone, palette.accent, count=10, size=0.14)
            if decorated
            else gradient(tone * 0.75, tone, width=0.5)
        )
        sway = rng.uniform(4, 8) * index * cycle(time, rate, phase - 0.05 * index)
        shift = 0.035 * index**1.5 * cycle(time, rate, phase)
        parts.append(cone.turned("y", sway).shifted(shift, 0, 0.25 + step * (index + 0.5)))
    if decorated:
        top = ellipsoid(0.07, 0.07, 0.07, squareness=1.2, detail=16).painted((0.98, 0.82, 0.2))
        parts.append(top.shifted(0.035 * layers**1.5 * cycle(time, rate, phase), 0, 0.3 + height + step * 0.2))
    return parts


def _cactus(rng: Generator, time: Doubles, palette: Palette, leaf: Doubles, rate: float, phase: float) -> list[Part]:
    height, radius = rng.uniform(0.6, 0.9), rng.uniform(0.11, 0.17)
    ribs = stripes(leaf, leaf * 0.65, axis=0, count=5, share=0.3)
    sway = rng.uniform(8, 25) * cycle(time, rate, phase)
    parts = [tube(bend(height, curl=sway, num=14), radius, segments=20).painted(ribs)]
    for side in (-1, 1)[: int(rng.integers(1, 3))]:
        base, reach, up = rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.3), rng.uniform(0.15, 0.35)
        curve = [
            (0, 0, base),
            (side * reach * 0.6, 0, base),
            (side * reach, 0, base + 0.08),
            (side * reach, 0, base + 0.08 + up),
        ]
        share = np.linspace(0, 3, 16)
        smooth = np.stack([np.interp(share, range(4), [point[k] for point in curve]) for k in range(3)], -1)
        arm = tube(smooth, radius * 0.6, across=(0, 1, 0), segments=14).painted(ribs)
        parts.append(
            arm.turned("x", -sway * base / height * 0.8).turned("y", 6 * cycle(time, rate, phase + 0.3), (0, 0, base))
        )
    bloom = ellipsoid(0.07, 0.07, 0.05, detail=14).painted(palette.accent)
    top = bend(height, curl=sway, num=14)[:, -1]
    return [*parts, bloom.shifted(z=radius * 0.95).turned("x", -sway).shifted(*top.T)]
