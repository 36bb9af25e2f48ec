"""Things that swing: cradles, metronomes, swings, mobiles and cuckoo clocks; they face +y, z is up."""

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.common import both, cycle, eyes, shifted, turned
from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import METAL, WHITE, WOOD, Palette, random_palette, random_pattern, stripes
from ss4d.stages.data.shapes import cylinder, ellipsoid, limb


def build(rng: Generator, time: Doubles) -> list[Part]:
    """One of the swinging toys."""
    palette = random_palette(rng)
    rate = rng.uniform(0.5, 1.1)
    return (_cradle, _clock, _swing, _mobile)[rng.integers(4)](rng, time, palette, rate)


def _cradle(rng: Generator, time: Doubles, palette: Palette, rate: float) -> list[Part]:
    """Newton's cradle: the outer balls swing in turn."""
    count, radius = int(rng.integers(3, 6)), rng.uniform(0.08, 0.12)
    height, wide = rng.uniform(0.6, 0.8), count * radius + rng.uniform(0.12, 0.25)
    deep = rng.uniform(0.18, 0.28)
    swing = rng.uniform(25, 48) * cycle(time, rate, rng.random())
    color = METAL if rng.random() < 0.4 else palette.main
    paint = random_pattern(rng, color, palette.second, plain=0.4)
    rod = rng.uniform(0.018, 0.03)
    bar = limb((-wide, deep, height), (wide, deep, height), rod).painted(palette.accent)
    post = limb((wide, deep, 0), (wide, deep, height), rod).painted(palette.accent)
    frame = [bar, *both([post])]
    frame += [part.turned("z", 180) for part in frame]
    base = ellipsoid(wide + 0.08, deep + 0.08, 0.04, squareness=6, detail=30).painted(
        random_pattern(rng, WOOD, palette.second)
    )
    parts = [*frame, base]
    drop = rng.uniform(0.35, 0.45)
    for index in range(count):
        x = (2 * index - count + 1) * radius
        angle = np.minimum(swing, 0) if index == 0 else np.maximum(swing, 0) if index == count - 1 else 0 * swing
        bob = [
            ellipsoid(radius, radius, radius, detail=22).painted(paint).shifted(x, 0, height - drop),
            limb((x, deep, height), (x, 0, height - drop), 0.01, segments=8).painted(palette.dark),
            limb((x, -deep, height), (x, 0, height - drop), 0.01, segments=8).painted(palette.dark),
        ]
        parts += turned(bob, "y", -angle, (x, 0, height))
    return parts


def _clock(rng: Generator, time: Doubles, palette: Palette, rate: float) -> list[Part]:
    """A wall clock with hands and a pendulum, or a metronome's upside-down one."""
    wide, tall, deep = rng.uniform(0.22, 0.32), rng.uniform(0.25, 0.34), rng.uniform(0.1, 0.16)
    case = ellipsoid(wide, deep, tall, squareness=rng.uniform(3, 8), detail=32)
    case = case.painted(random_pattern(rng, WOOD if rng.random() < 0.5 else palette.main, palette.second, plain=0.3))
    size = min(wide, tall) * 0.8
    face = cylinder(size, 0.05, segments=30).turned("x", 90).painted(WHITE).shifted(0, deep, 0.02)
    ring = cylinder(size * 1.12, 0.03, segments=30).turned("x", 90).painted(palette.accent).shifted(0, deep, 0.02)
    mark = (
        ellipsoid(0.015, 0.015, size * 0.09, squareness=4, detail=8)
        .painted(palette.dark)
        .shifted(0, deep + 0.03, size * 0.8)
    )
    hand = (
        ellipsoid(0.016, 0.014, size * 0.36, squareness=4, detail=10)
        .painted(palette.dark)
        .shifted(0, deep + 0.045, size * 0.3)
    )
    marks = [mark.turned("y", 30 * index) for index in range(0, 12, int(rng.choice([1, 3])))]
    hands = [
        hand.turned("y", rng.uniform(0, 360) + 40 * time),
        hand.stretched(1.3, 1, 0.65).turned("y", rng.uniform(0, 360)),
    ]
    parts = [case, face, ring, *shifted([*marks, *hands], z=0.02)]
    length, radius = rng.uniform(0.35, 0.6), rng.uniform(0.07, 0.11)
    bob = [
        limb((0, 0, 0), (0, 0, -length), 0.016).painted(METAL),
        cylinder(radius, 0.05, segments=24).turned("x", 90).painted(palette.accent).shifted(z=-length),
    ]
    parts += shifted(turned(bob, "y", rng.uniform(15, 35) * cycle(time, rate, rng.random())), z=-tall * 0.8)
    if rng.random() < 0.6:
        slab = ellipsoid(wide * 0.95, deep * 1.3, 0.035, squareness=6).painted(palette.second)
        parts += both([slab.turned("y", 38).shifted(wide * 0.6, 0, tall * 1.15)])
    else:
        ball = ellipsoid(0.07, 0.07, 0.07, detail=14).painted(palette.accent)
        parts += both([ball.shifted(wide * 0.7, 0, tall)])
    return parts


