"""Colors and patterns, painted in each part's own coordinates so that they stick to it while it moves; RGB, 0 to 1."""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from ss4d.stages.data.mesh import Doubles, Part

Paint = Callable[[Part], Doubles]

WHITE = np.array([0.96, 0.95, 0.92])
BLACK = np.array([0.06, 0.05, 0.07])
WOOD = np.array([0.52, 0.34, 0.18])
LEAF = np.array([0.25, 0.52, 0.18])
METAL = np.array([0.62, 0.65, 0.70])


@dataclass(frozen=True)
class Palette:
    """The colors of one object: `main` and `second` go well together, `accent` stands out, `dark` is for details."""

    main: Doubles
    second: Doubles
    accent: Doubles
    dark: Doubles


def rgb(hue: float, saturation: float, value: float) -> Doubles:
    """A color from hue (turns), saturation and value (0 to 1)."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))


def random_palette(rng: Generator, *, natural: float = 0.0) -> Palette:
    """Colors at random; with probability `natural` those of fur, feathers and wood."""
    if rng.random() < natural:
        hue, saturation, value = rng.uniform(0.03, 0.12), rng.uniform(0.1, 0.7), rng.uniform(0.3, 0.95)
        second = rgb(hue + rng.uniform(-0.02, 0.02), saturation * rng.uniform(0.1, 0.8), min(1, value * 1.4))
        if rng.random() < 0.5:
            second = rgb(hue, saturation, value * rng.uniform(0.3, 0.6))
    else:
        hue, saturation, value = rng.random(), rng.uniform(0.35, 0.95), rng.uniform(0.5, 1.0)
        apart = rng.choice([0.06, 0.12, 0.33, 0.5]) * rng.choice([-1, 1])
        second = rgb(hue + apart, saturation * rng.uniform(0.3, 1), rng.uniform(0.4, 1.0))
        if rng.random() < 0.3:
            second = WHITE * rng.uniform(0.85, 1)
    accent = rgb(hue + rng.uniform(0.3, 0.7), rng.uniform(0.6, 1), rng.uniform(0.7, 1))
    return Palette(rgb(hue, saturation, value), second, accent, rgb(rng.random(), 0.3, rng.uniform(0.05, 0.25)))


def shade(rng: Generator, color: Doubles, amount: float = 0.15) -> Doubles:
    """The color, a little lighter or darker and shifted."""
    return np.clip(color * (1 + rng.uniform(-amount, amount)) + rng.uniform(-amount, amount, 3) / 3, 0, 1)


def mixed(first: Doubles, second: Doubles, share: Doubles) -> Doubles:
    """Colors (v, 3): `first` where share (v,) is 0, `second` where it is 1."""
    return first + (second - first) * np.clip(share, 0, 1)[:, None]


def stripes(first: Doubles, second: Doubles, *, axis: int = 2, count: float = 6.0, wave: float = 0.0,
            share: float = 0.5, turns: float = 3.0) -> Paint:  # fmt: skip
    """Bands across an axis of the part; `wave` makes them zigzag `turns` times around it."""

    def paint(part: Part) -> Doubles:
        place, (u, v) = _scaled(part)[:, axis], np.delete(_scaled(part), axis, 1).T
        phase = (place * 0.5 + 0.5) * count + wave * np.sin(turns * np.arctan2(v, u))
        return mixed(first, second, _edge(np.abs(phase % 1 - 0.5) * 2 - (1 - share), 0.12))

    return paint


def sectors(first: Doubles, second: Doubles, *, count: int = 6, axis: int = 2, swirl: float = 0.0) -> Paint:
    """Wedges around an axis of the part, as on a beach ball; `swirl` turns them along it."""

    def paint(part: Part) -> Doubles:
        place = _scaled(part)
        u, v = np.delete(place, axis, 1).T
        phase = np.arctan2(v, u) * count / 2 + swirl * place[:, axis]
        return mixed(first, second, _edge(np.sin(phase * 2), 0.15))

    return paint


def spots(rng: Generator, first: Doubles, second: Doubles, *, count: int = 30, size: float = 0.28) -> Paint:
    """Round spots at random places on the part; `size` is their radius over the part's mean half extent."""
    places, radii = rng.normal(size=(count, 3)), size * rng.uniform(0.6, 1.3, count)
    shuffle = rng.random(count)

    def paint(part: Part) -> Doubles:
        if count * len(part.local) == 0:
            return np.tile(first, (len(part.local), 1))
        half = _half(part)
        centers = part.local[(shuffle * len(part.local)).astype(int)] + places * half.mean() * 0.1
        distance = np.linalg.norm(part.local[:, None] - centers, axis=-1) / half.mean()
        return mixed(first, second, _edge((radii - distance).max(1), 0.05))

    return paint


def patches(rng: Generator, first: Doubles, second: Doubles, *, frequency: float = 2.5, share: float = 0.5) -> Paint:
    """Blotches as on a cow: where a sum of random waves is high."""
    waves, phases = rng.normal(size=(6, 3)) * frequency, rng.uniform(0, 2 * np.pi, 6)

    def paint(part: Part) -> Doubles:
        height = np.sin(part.local / _half(part).mean() @ waves.T + phases).sum(1) / 6
        return mixed(first, second, _edge(height - (0.5 - share) * 0.8, 0.08))

    return paint


def gradient(first: Doubles, second: Doubles, *, axis: int = 2, middle: float = 0.0, width: float = 1.0) -> Paint:
    """From one color to the other along an axis of the part; a small width makes two tones, as back and belly."""
    return lambda part: mixed(first, second, _edge(_scaled(part)[:, axis] - middle, width))


def random_pattern(rng: Generator, first: Doubles, second: Doubles, *, plain: float = 0.2) -> Paint:
    """One of the patterns with random settings; with probability `plain`, no pattern."""
    if rng.random() < plain:
        return lambda part: np.tile(first, (len(part.local), 1))
    axis = int(rng.choice([0, 1, 2], p=[0.15, 0.15, 0.7]))
    choices: tuple[Callable[[], Paint], ...] = (
        lambda: stripes(first, second, axis=axis, count=rng.uniform(2, 9), wave=rng.choice([0, 0.3]),
                        share=rng.uniform(0.3, 0.6)),
        lambda: spots(rng, first, second, count=int(rng.integers(8, 40)), size=rng.uniform(0.15, 0.4)),
        lambda: patches(rng, first, second, frequency=rng.uniform(1, 3), share=rng.uniform(0.35, 0.65)),
        lambda: gradient(first, second, axis=axis, middle=rng.uniform(-0.3, 0.3), width=rng.uniform(0.1, 1)),
        lambda: sectors(first, second, count=int(rng.integers(2, 7)), axis=axis, swirl=rng.choice([0, 2])),
    )  # fmt: skip
    return choices[rng.integers(len(choices))]()


def _half(part: Part) -> Doubles:
    return np.asarray(np.maximum(np.ptp(part.local, axis=0) / 2, 1e-6))


def _scaled(part: Part) -> Doubles:
    """Local coordinates from -1 to 1 along each axis."""
    low, high = part.local.min(0), part.local.max(0)
    return np.asarray((part.local - (low + high) / 2) / np.maximum((high - low) / 2, 1e-6))


def _edge(height: Doubles, width: float) -> Doubles:
    """A smooth step from 0 to 1 around height 0."""
    x = np.clip(height / (2 * width) + 0.5, 0, 1)
    return x * x * (3 - 2 * x)
