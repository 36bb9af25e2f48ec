"""Snakes, worms and caterpillars that wind or hump along; they face +y, z is up."""

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.common import both, cycle, eyes, shifted, turned
from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import Palette, gradient, random_palette, random_pattern, stripes
from ss4d.stages.data.shapes import ellipsoid, limb, tube


def build(rng: Generator, time: Doubles) -> list[Part]:
    """One animal without legs, or with many stubs."""
    palette = random_palette(rng)
    rate, phase = rng.uniform(0.5, 1.2), rng.random()
    return (_snake if rng.random() < 0.5 else _caterpillar)(rng, time, palette, rate, phase)


def _snake(rng: Generator, time: Doubles, palette: Palette, rate: float, phase: float) -> list[Part]:
    share = np.linspace(0, 1, 64)
    length, waves, radius = rng.uniform(1.2, 1.7), rng.uniform(1.0, 1.9), rng.uniform(0.06, 0.1)
    bend = rng.uniform(0.9, 1.5) * np.sin(2 * np.pi * (waves * share + phase - rate * time[:, None]))
    bend *= np.clip((1 - share) * 5, 0.25, 1)  # calmer toward the head
    rear = (
        np.radians(rng.uniform(30, 80)) * np.clip((share - 0.75) / 0.12, 0, 1) * np.clip((1.02 - share) / 0.1, 0.2, 1)
    )
    steps = (
        np.stack((np.sin(bend) * np.cos(rear), np.cos(bend) * np.cos(rear), np.sin(rear) + 0 * bend), -1) * length / 63
    )
    curve = steps.cumsum(1)
    thin = np.clip(share / 0.5, 0.1, 1) ** 0.7
    skin = random_pattern(rng, palette.main, palette.second, plain=0)
    if rng.random() < 0.6:
        skin = stripes(
            palette.main,
            palette.second,
            count=rng.uniform(8, 18),
            wave=rng.choice([0, 0.25]),
            share=rng.uniform(0.3, 0.6),
        )
    body = tube(
        curve, radius * thin, across=(0.0, 0.02, -1.0) if rng.random() < 0.5 else (0.02, 0, 1), segments=14
    ).painted(skin)
    size = radius * rng.uniform(1.2, 1.6)
    head = [
        ellipsoid(size, size * 1.5, size * 0.8, detail=20).painted(palette.main),
        *eyes(rng, size * 0.6, size * 0.7, size * 0.5, size * 0.3),
    ]
    tongue = size * 1.2 * (0.6 + 0.4 * cycle(time, rate * 2))
    zero = np.zeros_like(tongue)
    root = np.stack((zero, zero + size * 1.2, zero - size * 0.2), -1)
    head.append(
        limb(root, root + np.stack((zero, tongue, zero), -1), 0.018, 0.012, segments=8).painted((0.85, 0.1, 0.15))
    )
    heading = -np.degrees(bend[:, -1])
    head = turned(turned(head, "x", np.degrees(rear[-1])), "z", heading)
    return [body, *shifted(head, *curve[:, -1].T)]


def _caterpillar(rng: Generator, time: Doubles, palette: Palette, rate: float, phase: float) -> list[Part]:
    count, radius = int(rng.integers(5, 10)), rng.uniform(0.1, 0.15)
    gap = radius * rng.uniform(1.0, 1.35)
    hump, sway = rng.uniform(0.5, 1.3) * radius, rng.uniform(0, 0.8) * radius
    waves = rng.uniform(0.5, 1.2)
    colors = [palette.main, palette.second, palette.accent][: int(rng.integers(1, 4))]
    patterned = random_pattern(rng, palette.main, palette.second) if len(colors) == 1 else None
    feet = palette.dark if rng.random() < 0.5 else palette.accent
    parts: list[Part] = []
    for index in range(count):
        place = index / count
        lift = hump * (1 + cycle(time, rate, phase + waves * place))
        aside = sway * cycle(time, rate, phase + 0.25 + waves * place)
        size = radius * (0.75 + 0.35 * np.sin(np.pi * (0.2 + 0.7 * place)))
        ball = ellipsoid(size, size * 0.9, size, detail=20).painted(patterned or colors[index % len(colors)])
        toe = ellipsoid(0.04, 0.04, 0.05, detail=10).painted(feet).shifted(size * 0.7, 0, -size * 0.85)
        parts += shifted([ball, *both([toe])], aside, index * gap, lift)
    size = radius * rng.uniform(1.1, 1.4)
    feeler = limb((size * 0.4, 0, size * 0.8), (size * 0.7, size * 0.3, size * 1.6), 0.02).painted(palette.dark)
    knob = (
        ellipsoid(0.045, 0.045, 0.045, detail=10).painted(palette.accent).shifted(size * 0.7, size * 0.3, size * 1.65)
    )
    head = [
        ellipsoid(size, size, size).painted(gradient(palette.accent, palette.main, width=rng.uniform(0.1, 0.8))),
        *eyes(rng, size * 0.42, size * 0.82, size * 0.2, size * 0.2),
        ellipsoid(size * 0.3, 0.03, 0.025, detail=10).painted(palette.dark).shifted(0, size * 0.9, -size * 0.3),
        *both([feeler, knob]),
    ]
    nod = turned(head, "z", rng.uniform(5, 25) * cycle(time, rate / 2))
    lift = hump * (1 + cycle(time, rate, phase + waves)) + radius * rng.uniform(0.2, 0.6)
    return [*parts, *shifted(nod, 0, (count - 0.1) * gap, lift)]
