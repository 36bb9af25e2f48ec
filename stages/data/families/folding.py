"""Things that open and close: umbrellas, gift boxes, chests and jack-in-the-boxes; they face +y, z is up."""

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.common import both, cycle, eyes, shifted, turned
from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import METAL, WOOD, Palette, gradient, random_palette, random_pattern, sectors, stripes
from ss4d.stages.data.shapes import cylinder, ellipsoid, limb, revolve, tube


def build(rng: Generator, time: Doubles) -> list[Part]:
    """One of the folding toys."""
    palette = random_palette(rng)
    rate, phase = rng.uniform(0.35, 0.8), rng.random()
    share = 0.5 + 0.5 * cycle(time, rate, phase)  # how far open, 0 to 1
    return (_umbrella, _chest, _jack)[rng.integers(3)](rng, time, palette, share)


def _umbrella(rng: Generator, time: Doubles, palette: Palette, share: Doubles) -> list[Part]:
    length, ribs = rng.uniform(0.5, 0.65), int(rng.integers(6, 11))
    place = np.linspace(0, 1, 20)
    lean = np.radians(rng.uniform(12, 25) + rng.uniform(45, 58) * share)[:, None]
    angle = lean + np.radians(rng.uniform(15, 40)) * (place - 0.3) * -1
    steps = np.stack((np.sin(angle), -np.cos(angle)), -1) * length / 19
    outer = np.concatenate((np.zeros_like(steps[:, :1]), steps[:, 1:].cumsum(1)), 1)
    outer[:, :, 0] = np.maximum(outer[:, :, 0], 0)
    normal = np.stack((np.cos(angle), np.sin(angle)), -1)
    inner = outer - 0.022 * normal
    inner[:, :, 0] = np.maximum(inner[:, :, 0], 0)
    canopy = revolve(np.concatenate((inner, outer[:, ::-1]), 1), segments=4 * ribs)
    if rng.random() < 0.7:
        canopy = canopy.solid().painted(sectors(palette.main, palette.second, count=ribs // 2))
    else:
        canopy = canopy.painted(random_pattern(rng, palette.main, palette.second, plain=0))
    height = rng.uniform(0.75, 0.95)
    hook = [(0, 0, -height), (0, 0.01, -height - 0.06), (0, 0.06, -height - 0.11), (0, 0.12, -height - 0.06)]
    parts = [
        canopy,
        limb((0, 0, 0.1), (0, 0, -height), 0.018).painted(METAL),
        tube(hook, 0.028).painted(palette.accent),
        ellipsoid(0.03, 0.03, 0.05, detail=12).painted(palette.accent).shifted(z=0.1),
    ]
    parts = turned(parts, "z", rng.uniform(-90, 90) * time)
    return turned(turned(parts, "x", rng.uniform(-25, 25)), "y", rng.uniform(-15, 15) * cycle(time, 0.5, rng.random()))


def _chest(rng: Generator, time: Doubles, palette: Palette, share: Doubles) -> list[Part]:
    """A box with a lid; what is inside comes out as it opens."""
    x, y, z, thick = rng.uniform(0.3, 0.42), rng.uniform(0.22, 0.34), rng.uniform(0.15, 0.26), 0.025
    skin = random_pattern(rng, palette.main if rng.random() < 0.6 else WOOD, palette.second, plain=0.15)
    side = ellipsoid(thick, y, z, squareness=8, detail=22).painted(skin)
    front = ellipsoid(x, thick, z, squareness=8, detail=26).painted(skin)
    parts = [
        ellipsoid(x, y, thick, squareness=8).painted(skin).shifted(z=thick - z),
        *both([side.shifted(x - thick)]),
        front.shifted(y=y - thick),
        front.shifted(y=thick - y),
    ]
    trim = ellipsoid(0.035, 0.02, 0.05, squareness=3, detail=12).painted(palette.accent)
    angle = rng.uniform(60, 115) * share
    hinge = (0.0, -y, z)
    if rng.random() < 0.5:  # a rounded lid
        lid = [
            cylinder(y, 2 * x * 1.02, edge=0.1, segments=28).turned("y", 90).stretched(z=0.5).painted(skin).shifted(z=z)
        ]
    else:
        lid = [
            ellipsoid(x * 1.05, y * 1.05, 0.05, squareness=7, detail=26)
            .painted(gradient(palette.second, palette.main, axis=0))
            .shifted(z=z + 0.04)
        ]
    ribbon = ellipsoid(0.05, y * 1.06, 0.06, squareness=7, detail=18).painted(palette.accent).shifted(z=z + 0.04)
    if rng.random() < 0.5:
        lid.append(ribbon)
        parts.append(ellipsoid(0.05, 0.01, z, squareness=7, detail=16).painted(palette.accent).shifted(y=y))
        bow = ellipsoid(0.1, 0.05, 0.06, detail=14).painted(palette.accent)
        lid += both([bow.turned("y", -25).shifted(0.09, 0, z + 0.14)])
    lid.append(trim.shifted(0, y * 1.02, z))
    rise = share * rng.uniform(0.1, 0.4)
    treasure = ellipsoid(0.13, 0.13, 0.13, squareness=rng.choice([1.2, 2, 4]), detail=20)
    treasure = treasure.painted(random_pattern(rng, palette.accent, palette.second, plain=0.2)).turned("z", 120 * time)
    return [*parts, *turned(lid, "x", angle, hinge), treasure.shifted(0, 0, rise)]


def _jack(rng: Generator, time: Doubles, palette: Palette, share: Doubles) -> list[Part]:
    """A box whose four flaps open while a head on a spring comes up."""
    half, tall = rng.uniform(0.2, 0.28), rng.uniform(0.18, 0.26)
    skin = random_pattern(rng, palette.main, palette.second, plain=0.1)
    box = ellipsoid(half, half, tall, squareness=9, detail=30).painted(skin)
    flap = (
        ellipsoid(half * 0.95, half * 0.45, 0.015, squareness=8, detail=18)
        .painted(palette.second)
        .shifted(0, half * 0.5, tall + 0.02)
    )
    open_angle = rng.uniform(110, 200) * share
    flaps = [flap.turned("x", -open_angle, (0, half, tall + 0.02)).turned("z", 90 * index) for index in range(4)]
    rise = 0.1 + rng.uniform(0.3, 0.6) * share
    turns = np.linspace(0, rng.integers(4, 7), 70)
    height = tall - 0.15 + rise[:, None] * np.linspace(0, 1, 70) + 0.0
    angle = 2 * np.pi * turns + 0 * height
    coil = np.stack((0.09 * np.cos(angle), 0.09 * np.sin(angle), height), -1)
    spring = tube(coil, 0.018, across=(0, 0, 1), segments=8).painted(METAL)
    size = rng.uniform(0.13, 0.19)
    head = [
        ellipsoid(size, size, size).painted(palette.second),
        *eyes(rng, size * 0.42, size * 0.85, size * 0.2, size * 0.2),
        ellipsoid(size * 0.2, size * 0.2, size * 0.2, detail=12).painted((0.9, 0.15, 0.15)).shifted(y=size),
        cylinder(size * 0.75, size * 1.6, top=0.01)
        .painted(stripes(palette.accent, palette.main, count=4))
        .shifted(z=size * 1.4),
    ]
    sway = rng.uniform(5, 20) * cycle(time, rng.uniform(0.8, 1.4)) * share
    head = shifted(turned(head, "y", sway), 0.002 * sway, 0, tall - 0.1 + rise + size * 0.5)
    return [box, *flaps, spring, *head]
