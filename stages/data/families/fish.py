"""Swimming fish, from round reef fish to long trout and sharks; they face +y, z is up."""

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.common import both, cycle, eyes, shifted
from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import BLACK, Palette, gradient, mixed, random_palette, random_pattern
from ss4d.stages.data.shapes import ellipsoid, loft


def build(rng: Generator, time: Doubles) -> list[Part]:
    """One fish that swims on the spot, a wave running from head to tail."""
    palette = random_palette(rng)
    rate, phase, waves = rng.uniform(0.7, 1.5), rng.random(), rng.uniform(0.5, 1.0)
    length, tall = rng.uniform(0.7, 1.1), rng.uniform(0.14, 0.36)
    wide = tall * rng.uniform(0.4, 0.85)
    back = gradient(palette.second, palette.main, axis=1, middle=rng.uniform(-0.5, 0.1), width=rng.uniform(0.1, 0.6))
    skin = back if rng.random() < 0.35 else random_pattern(rng, palette.main, palette.second, plain=0)
    parts = [_body(rng, length, tall, wide).painted(skin), *_fins(rng, palette, length, tall)]
    size = tall * rng.uniform(0.13, 0.22)
    parts += eyes(rng, wide * 0.66, length * 0.36, tall * 0.2, size)
    if rng.random() < 0.7:
        parts.append(
            ellipsoid(wide * 0.3, 0.03, 0.018, detail=10).painted(BLACK).shifted(0, length * 0.485, -tall * 0.12)
        )
    side = _side_fin(rng, time, palette, rate, phase, wide, tall, length)
    amplitude = rng.uniform(0.05, 0.12) * length

    def swim(part: Part) -> Part:
        places = np.broadcast_to(part.vertices, (len(time), *part.vertices.shape[1:])).copy()
        behind = np.clip(0.5 - places[..., 1] / length, 0, 2)  # 0 at the nose, 1 at the tail
        swing = np.sin(2 * np.pi * (rate * time[:, None] + phase - waves * behind))
        places[..., 0] += amplitude * (0.12 + behind**1.6) * swing
        return Part(places, part.faces, part.local, part.along, part.colors)

    parts = [swim(part) for part in (*parts, *side)]
    return shifted(parts, z=0.02 * cycle(time, rate / 2))


def _body(rng: Generator, length: float, tall: float, wide: float) -> Part:
    share = np.linspace(0, 1, 34)
    blunt, thin = rng.uniform(0.4, 0.75), rng.uniform(0.12, 0.25)
    outline = np.clip(share / 0.42, 0, 1) ** blunt
    outline = np.where(
        share < 0.42,
        np.sin(outline * np.pi / 2),
        thin + (1 - thin) * np.cos(np.clip(share - 0.42, 0, None) / 0.5801 * np.pi / 2) ** 1.3,
    )
    outline *= np.clip((1 - share) / 0.04, 0, 1) ** 0.5
    curve = np.stack((0 * share, length * (0.5 - share), 0 * share), -1)
    return loft(curve, wide * outline, tall * outline, across=(-1, 0, 0), segments=24)


def _sheet(outline: Doubles, curve: Doubles, thickness: float) -> Part:
    return loft(curve, outline, thickness + 0 * outline, across=(0, 0, 1), segments=16)


def _fins(rng: Generator, palette: Palette, length: float, tall: float) -> list[Part]:
    color, tip = (
        (palette.accent if rng.random() < 0.6 else palette.main),
        palette.second if rng.random() < 0.5 else palette.accent,
    )

    def paint(part: Part) -> Doubles:
        rays = 0.5 + 0.5 * np.sin(part.local[:, 0] / np.abs(part.local[:, 0]).max() * 14)
        return mixed(color, tip, part.along * 0.8 + 0.25 * rays)

    share = np.linspace(0, 1, 16)
    reach, spread, fork = rng.uniform(0.18, 0.34) * length, rng.uniform(30, 60), rng.uniform(0.3, 0.6)
    curve = np.stack((0 * share, -share * reach, 0 * share), -1)
    outline = reach * fork * np.sqrt(np.clip(1 - (2 * share - 1) ** 2, 0, 1)) * (0.4 + 0.6 * share)
    lobe = _sheet(outline, curve, 0.016).painted(paint)
    tail = [lobe.turned("x", angle).shifted(0, -length * 0.47, 0) for angle in (spread, -spread)]
    fins = []
    for sign, place, long, high in (
        (1, rng.uniform(-0.05, 0.12), rng.uniform(0.25, 0.6), rng.uniform(0.4, 1.0)),
        (-1, rng.uniform(-0.25, -0.1), rng.uniform(0.12, 0.3), rng.uniform(0.3, 0.7)),
    ):
        height, half = tall * high, long * length / 2
        curve = np.stack((0 * share, -(share**2) * half * 0.8, share * height), -1)
        fin = loft(curve, half * np.sqrt(1 - share**2 * 0.98), 0.016 + 0 * share, across=(0, 1, 0), segments=16)
        fins.append(
            fin.painted(paint).turned("y", 0 if sign > 0 else 180).shifted(0, place * length, sign * tall * 0.75)
        )
    return [*tail, *fins]


def _side_fin(rng: Generator, time: Doubles, palette: Palette, rate: float, phase: float, wide: float, tall: float,
              length: float) -> list[Part]:  # fmt: skip
    share = np.linspace(0, 1, 12)
    reach = rng.uniform(0.12, 0.24) * length
    outline = reach * 0.45 * np.sqrt(np.clip(1 - (2 * share - 1) ** 4, 0, 1)) * (0.5 + 0.5 * share)
    curve = np.stack((share * reach, -share * reach * 0.6, 0 * share), -1)
    fin = loft(curve, outline, 0.014 + 0 * outline, across=(0.5, 1, 0), segments=14).painted(palette.accent)
    flap = rng.uniform(10, 35) + rng.uniform(10, 30) * cycle(time, rate, phase)
    return both([fin.turned("y", flap).shifted(wide * 0.75, length * 0.16, -tall * 0.35)])
