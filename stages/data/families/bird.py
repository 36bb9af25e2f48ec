"""Flapping birds, from sparrows to parrots and gulls; they face +y, z is up."""

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.common import both, cycle, eyes, shifted, turned
from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import Palette, gradient, mixed, random_palette, random_pattern, rgb, stripes
from ss4d.stages.data.shapes import ellipsoid, limb, loft, tube


def build(rng: Generator, time: Doubles) -> list[Part]:
    """One bird that flies on the spot."""
    palette = random_palette(rng, natural=0.25)
    rate, phase = rng.uniform(0.7, 1.6), rng.random()
    length, girth = rng.uniform(0.32, 0.5), rng.uniform(0.13, 0.22)
    belly = gradient(palette.second, palette.main, axis=1, middle=rng.uniform(-0.4, 0.2), width=0.25)
    plumage = belly if rng.random() < 0.6 else random_pattern(rng, palette.main, palette.second)
    place = np.linspace(-1, 1, 24)
    shape = np.sqrt(np.clip(1 - place**2, 0, 1)) * (1 + 0.35 * place) * (0.8 + 0.2 * np.cos(place * 2))
    body = loft(np.stack((0 * place, place * length, 0.05 * place), -1), girth * shape, girth * shape, segments=22)
    parts = [body.painted(plumage), *_head(rng, time, palette, length, girth, rate)]
    parts += _wings(rng, time, palette, rate, phase, girth, length)
    parts += _tail(rng, time, palette, rate, phase, length)
    if rng.random() < 0.6:
        foot = limb((0.06, -0.08, -girth * 0.8), (0.07, -0.22, -girth * 1.15), 0.018).painted(rgb(0.09, 0.8, 0.9))
        parts += both([foot])
    parts = turned(parts, "x", rng.uniform(0, 30))
    return shifted(parts, z=-0.06 * cycle(time, rate, phase + rng.uniform(0.2, 0.3)))


def _head(rng: Generator, time: Doubles, palette: Palette, length: float, girth: float, rate: float) -> list[Part]:
    size = girth * rng.uniform(0.65, 0.9)
    beak_color = rgb(rng.uniform(0.02, 0.14), 0.9, rng.uniform(0.6, 1))
    beak = limb(
        (0, size * 0.6, -size * 0.1),
        (0, size * rng.uniform(1.3, 2.2), -size * rng.uniform(0.1, 0.5)),
        size * 0.34,
        0.01,
    )
    color = palette.accent if rng.random() < 0.35 else palette.main
    parts = [
        ellipsoid(size, size, size).painted(gradient(palette.second, color, middle=rng.uniform(-0.6, 0), width=0.15)),
        beak.stretched(z=rng.uniform(0.6, 1)).painted(beak_color),
        *eyes(rng, size * 0.66, size * 0.55, size * 0.3, size * 0.24),
    ]
    for k in range(int(rng.choice([0, 0, 3]))):  # a crest
        feather = tube(
            [(0, 0, size * 0.8), (0, -size * (0.2 + 0.25 * k), size * (1.7 - 0.2 * k))], [size * 0.16, size * 0.07]
        )
        parts.append(feather.painted(palette.accent))
    parts = turned(parts, "z", rng.uniform(0, 20) * cycle(time, rate / 2, rng.random()))
    return shifted(parts, 0, length * 0.95, girth * rng.uniform(0.4, 0.8))


def _wings(
    rng: Generator, time: Doubles, palette: Palette, rate: float, phase: float, girth: float, length: float
) -> list[Part]:
    span, chord = rng.uniform(0.5, 0.9), rng.uniform(0.16, 0.3)
    share = np.linspace(0, 1, 26)
    lift, fold = rng.uniform(25, 50), rng.uniform(15, 45)
    # The outer wing follows the inner one by a quarter of a cycle.
    inner = lift * cycle(time, rate, phase)[:, None] + rng.uniform(0, 15)
    outer = fold * cycle(time, rate, phase - 0.2)[:, None]
    angle = np.radians(inner + outer * np.clip(share * 2 - 0.6, 0, 1))
    steps = np.stack((np.cos(angle), -rng.uniform(0, 0.7) * share**2 + 0 * angle, np.sin(angle)), -1) * span / 25
    curve = np.concatenate((np.zeros((len(time), 1, 3)), steps[:, 1:].cumsum(1)), 1)
    pointed = rng.uniform(0.4, 1.2)
    feathers = 1 + 0.12 * np.abs(np.sin(share * rng.integers(4, 8) * np.pi))
    outline = chord * np.sqrt(np.clip(1 - share**2, 0, 1)) ** pointed * feathers
    wing = loft(curve, outline, 0.018 + 0 * outline, across=(0, 1, 0), segments=20)
    tip = palette.dark if rng.random() < 0.4 else palette.accent
    style, count, border = rng.integers(3), rng.uniform(3, 7), rng.uniform(0.6, 0.85)

    def paint(part: Part) -> Doubles:
        base = stripes(palette.main, palette.second, count=count, share=0.4)(part) if style == 0 else palette.main
        base = gradient(palette.second, palette.main, axis=0, middle=0.1, width=0.3)(part) if style == 1 else base
        return mixed(base, tip, (part.along - border) / 0.1)

    return both([wing.painted(paint).shifted(girth * 0.6, length * 0.15, girth * 0.35)])


def _tail(rng: Generator, time: Doubles, palette: Palette, rate: float, phase: float, length: float) -> list[Part]:
    share = np.linspace(0, 1, 12)
    long, spread, count = rng.uniform(0.2, 0.5), rng.uniform(10, 40), int(rng.choice([2, 3, 5]))
    outline = rng.uniform(0.05, 0.08) * np.sqrt(np.clip(1 - (2 * share - 1) ** 4, 0, 1))
    feather = loft(np.stack((0 * share, -share * long, 0 * share), -1), outline, 0.015 + 0 * outline)
    feather = feather.painted(gradient(palette.main, palette.accent, middle=0.4, width=0.2))
    fan = [feather.turned("z", angle) for angle in np.linspace(-spread, spread, count)]
    tilt = rng.uniform(-15, 10) + rng.uniform(4, 15) * cycle(time, rate, phase + 0.3)
    return shifted(turned(fan, "x", tilt), 0, -length * 0.75, 0)
