"""Four-legged walkers: dogs, horses, giraffes, elephants and what lies between; they face +y, z is up."""

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.common import both, cycle, eyes, leg, shifted, turned
from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import Palette, gradient, random_palette, random_pattern, shade
from ss4d.stages.data.shapes import cylinder, ellipsoid, limb, loft, swell, tube

# Of hind left, hind right, front left, front right: when each leg swings, in cycles.
GAITS = {"walk": (0.0, 0.5, 0.25, 0.75), "trot": (0.0, 0.5, 0.5, 0.0), "pace": (0.0, 0.5, 0.0, 0.5)}


def build(rng: Generator, time: Doubles) -> list[Part]:
    """One animal that walks on the spot."""
    palette = random_palette(rng, natural=0.5)
    coat = random_pattern(rng, palette.main, palette.second, plain=0.15)
    length, height = rng.uniform(0.7, 1.2), rng.uniform(0.45, 0.95)
    girth = rng.uniform(0.2, 0.34)
    rate, phase = rng.uniform(0.6, 1.4), rng.random()
    gait = GAITS[str(rng.choice(list(GAITS)))]
    body = _body(length, girth, rng).painted(coat).shifted(z=height)
    reach = rng.uniform(15, 35)
    legs: list[Part] = []
    radius = girth * rng.uniform(0.22, 0.38)
    socks = shade(rng, palette.dark if rng.random() < 0.5 else palette.main)
    middle = rng.uniform(-0.6, 0.2)
    for index, ahead in enumerate(gait):
        side, end = index % 2 * 2 - 1, index // 2 - 0.5
        swing = reach * cycle(time, rate, phase + ahead)
        knee = rng.uniform(0.9, 1.1) * reach * np.clip(cycle(time, rate, phase + ahead + 0.25), 0, None) + 5
        hip = (side * girth * 0.55, length * end * 0.72, height - girth * 0.25)
        parts = leg(hip, height - girth * 0.25, radius, swing, knee, foot=radius * rng.uniform(1.1, 1.6))
        legs += [part.painted(gradient(socks, palette.main, middle=middle, width=0.2)) for part in parts[:1]]
        legs += [part.painted(socks) for part in parts[1:]]
    front = _neck_and_head(rng, time, palette, girth, rate, phase)
    front = shifted(front, 0, length * 0.42, height + girth * 0.3)
    bob = 0.03 * height * cycle(time, 2 * rate, phase)
    upper = [body, *front, _tail(rng, time, rate, palette).shifted(0, -length * 0.48, height + girth * 0.4)]
    return [*shifted(upper, z=bob), *legs]


def _body(length: float, girth: float, rng: Generator) -> Part:
    place = np.linspace(-0.5, 0.5, 26)
    sag = rng.uniform(-0.05, 0.08) * np.cos(place * np.pi) * length
    curve = np.stack((0 * place, place * length * 1.1, sag), -1)
    round_ends = np.clip(1 - np.abs(2 * place) ** 6, 0, 1) ** 0.5
    waist = 1 - rng.uniform(0, 0.3) * np.exp(-(((place + 0.15) / 0.2) ** 2)) + rng.uniform(-0.1, 0.2) * place
    return loft(curve, girth * round_ends * waist, girth * round_ends * waist * rng.uniform(1, 1.25), segments=24)


def _neck_and_head(
    rng: Generator, time: Doubles, palette: Palette, girth: float, rate: float, phase: float
) -> list[Part]:
    neck, tilt = rng.choice([rng.uniform(0.15, 0.4), rng.uniform(0.6, 0.95)], p=[0.7, 0.3]), rng.uniform(15, 55)
    top = np.array([0, np.sin(np.radians(tilt)), np.cos(np.radians(tilt))]) * neck
    thickness = girth * rng.uniform(0.4, 0.6)
    parts = [limb((0, -0.05, -girth * 0.3), top, thickness * 1.25, thickness * 0.8, segments=16).painted(palette.main)]
    if rng.random() < 0.35:  # a mane
        share = np.linspace(0, 1, 10)[:, None]
        crest = share * top + [0, -thickness * 0.8, thickness * 0.25]
        parts.append(tube(crest, thickness * 0.4).stretched(x=0.5).painted(palette.dark))
    size = girth * rng.uniform(0.75, 1.0)
    head = shifted(_head(rng, time, palette, size, rate), *top)
    nod = rng.uniform(2, 8) * cycle(time, rate, phase + 0.1)
    look = rng.uniform(0, 20) * cycle(time, rate / 2, rng.random())
    return turned([*parts, *turned(head, "z", look, top)], "x", nod)