def _swing(rng: Generator, time: Doubles, palette: Palette, rate: float) -> list[Part]:
    """A swing with a rider."""
    wide, height, deep = rng.uniform(0.35, 0.45), rng.uniform(0.8, 0.95), rng.uniform(0.25, 0.35)
    paint = stripes(palette.main, WHITE if rng.random() < 0.5 else palette.second, count=rng.uniform(4, 8))
    leg = limb((wide, deep, 0), (wide * 0.85, 0, height), 0.03).painted(paint)
    legs = both([leg])
    legs += [part.turned("z", 180) for part in legs]
    bar = limb((-wide, 0, height), (wide, 0, height), 0.03).painted(palette.accent)
    drop, half = height * rng.uniform(0.6, 0.72), wide * 0.38
    size = rng.uniform(0.09, 0.12)
    rider = [
        ellipsoid(size, size * 0.85, size * 1.2)
        .painted(random_pattern(rng, palette.second, palette.accent))
        .shifted(z=size * 1.2),
        ellipsoid(size * 0.9, size * 0.9, size * 0.9, detail=20).painted((0.93, 0.76, 0.6)).shifted(z=size * 3.0),
        ellipsoid(size * 0.95, size * 0.9, size * 0.6, detail=16)
        .painted(palette.dark)
        .shifted(0, -size * 0.15, size * 3.45),
        *eyes(rng, size * 0.36, size * 0.8, size * 3.05, size * 0.16),
        *both(
            [
                limb((size * 0.5, 0, size * 0.4), (size * 0.5, size * 1.9, size * 0.35), size * 0.33).painted(
                    palette.dark
                )
            ]
        ),
        *both([limb((size * 0.9, 0, size * 1.7), (half, 0, size * 2.3), size * 0.25).painted((0.93, 0.76, 0.6))]),
    ]
    seat = ellipsoid(half * 1.15, 0.1, 0.02, squareness=6).painted(palette.accent)
    ropes = both([limb((half, 0, 0), (half, 0, drop), 0.011, segments=8).painted(WOOD)])
    moving = shifted([seat, *ropes, *rider], z=height - drop)
    moving = turned(moving, "x", rng.uniform(20, 42) * cycle(time, rate, rng.random()), (0, 0, height))
    return [*legs, bar, *moving]


def _mobile(rng: Generator, time: Doubles, palette: Palette, rate: float) -> list[Part]:
    """Shapes that hang from turning arms."""
    arms, reach = int(rng.integers(2, 5)), rng.uniform(0.35, 0.5)
    colors = (palette.main, palette.second, palette.accent)
    spin = rng.uniform(40, 110) * time * rng.choice([-1, 1]) + rng.uniform(0, 360)
    turning: list[Part] = [ellipsoid(0.08, 0.08, 0.06, detail=16).painted(palette.accent)]
    for index in range(arms):
        drop, size = rng.uniform(0.25, 0.65), rng.uniform(0.1, 0.16)
        squareness = float(rng.choice([1.2, 2.0, 2.0, 5.0]))
        shape = ellipsoid(size, size * rng.uniform(0.5, 1), size, squareness=squareness, detail=24)
        shape = shape.painted(random_pattern(rng, colors[index % 3], colors[(index + 1) % 3], plain=0.1))
        hung = [
            shape.turned("z", rng.uniform(-120, 120) * time).shifted(z=-drop),
            limb((0, 0, 0), (0, 0, -drop), 0.01, segments=8).painted(WOOD),
        ]
        hung = turned(hung, "x", rng.uniform(5, 14) + rng.uniform(4, 12) * cycle(time, rate, rng.random()))
        rod = limb((0, 0, 0), (0, reach, 0), 0.02).painted(WOOD)
        turning += turned([rod, *shifted(hung, y=reach)], "z", 360 * index / arms)
    return [*turned(turning, "z", spin), limb((0, 0, 0), (0, 0, 0.18), 0.015).painted(palette.dark)]
