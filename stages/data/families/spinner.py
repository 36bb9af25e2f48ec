"""Things that spin: windmills, spinning tops, carousels and propeller planes; they face +y, z is up."""

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.common import both, cycle, shifted, turned
from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import (
    METAL,
    WHITE,
    WOOD,
    Palette,
    gradient,
    random_palette,
    random_pattern,
    sectors,
    stripes,
)
from ss4d.stages.data.shapes import cylinder, ellipsoid, limb, loft, revolve


def build(rng: Generator, time: Doubles) -> list[Part]:
    """One of the spinning toys, slow enough that frames show which way it turns."""
    palette = random_palette(rng)
    turns = rng.uniform(0.25, 0.7) * rng.choice([-1, 1])  # a second
    angle = 360 * turns * time + rng.uniform(0, 360)
    kind = rng.integers(4)
    if kind == 0:
        return _windmill(rng, palette, angle)
    return (_top, _carousel, _plane)[kind - 1](rng, time, palette, angle)


def _windmill(rng: Generator, palette: Palette, angle: Doubles) -> list[Part]:
    wide, height = rng.uniform(0.18, 0.28), rng.uniform(0.7, 1.0)
    wall = random_pattern(rng, palette.main, palette.second, plain=0.2)
    tower = cylinder(wide, height, top=wide * rng.uniform(0.5, 0.8), segments=28).painted(wall).shifted(z=height / 2)
    roof = cylinder(wide * 0.85, 0.25, top=0.02).painted(palette.accent).shifted(z=height + 0.11)
    door = ellipsoid(0.07, 0.03, 0.13, squareness=4, detail=14).painted(WOOD).shifted(0, wide * 0.95, 0.12)
    pane = (
        ellipsoid(0.045, 0.03, 0.05, squareness=4, detail=12)
        .painted(palette.dark)
        .shifted(0, wide * 0.82, height * 0.5)
    )
    count, length, width = int(rng.integers(3, 7)), rng.uniform(0.35, 0.55), rng.uniform(0.05, 0.1)
    blade = ellipsoid(width, 0.012, length / 2, squareness=6, detail=18)
    blade = blade.painted(
        stripes(WHITE if rng.random() < 0.5 else palette.second, palette.accent, count=rng.uniform(2, 5))
    )
    blade = blade.shifted(width * rng.uniform(0, 0.8), 0, length * 0.6)
    rod = limb((0, 0, 0), (0, 0, length * 1.05), 0.016).painted(WOOD)
    rotor = [part.turned("y", 360 * index / count) for index in range(count) for part in (blade, rod)]
    hub = ellipsoid(0.05, 0.06, 0.05, detail=14).painted(palette.dark)
    rotor = shifted(turned([*rotor, hub], "y", angle), y=wide * 0.8 + 0.07, z=height * 0.95)
    return [tower, roof, door, pane, *rotor]


def _top(rng: Generator, time: Doubles, palette: Palette, angle: Doubles) -> list[Part]:
    wide = rng.uniform(0.35, 0.5)
    share = np.linspace(0, 1, 24)[1:-1]
    belly = wide * np.sin(np.pi * share ** rng.uniform(0.6, 1.4)) ** rng.uniform(0.7, 1.6) + 0.03
    profile = np.stack((belly, share * rng.uniform(0.45, 0.8)), -1)
    body = revolve(np.concatenate(([[0, profile[0, 1] - 0.05]], profile, [[0, profile[-1, 1] + 0.01]])), segments=40)
    paint = sectors(palette.main, palette.second, count=int(rng.integers(2, 7)), swirl=rng.choice([0, 1.5, 3]))
    top = profile[-1, 1]
    handle = limb((0, 0, top - 0.05), (0, 0, top + rng.uniform(0.12, 0.3)), rng.uniform(0.025, 0.05)).painted(
        palette.accent
    )
    knob = ellipsoid(0.06, 0.06, 0.045, detail=14).painted(palette.accent).shifted(z=top + 0.2)
    parts = turned([body.solid().painted(paint), handle, knob], "z", angle)
    tilt, wobble = rng.uniform(5, 22), rng.uniform(0.3, 0.7)
    # Precession: the tilted axis wanders around the vertical.
    wander = 360 * wobble * time + rng.uniform(0, 360)
    return turned(turned(parts, "x", tilt), "z", wander)


