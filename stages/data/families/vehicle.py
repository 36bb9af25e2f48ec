"""Cars, trucks, buses and locomotives with turning wheels; they face +y, z is up."""

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.common import both, cycle, shifted, turned
from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import BLACK, METAL, WHITE, Palette, random_palette, random_pattern, rgb, shade
from ss4d.stages.data.shapes import cylinder, ellipsoid, limb

GLASS = np.array([0.55, 0.75, 0.88])


def build(rng: Generator, time: Doubles) -> list[Part]:
    """One vehicle that drives on the spot and rocks on its springs."""
    palette = random_palette(rng)
    length, wide = rng.uniform(0.4, 0.6), rng.uniform(0.2, 0.28)
    radius = rng.uniform(0.09, 0.17)
    rate, turns = rng.uniform(0.7, 1.4), rng.uniform(0.4, 1.3) * rng.choice([-1, 1], p=[0.15, 0.85])
    kind = rng.choice(["car", "truck", "bus", "train"])
    floor = radius * rng.uniform(0.9, 1.3)
    if kind == "car":
        body = _car(rng, palette, length, wide)
    elif kind == "bus":
        body = _bus(rng, palette, length, wide)
    else:
        body = (_truck if kind == "truck" else _train)(rng, palette, length, wide, time, rate)
    body = shifted(body, z=floor)
    bounce = rng.uniform(0.005, 0.03) * cycle(time, 2 * rate)
    roll = rng.uniform(0, 4) * cycle(time, rate, rng.random())
    body = turned(turned(body, "y", roll), "x", rng.uniform(0, 4) * cycle(time, rate, rng.random()))
    axles = (-0.62, 0.62) if kind != "train" else (-0.68, 0.0, 0.68)
    wheel = _wheel(rng, palette, radius, rng.uniform(0.04, 0.07))
    steer = rng.uniform(0, 20) * cycle(time, rate / 2, rng.random())
    wheels: list[Part] = []
    for place in axles:
        rolled = turned(wheel, "x", -360 * turns * time + rng.uniform(0, 360))
        for side in (-1, 1):
            placed = rolled if side > 0 else [part.mirrored() for part in rolled]
            placed = turned(placed, "z", steer) if place > 0.5 and kind != "train" else placed
            wheels += shifted(placed, side * wide * 0.95, place * length, radius)
    return [*shifted(body, z=bounce), *wheels]


def _box(x: float, y: float, z: float, squareness: float, detail: int = 24) -> Part:
    return ellipsoid(x, y, z, squareness=squareness, detail=detail)


def _wheel(rng: Generator, palette: Palette, radius: float, half: float) -> list[Part]:
    tire = cylinder(radius, 2 * half, edge=0.5, segments=26).turned("y", 90).painted(BLACK * 1.5)
    rim_color = METAL if rng.random() < 0.5 else palette.accent
    rim = cylinder(radius * 0.62, 2 * half + 0.015, segments=20).turned("y", 90).painted(rim_color)
    count = int(rng.integers(2, 5))
    spoke = _box(0.012, radius * 0.13, radius * 0.55, 4, 10).painted(palette.dark).shifted(x=half + 0.01)
    spokes = [spoke.turned("x", 180 * index / count) for index in range(count)]
    mark = (
        ellipsoid(0.02, radius * 0.14, radius * 0.14, detail=10).painted(WHITE).shifted(half + 0.01, 0, radius * 0.45)
    )
    return [tire, rim, *spokes, mark]


def _lamps(length: float, wide: float, z: float) -> list[Part]:
    front = ellipsoid(0.045, 0.025, 0.045, detail=12).painted((1.0, 0.95, 0.6))
    back = ellipsoid(0.045, 0.02, 0.03, detail=10).painted((0.85, 0.08, 0.08))
    bar = _box(wide * 0.95, 0.03, 0.025, 4, 14).painted(METAL)
    lamps = both([front.shifted(wide * 0.62, length, z), back.shifted(wide * 0.65, -length, z)])
    return [*lamps, bar.shifted(0, length, z - 0.09), bar.shifted(0, -length, z - 0.09)]


def _windows(x: float, y: float, z: float, squareness: float) -> list[Part]:
    """Panes that stand a little out of a cabin of half sizes x, y, z."""
    sides = _box(x * 1.015, y * 0.78, z * 0.5, squareness, 20).painted(GLASS)
    ends = _box(x * 0.8, y * 1.015, z * 0.5, squareness, 20).painted(GLASS)
    pillar = _box(x * 1.03, y * 0.06, z * 0.7, 4, 12).painted(METAL)
    return shifted([sides, ends, pillar], z=z * 0.15)


