"""Sea creatures with soft arms: octopuses and pulsing jellyfish; they face +y, z is up."""

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.common import cycle, eyes, shifted
from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import gradient, random_palette, random_pattern, shade, stripes
from ss4d.stages.data.shapes import ellipsoid, revolve, tube


def octopus(rng: Generator, time: Doubles) -> list[Part]:
    """A head on a ring of arms that curl in a traveling wave."""
    palette = random_palette(rng)
    rate, phase = rng.uniform(0.5, 1.1), rng.random()
    wide, tall = rng.uniform(0.16, 0.24), rng.uniform(0.2, 0.36)
    skin = random_pattern(rng, palette.main, palette.second, plain=0.3)
    breath = 1 + 0.06 * cycle(time, rate, phase)
    head = ellipsoid(wide, wide, tall, squareness=rng.uniform(2, 2.6), detail=28).painted(skin)
    parts = [head.stretched(breath, breath, 2 - breath).shifted(z=tall * 0.9)]
    parts += shifted(
        eyes(rng, wide * 0.5, wide * 0.86, tall * 0.55, rng.uniform(0.05, 0.075)), z=0.03 * cycle(time, rate, phase)
    )
    count, length = int(rng.integers(5, 9)), rng.uniform(0.5, 0.8)
    spread, curl, waves = rng.uniform(20, 60), rng.uniform(20, 70), rng.uniform(0.4, 0.9)
    tip = palette.accent if rng.random() < 0.6 else palette.second
    turn = rng.random() * 360
    for index in range(count):
        arm = _arm(
            time,
            rate,
            phase + index * rng.uniform(0.1, 0.5),
            length * rng.uniform(0.85, 1.1),
            wide * 0.32,
            spread,
            curl,
            waves,
        )
        arm = arm.painted(gradient(palette.main, tip, middle=rng.uniform(-0.2, 0.3), width=0.6))
        parts.append(arm.shifted(0, wide * 0.6, 0.03).turned("z", turn + 360 * index / count))
    return parts


def jellyfish(rng: Generator, time: Doubles) -> list[Part]:
    """A bell that opens and closes, trailing thin arms."""
    palette = random_palette(rng)
    rate, phase = rng.uniform(0.6, 1.2), rng.random()
    wide, tall, thick = rng.uniform(0.3, 0.45), rng.uniform(0.22, 0.4), 0.04
    squeeze = rng.uniform(0.12, 0.28) * cycle(time, rate, phase)[:, None]
    late = rng.uniform(0.12, 0.28) * cycle(time, rate, phase - 0.15)[:, None]
    angle = np.linspace(0, np.pi / 2 * rng.uniform(0.95, 1.2), 20)
    share = angle / angle[-1]
    radius = wide * np.sin(angle) * (1 - squeeze * share - late * share**3)
    height = tall * np.cos(angle) * (1 + 0.6 * squeeze)
    outer = np.stack((radius, height), -1)
    inner = np.stack((np.maximum(radius - thick * np.sqrt(share), 0), height - thick * (1 - 0.5 * share)), -1)
    bell = revolve(np.concatenate((inner, outer[:, ::-1]), axis=1), segments=36)
    count = int(rng.integers(4, 9))

    def paint(part: Part) -> Doubles:
        around = np.sin(np.arctan2(part.vertices[0, :, 1], part.vertices[0, :, 0]) * count)
        wash = gradient(palette.second, palette.main, middle=0.0, width=0.5)(part)
        return np.where((around > 0.6)[:, None], palette.accent, wash) if frilled else pattern(part)

    frilled = rng.random() < 0.6
    dome = random_pattern(rng, palette.main, palette.second, plain=0)

    def pattern(part: Part) -> Doubles:
        return dome(part.solid())

    rise = -0.1 * cycle(time, rate, phase + 0.2)
    parts = [bell.painted(paint)]
    for ring, (num, length, size) in enumerate(
        (
            (count, rng.uniform(0.4, 0.8), rng.uniform(0.016, 0.028)),
            (int(rng.integers(2, 5)), rng.uniform(0.3, 0.7), rng.uniform(0.035, 0.06)),
        )
    ):
        color = shade(rng, palette.second if ring == 0 else palette.accent)
        place = wide * (0.8 if ring == 0 else 0.25)
        for index in range(num):
            arm = _arm(
                time,
                rate,
                phase + rng.uniform(0, 0.3),
                length * rng.uniform(0.8, 1.2),
                size,
                80,
                rng.uniform(10, 30),
                rng.uniform(0.6, 1.1),
            )
            arm = arm.painted(color if ring == 0 else stripes(color, palette.main, count=5))
            parts.append(arm.shifted(0, place, tall * 0.05).turned("z", 360 * (index + ring / 3) / num))
    if rng.random() < 0.5:
        core = ellipsoid(wide * 0.4, wide * 0.4, tall * 0.4, detail=20).painted(palette.accent)
        parts.append(core.shifted(z=tall * 0.35))
    return shifted(parts, z=rise)


def _arm(
    time: Doubles, rate: float, phase: float, length: float, radius: float, droop: float, curl: float, waves: float
) -> Part:
    """An arm toward +y that hangs by `droop` degrees and curls by up to `curl` in a wave that runs to its tip."""
    share = np.linspace(0, 1, 22)
    angle = -droop + 1.3 * droop * share * (droop < 70)
    swing = curl * share * np.sin(2 * np.pi * (rate * time[:, None] + phase - waves * share))
    aside = 0.5 * curl * share * np.cos(2 * np.pi * (rate * time[:, None] + 1.7 * phase - waves * share))
    up, side = np.radians(angle + swing), np.radians(aside)
    steps = np.stack((np.sin(side), np.cos(side) * np.cos(up), np.cos(side) * np.sin(up)), -1) * length / 21
    curve = np.concatenate((np.zeros_like(steps[:, :1]), steps[:, 1:].cumsum(1)), 1)
    return tube(curve, radius * (1 - 0.8 * share), segments=10)