def _carousel(rng: Generator, time: Doubles, palette: Palette, angle: Doubles) -> list[Part]:
    wide, height, count = rng.uniform(0.4, 0.55), rng.uniform(0.4, 0.6), int(rng.integers(4, 8))
    roof = cylinder(wide * 1.1, rng.uniform(0.2, 0.35), top=0.02, segments=36, edge=0.3)
    roof = roof.painted(sectors(palette.main, palette.second, count=int(rng.integers(4, 9)))).shifted(z=height + 0.14)
    ball = ellipsoid(0.05, 0.05, 0.05, detail=12).painted(palette.accent).shifted(z=height + 0.34)
    pillar = (
        cylinder(0.09, height).painted(stripes(palette.accent, WHITE, count=4, wave=0.5, turns=1)).shifted(z=height / 2)
    )
    turning = [roof, ball, pillar]
    for index in range(count):
        lift = 0.08 * cycle(time, rng.uniform(0.8, 1.2), index / 2)
        pole = limb((0, 0, 0), (0, 0, height), 0.013, segments=8).painted(METAL)
        color = (palette.main, palette.accent, palette.second)[index % 3]
        horse = [
            ellipsoid(0.055, 0.11, 0.06, detail=14).painted(color),
            limb((0, 0.07, 0.02), (0, 0.13, 0.13), 0.035).painted(color),
            ellipsoid(0.03, 0.06, 0.035, detail=10).painted(palette.dark).shifted(0, 0.16, 0.13),
        ]
        seat = [pole, *shifted(horse, z=height * 0.42 + lift)]
        turning += turned(shifted(turned(seat, "z", 90), x=0, y=wide * 0.8), "z", 360 * index / count)
    base = cylinder(wide * 1.1, 0.08, segments=36).painted(stripes(palette.second, palette.accent, axis=0, count=8))
    return [base.shifted(z=-0.04), *turned(turning, "z", angle)]


def _plane(rng: Generator, time: Doubles, palette: Palette, angle: Doubles) -> list[Part]:
    length, wide = rng.uniform(0.45, 0.6), rng.uniform(0.1, 0.15)
    share = np.linspace(-1, 1, 26)
    outline = wide * np.clip(1 - np.abs(share) ** 5, 0, 1) ** 0.5 * (1 + 0.35 * share)
    hull = loft(np.stack((0 * share, share * length, 0 * share), -1), outline, outline * 1.1, segments=22)
    hull = hull.painted(random_pattern(rng, palette.main, palette.second, plain=0.2))
    wing_paint = stripes(palette.second, palette.accent, axis=0, count=rng.uniform(2, 5), share=0.4)
    span, chord = rng.uniform(0.5, 0.7), rng.uniform(0.1, 0.16)
    wing = ellipsoid(span, chord, 0.02, squareness=rng.uniform(3, 6), detail=28).painted(wing_paint)
    wings = [
        wing.shifted(0, length * 0.25, height * wide) for height in ((-0.5, 1.9) if rng.random() < 0.5 else (0.2,))
    ]
    if len(wings) > 1:
        wings += both(
            [
                limb((span * 0.7, length * 0.25, -wide * 0.5), (span * 0.7, length * 0.25, wide * 1.9), 0.014).painted(
                    METAL
                )
            ]
        )
    tail = ellipsoid(span * 0.4, chord * 0.6, 0.018, squareness=4, detail=16).painted(palette.accent)
    rudder = ellipsoid(0.018, chord * 0.6, 0.13, squareness=3, detail=16).painted(palette.accent)
    glass = (
        ellipsoid(wide * 0.65, wide, wide * 0.7, detail=16)
        .painted((0.55, 0.75, 0.88))
        .shifted(0, length * 0.1, wide * 0.95)
    )
    blade = ellipsoid(0.035, 0.014, rng.uniform(0.2, 0.28), squareness=3, detail=14).painted(
        gradient(palette.dark, WHITE, width=0.2)
    )
    nose = ellipsoid(0.05, 0.09, 0.05, detail=14).painted(palette.accent)
    count = int(rng.integers(1, 3))
    rotor = turned([nose, *(blade.turned("y", 180 * index / count) for index in range(count))], "y", angle)
    parts = [
        hull,
        *wings,
        tail.shifted(y=-length * 0.9),
        rudder.shifted(0, -length * 0.9, 0.12),
        glass,
        *shifted(rotor, y=length * 1.02),
    ]
    rate, phase = rng.uniform(0.4, 0.8), rng.random()
    parts = turned(parts, "y", rng.uniform(5, 25) * cycle(time, rate, phase))
    return shifted(turned(parts, "x", 6 * cycle(time, rate, phase + 0.3)), z=0.06 * cycle(time, rate, phase + 0.2))