def _car(rng: Generator, palette: Palette, length: float, wide: float) -> list[Part]:
    hull, squareness = rng.uniform(0.08, 0.13), rng.uniform(2.8, 6)
    paint = random_pattern(rng, palette.main, palette.second, plain=0.5)
    cabin = (wide * 0.85, length * rng.uniform(0.4, 0.6), rng.uniform(0.1, 0.16))
    top = [
        _box(*cabin, squareness).painted(palette.second if rng.random() < 0.5 else palette.main),
        *_windows(*cabin, squareness),
    ]
    parts = [
        _box(wide, length, hull, squareness, 34).painted(paint).shifted(z=hull),
        *_lamps(length * 0.97, wide, hull),
    ]
    if rng.random() < 0.3:
        light = cylinder(0.04, 0.06).painted(rgb(rng.choice([0, 0.6]), 0.9, 0.95))
        top.append(light.shifted(z=cabin[2]))
    if rng.random() < 0.3:
        wing = _box(wide, 0.06, 0.015, 4, 16).painted(palette.accent)
        parts += [
            wing.shifted(0, -length * 0.9, hull * 2 + 0.1),
            *both([limb((wide * 0.6, -length * 0.9, hull), (wide * 0.6, -length * 0.9, hull * 2 + 0.1), 0.02)]),
        ]
    return [*parts, *shifted(top, y=-length * rng.uniform(0.0, 0.2), z=2 * hull + cabin[2] * 0.7)]


def _truck(rng: Generator, palette: Palette, length: float, wide: float, time: Doubles, rate: float) -> list[Part]:
    cabin = (wide * 0.95, length * rng.uniform(0.24, 0.34), rng.uniform(0.16, 0.22))
    squareness = rng.uniform(4, 7)
    place = length - cabin[1]
    frame = _box(wide * 0.9, length, 0.045, 5).painted(palette.dark).shifted(z=0.045)
    cab = [_box(*cabin, squareness).painted(palette.main), *_windows(*cabin, squareness)]
    rest = length - cabin[1] - 0.02
    if rng.random() < 0.5:
        tall = rng.uniform(0.16, 0.28)
        load = (
            _box(wide, rest, tall, 7, 34)
            .painted(random_pattern(rng, palette.second, palette.accent, plain=0.1))
            .shifted(z=tall)
        )
    else:  # a tipper that goes up and down
        tall = rng.uniform(0.09, 0.16)
        load = (
            _box(wide, rest, tall, 6, 28)
            .painted(random_pattern(rng, palette.second, palette.accent, plain=0.5))
            .shifted(z=tall)
        )
        tip = rng.uniform(10, 30) * (0.5 + 0.5 * cycle(time, rate / 2, rng.random()))
        load = load.turned("x", tip, (0, -rest, 0))
    lamps = _lamps(length * 0.98, wide, 0.12)
    return [frame, *shifted(cab, y=place, z=0.07 + cabin[2]), load.shifted(0, -cabin[1] - 0.02, 0.08), *lamps]


def _bus(rng: Generator, palette: Palette, length: float, wide: float) -> list[Part]:
    tall, squareness = rng.uniform(0.2, 0.32), rng.uniform(4.5, 8)
    hull = _box(wide, length, tall, squareness, 40)
    panes = []
    count = int(rng.integers(3, 6))
    for place in np.linspace(-0.72, 0.72, count):
        pane = _box(wide * 1.02, length * 0.62 / count, tall * 0.3, 5, 14).painted(GLASS)
        panes.append(pane.shifted(0, place * length, tall * 1.35))
    front = _box(wide * 0.8, length * 1.015, tall * 0.32, 5, 18).painted(GLASS).shifted(z=tall * 1.3)
    belt = _box(wide * 1.01, length * 1.005, 0.03, squareness, 24).painted(palette.accent).shifted(z=tall * 0.75)
    paint = random_pattern(rng, palette.main, palette.second, plain=0.4)
    return [hull.painted(paint).shifted(z=tall), *panes, front, belt, *_lamps(length, wide, 0.1)]


def _train(rng: Generator, palette: Palette, length: float, wide: float, time: Doubles, rate: float) -> list[Part]:
    boiler = (
        cylinder(wide * 0.75, length * 1.3, edge=0.3)
        .turned("x", 90)
        .painted(random_pattern(rng, palette.main, palette.second, plain=0.3))
    )
    cabin = (wide, length * 0.34, rng.uniform(0.22, 0.3))
    chimney = cylinder(0.06, 0.24, top=rng.uniform(0.05, 0.11)).painted(palette.dark)
    puff = 0.09 * (0.7 + 0.3 * cycle(time, rate * 1.5))
    smoke = ellipsoid(1, 1, 0.8, detail=14).stretched(puff, puff, puff).painted(shade(rng, WHITE, 0.1))
    drift = 0.05 * cycle(time, rate)
    high = wide * 0.75 * 2
    return [
        _box(wide * 0.95, length, 0.05, 5).painted(palette.dark).shifted(z=0.05),
        boiler.shifted(0, length * 0.3, 0.08 + wide * 0.75),
        *shifted([_box(*cabin, 6).painted(palette.second), *_windows(*cabin, 6)], y=-length * 0.62, z=0.08 + cabin[2]),
        _box(wide * 1.15, length * 0.42, 0.03, 5)
        .painted(palette.accent)
        .shifted(0, -length * 0.62, 0.09 + 2 * cabin[2]),
        chimney.shifted(0, length * 0.7, high + 0.14),
        smoke.shifted(0, length * 0.65 - np.abs(drift), high + 0.36 + drift),
        ellipsoid(0.08, 0.08, 0.08, detail=16).painted(palette.accent).shifted(0, length * 0.25, high + 0.06),
        ellipsoid(0.06, 0.03, 0.06, detail=14).painted((1.0, 0.95, 0.6)).shifted(0, length * 0.97, 0.08 + wide * 0.75),
    ]