def _head(rng: Generator, time: Doubles, palette: Palette, size: float, rate: float) -> list[Part]:
    snout = size * rng.uniform(0.6, 1.3)
    muzzle = palette.second if rng.random() < 0.5 else shade(rng, palette.main)
    skull = ellipsoid(size * 0.85, size * 0.9, size * 0.85).painted(palette.main)
    parts = [
        skull,
        limb((0, size * 0.3, -size * 0.2), (0, size * 0.4 + snout, -size * 0.35), size * 0.6, size * 0.38).painted(
            muzzle
        ),
        ellipsoid(size * 0.2, size * 0.12, size * 0.15, detail=10)
        .painted(palette.dark)
        .shifted(0, size * 0.75 + snout, -size * 0.2),
        *eyes(rng, size * 0.42, size * 0.62, size * 0.3, size * 0.19),
    ]
    parts += both(_ear(rng, time, palette, size, rate))
    if rng.random() < 0.25:
        horn = tube([(size * 0.35, 0, size * 0.7), (size * 0.6, -size * 0.1, size * 1.2), (size * 0.5, 0, size * 1.7)],
                    [size * 0.14, size * 0.1, size * 0.04])  # fmt: skip
        parts += both([horn.painted(palette.accent)])
    if rng.random() < 0.35:
        collar = cylinder(size * 0.8, size * 0.25).painted(palette.accent)
        parts.append(collar.turned("x", -35).shifted(0, -size * 0.4, -size * 0.65))
    return parts


def _ear(rng: Generator, time: Doubles, palette: Palette, size: float, rate: float) -> list[Part]:
    share = np.linspace(0, 1, 12)
    length, width = size * rng.uniform(0.5, 1.3), size * rng.uniform(0.22, 0.45)
    curve = np.stack((0 * share, 0 * share, share * length), -1)
    outline = width * swell(share, peak=rng.uniform(0.3, 0.7), power=rng.uniform(0.6, 1.5))
    ear = loft(curve, outline, outline * 0.3, segments=14).painted(
        gradient(palette.main, palette.second, axis=1, width=0.3)
    )
    lean = rng.choice([rng.uniform(15, 40), rng.uniform(95, 150)]) + rng.uniform(2, 10) * cycle(
        time, rate, rng.random()
    )
    return [ear.turned("y", lean).shifted(size * 0.5, -size * 0.1, size * 0.6)]


def _tail(rng: Generator, time: Doubles, rate: float, palette: Palette) -> Part:
    share = np.linspace(0, 1, 12)
    length, lift = rng.uniform(0.15, 0.6), rng.uniform(-70, 60)
    wag = rng.uniform(10, 45) * cycle(time, rate * rng.choice([1, 2]))
    angle = np.radians(wag)[:, None] * share
    droop = np.radians(lift) * (1 - rng.uniform(0, 1) * share)
    curve = np.stack((np.sin(angle), -np.cos(angle) * np.cos(droop), np.cos(angle) * np.sin(droop)), -1)
    radii = 0.05 * (1 + (rng.uniform(-0.8, 1.2)) * share)
    return tube(np.concatenate((0 * curve[:, :1], curve[:, 1:].cumsum(1) * length / 11), 1), radii).painted(
        gradient(palette.main, palette.dark if rng.random() < 0.5 else palette.second, middle=0.3, width=0.3)
    )
