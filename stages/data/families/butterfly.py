"""Butterflies, moths, bees and dragonflies; they face +y and tilt toward the viewer, z is up."""

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.common import both, cycle, eyes, shifted, turned
from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import BLACK, Palette, mixed, random_palette, stripes
from ss4d.stages.data.shapes import ellipsoid, loft, swell, tube


def build(rng: Generator, time: Doubles) -> list[Part]:
    """One insect that beats its wings on the spot."""
    palette = random_palette(rng)
    rate, phase = rng.uniform(0.8, 1.8), rng.random()
    length, girth = rng.uniform(0.22, 0.36), rng.uniform(0.045, 0.1)
    beat = rng.uniform(5, 30) + rng.uniform(25, 48) * cycle(time, rate, phase)
    late = rng.uniform(5, 30) + rng.uniform(20, 40) * cycle(time, rate, phase - rng.uniform(0, 0.12))
    wings = []
    size = rng.uniform(0.45, 0.75)
    for sweep, motion, scale in (
        (rng.uniform(10, 40), beat, 1.0),
        (-rng.uniform(25, 55), late, rng.uniform(0.6, 0.95)),
    ):
        wing = _wing(rng, palette, size * scale, size * scale * rng.uniform(0.28, 0.5))
        wing = (
            wing.turned("z", sweep)
            .turned("y", -motion)
            .shifted(girth * 0.5, length * 0.1 * np.sign(sweep), girth * 0.3)
        )
        wings += both([wing])
    parts = [*wings, *_body(rng, palette, length, girth)]
    pitch = rng.uniform(15, 65) + 5 * cycle(time, rate, phase + 0.4)  # the wings' upper side turns away from the viewer
    parts = turned(parts, "x", -pitch)
    return shifted(parts, z=-0.05 * cycle(time, rate, phase + 0.25))


def _wing(rng: Generator, palette: Palette, span: float, chord: float) -> Part:
    share = np.linspace(0, 1, 26)
    outline = chord * swell(share, peak=rng.uniform(0.5, 0.78), power=rng.uniform(0.7, 1.3))
    outline *= 1 + 0.08 * np.sin(share * rng.uniform(10, 25))
    curve = np.stack((share * span, 0 * share, 0.06 * np.sin(share * np.pi)), -1)
    wing = loft(curve, outline, 0.014 + 0 * outline, across=(0, 1, 0), segments=22)
    border, veins = rng.uniform(0.72, 0.9), rng.integers(0, 2) * rng.uniform(5, 9)
    dots = rng.uniform([0.35, -0.5], [0.8, 0.5], (int(rng.integers(0, 4)), 2))
    dot_size = rng.uniform(0.1, 0.2)

    def paint(part: Part) -> Doubles:
        across = part.local[:, 0] / max(np.abs(part.local[:, 0]).max(), 1e-9)
        colors = mixed(palette.second, palette.main, part.along * 1.6 - 0.2)
        if veins:
            colors = mixed_rows(colors, palette.dark, np.abs(np.sin(across * veins)) < 0.18)
        for x, y in dots:
            distance = np.hypot(part.along - x, (across - y) * 0.7)
            colors = mixed_rows(colors, palette.accent, distance < dot_size)
            colors = mixed_rows(colors, palette.dark, distance < dot_size * 0.45)
        return mixed_rows(colors, palette.dark, np.maximum(part.along, np.abs(across)) > border)

    return wing.painted(paint)


def mixed_rows(colors: Doubles, other: Doubles, where: Doubles) -> Doubles:
    """Colors (v, 3) with `other` in the rows where (v,) holds."""
    return np.where(np.asarray(where, bool)[:, None], other, colors)


def _body(rng: Generator, palette: Palette, length: float, girth: float) -> list[Part]:
    color = palette.dark if rng.random() < 0.5 else palette.accent
    ringed = stripes(BLACK, palette.accent, count=rng.uniform(4, 7), share=0.5)
    share = np.linspace(-1, 1, 20)
    curve = np.stack((0 * share, length * (share - 0.3), -0.1 * length * (share - 0.3) ** 2), -1)
    radii = girth * np.clip(1 - (share + 0.3) ** 2 * 0.5, 0.2, 1)
    body = tube(curve, radii, segments=14)
    size = girth * rng.uniform(1.1, 1.5)
    bow = size * np.array([(0.3, 0.6, 0.5), (0.9, 2.0, 1.4), (1.6, 2.8, 2.2)])
    feeler = tube(bow, [0.012, 0.01, 0.01], segments=8)
    knob = ellipsoid(0.025, 0.025, 0.025, detail=10).shifted(size * 1.6, size * 2.9, size * 2.3)
    head = [
        ellipsoid(size, size, size, detail=18).painted(color),
        *both([feeler.painted(BLACK), knob.painted(palette.accent)]),
        *eyes(rng, size * 0.6, size * 0.6, size * 0.25, size * 0.35),
    ]
    return [body.painted(ringed if rng.random() < 0.5 else color), *shifted(head, y=length * 0.75)]
