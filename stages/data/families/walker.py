"""Two-legged walkers: boxy robots and round cartoon figures; they face +y, z is up."""

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.families.common import both, cycle, eyes, leg, shifted, turned
from ss4d.stages.data.mesh import Doubles, Part
from ss4d.stages.data.paint import BLACK, METAL, Palette, gradient, random_palette, random_pattern, shade
from ss4d.stages.data.shapes import cylinder, ellipsoid, limb, revolve


def build(rng: Generator, time: Doubles) -> list[Part]:
    """One figure that walks on the spot and swings or waves its arms."""
    palette = random_palette(rng)
    robot = rng.random() < 0.55
    squareness = rng.uniform(4, 9) if robot else rng.uniform(2, 3)
    rate, phase = rng.uniform(0.6, 1.3), rng.random()
    wide, deep, tall = rng.uniform(0.2, 0.34), rng.uniform(0.14, 0.22), rng.uniform(0.24, 0.42)
    stride, leg_length = rng.uniform(18, 40), rng.uniform(0.35, 0.65)
    radius = rng.uniform(0.06, 0.1)
    skin = METAL if robot and rng.random() < 0.5 else shade(rng, palette.second)
    torso = ellipsoid(wide, deep, tall, squareness=squareness, detail=30).shifted(z=tall)
    torso = torso.painted(random_pattern(rng, palette.main, palette.second, plain=0.35))
    upper = [
        torso,
        *_details(rng, palette, wide, deep, tall),
        *_arms(rng, time, rate, phase, palette, wide, tall, skin),
    ]
    head = shifted(_head(rng, palette, squareness, skin, robot), z=2 * tall)
    upper += turned(head, "z", rng.uniform(0, 25) * cycle(time, rate / 2, rng.random()))
    twist = turned(upper, "z", rng.uniform(3, 12) * cycle(time, rate, phase))
    bob = 0.05 * leg_length * cycle(time, 2 * rate, phase + 0.125)
    body = shifted(turned(twist, "y", rng.uniform(0, 6) * cycle(time, rate, phase)), z=bob)
    legs = []
    for side in (-1, 1):
        swing = stride * cycle(time, rate, phase + side / 4)
        knee = stride * 1.3 * np.clip(cycle(time, rate, phase + side / 4 + 0.25), 0, None) + 4
        parts = leg((side * wide * 0.5, 0, 0.04), leg_length, radius, swing, knee, foot=radius * rng.uniform(1.4, 2.2))
        colors = (palette.second, palette.second, palette.dark if rng.random() < 0.6 else palette.accent)
        legs += [part.painted(color) for part, color in zip(parts, colors, strict=True)]
    return [*body, *legs]


def _details(rng: Generator, palette: Palette, wide: float, deep: float, tall: float) -> list[Part]:
    parts = []
    if rng.random() < 0.6:
        button = ellipsoid(0.04, 0.03, 0.04, detail=12).painted(palette.accent)
        parts += [button.shifted(0, deep, tall * height) for height in np.linspace(0.6, 1.4, int(rng.integers(1, 4)))]
    if rng.random() < 0.5:
        belt = ellipsoid(wide * 0.95, deep * 0.98, 0.05, squareness=4, detail=24).painted(palette.dark)
        parts.append(belt.shifted(z=tall * 0.35))
    if rng.random() < 0.4:
        pack = ellipsoid(wide * 0.7, 0.1, tall * 0.6, squareness=4).painted(palette.accent)
        parts.append(pack.shifted(0, -deep - 0.05, tall * 1.1))
    return parts


def _arms(rng: Generator, time: Doubles, rate: float, phase: float, palette: Palette, wide: float, tall: float,
          skin: Doubles) -> list[Part]:  # fmt: skip
    length, radius = rng.uniform(0.3, 0.5), rng.uniform(0.045, 0.075)
    swing, waves = rng.uniform(15, 45), rng.random() < 0.35
    arms: list[Part] = []
    elbow = (0.0, 0.0, -length * 0.5)
    for side in (-1, 1):
        forearm = [
            limb(elbow, (0, 0, -length), radius * 0.9).painted(palette.main),
            ellipsoid(radius * 1.5, radius * 1.5, radius * 1.5, detail=14).painted(skin).shifted(z=-length - radius),
        ]
        parts = [limb((0, 0, 0), elbow, radius).painted(palette.second)]
        if waves and side > 0:
            forearm = turned(forearm, "y", -20 + 30 * cycle(time, rate * 1.5), elbow)
            parts = turned([*parts, *forearm], "y", -rng.uniform(110, 150))
        else:
            forearm = turned(forearm, "x", rng.uniform(10, 60), elbow)
            parts = turned([*parts, *forearm], "x", swing * cycle(time, rate, phase - side / 4))
            parts = turned(parts, "y", -side * rng.uniform(6, 25))
        arms += shifted(parts, side * (wide + radius * 0.6), 0, tall * 1.6)
    return arms


def _head(rng: Generator, palette: Palette, squareness: float, skin: Doubles, robot: bool) -> list[Part]:
    wide, deep, tall = rng.uniform(0.16, 0.26), rng.uniform(0.15, 0.2), rng.uniform(0.15, 0.22)
    z = tall * 0.9
    parts = [
        ellipsoid(wide, deep, tall, squareness=squareness).painted(skin).shifted(z=z),
        *eyes(rng, wide * 0.42, deep * 0.88, z + tall * 0.15, rng.uniform(0.035, 0.06)),
        ellipsoid(wide * rng.uniform(0.2, 0.45), 0.03, 0.02, detail=12)
        .painted(BLACK)
        .shifted(0, deep * 0.92, z - tall * 0.4),
    ]
    hat = rng.choice(
        ["antenna", "cone", "brim", "hair", "none"],
        p=[0.45, 0.15, 0.15, 0.2, 0.05] if robot else [0.1, 0.25, 0.25, 0.3, 0.1],
    )
    top = z + tall * 0.85
    if hat == "antenna":
        parts.append(limb((0, 0, top), (0, 0, top + 0.15), 0.015).painted(METAL))
        parts.append(ellipsoid(0.045, 0.045, 0.045, detail=12).painted(palette.accent).shifted(z=top + 0.18))
    elif hat == "cone":
        cone = cylinder(wide * 0.9, 0.35, top=0.01).painted(gradient(palette.accent, palette.second, width=0.1))
        parts.append(cone.shifted(z=top + 0.13))
    elif hat == "brim":
        parts.append(cylinder(wide * 1.4, 0.04).painted(palette.accent).shifted(z=top))
        parts.append(cylinder(wide * 0.8, 0.2).painted(palette.accent).shifted(z=top + 0.1))
    elif hat == "hair":
        cap = revolve([(0, 0), (wide * 0.9, -0.05), (wide * 1.1, 0), (wide * 0.95, 0.12), (wide * 0.5, 0.2), (0, 0.22)])
        parts.append(cap.stretched(y=deep / wide).painted(palette.dark).shifted(0, -0.03, top - 0.12))
    if robot:
        ear = ellipsoid(0.035, 0.06, 0.06, squareness=3, detail=12).painted(palette.accent)
        parts += both([ear.shifted(wide, 0, z)])
    return parts
