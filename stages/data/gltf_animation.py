"""Animations of glTF files: their channels, the values of these at any time, and what they really move.

Axes: t frame, k key, n number. Times are in seconds of the animation's own clock, which need not begin at 0.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ss4d.stages.data.gltf_file import GltfFile
from ss4d.stages.data.gltf_references import AGAIN, printable
from ss4d.stages.data.surface import Doubles
from ss4d.stages.errors import InputError

DEFAULTS: Mapping[str, tuple[float, ...]] = {
    "translation": (0.0, 0.0, 0.0),
    "rotation": (0.0, 0.0, 0.0, 1.0),
    "scale": (1.0, 1.0, 1.0),
}

Target = tuple[int, str]  # a node and what of it is moved
Tracks = dict[Target, Doubles]  # values (t, ...)


@dataclass(frozen=True, eq=False)
class Channel:
    """What moves one property of one node.

    Attributes:
        target: node and path.
        keys: (k,) seconds, rising.
        values: (k, n), or (3 k, n) for splines: slope before, value, slope after.
        interpolation: STEP, LINEAR or CUBICSPLINE.
        moves: whether it ever makes the property other than the file's stored one.
    """

    target: Target
    keys: Doubles
    values: Doubles
    interpolation: str
    moves: bool

    def at(self, times: Doubles) -> Doubles:
        """Values (t, n) between the keys; those of the first and the last key outside them."""
        values, keys = self.values, self.keys
        if self.interpolation == "CUBICSPLINE":
            slopes_in, values, slopes_out = values[0::3], values[1::3], values[2::3]
        right = np.clip(np.searchsorted(keys, times, side="right"), 1, max(len(keys) - 1, 1))
        left = right - 1
        right = np.minimum(right, len(keys) - 1)
        gap = np.maximum(keys[right] - keys[left], 1e-12)
        share = np.clip((times - keys[left]) / gap, 0, 1)[:, None]
        if self.interpolation == "STEP":
            return np.where(share < 1, values[left], values[right])
        if self.interpolation == "CUBICSPLINE":
            s2, s3, gap = share**2, share**3, gap[:, None]
            result = (2 * s3 - 3 * s2 + 1) * values[left] + gap * (s3 - 2 * s2 + share) * slopes_out[left]
            result += (3 * s2 - 2 * s3) * values[right] + gap * (s3 - s2) * slopes_in[right]
            return result
        if self.target[1] == "rotation":
            return _slerp(values[left], values[right], share)
        return values[left] * (1 - share) + values[right] * share


@dataclass(frozen=True, eq=False)
class Animation:
    """One animation of a file.

    Attributes:
        index: its number in the file.
        name: as the file has it, else its number.
        channels: those with a node.
    """

    index: int
    name: str
    channels: tuple[Channel, ...]

    @cached_property
    def targets(self) -> frozenset[Target]:
        """What it really moves: exporters write still channels for all else."""
        return frozenset(channel.target for channel in self.channels if channel.moves)


def animations(file: GltfFile) -> tuple[Animation, ...]:
    """All animations of a file.

    Raises:
        InputError: for one whose keys and values do not belong together, or if they hold too many numbers together.
    """
    _check_room(file)
    return tuple(
        Animation(index, printable(held.name or index), tuple(_channels(file, index)))
        for index, held in enumerate(file.gltf.animations)
    )


def tracks(channels: Iterable[Channel], times: Doubles) -> Tracks:
    """Every moved property at the given times; where two channels move one, the first that really does counts."""
    made: Tracks = {}
    for channel in sorted(channels, key=lambda held: not held.moves):
        if channel.target not in made:
            made[channel.target] = channel.at(times)
    return made


def _check_room(file: GltfFile) -> None:
    """Raises InputError if all channels hold more numbers than one array may: they are held at once."""
    samplers = [held.samplers[channel.sampler] for held in file.gltf.animations for channel in held.channels]
    total = sum(file.numbers_in(array) for sampler in samplers for array in (sampler.input, sampler.output))
    if total > file.limits.max_numbers:
        raise InputError(
            f"{file.path}: its animations have {total:,} times and values, over the limit of "
            f"{file.limits.max_numbers:,} numbers (max_numbers)."
        )


def _channels(file: GltfFile, index: int) -> Iterable[Channel]:
    held = file.gltf.animations[index]
    for number, channel in enumerate(held.channels):
        node, path = channel.target.node, channel.target.path
        if node is None or node >= len(file.gltf.nodes) or path not in (*DEFAULTS, "weights"):
            continue
        sampler = held.samplers[channel.sampler]
        name = f"{file.path}: animation {index}, channel {number}"
        keys = np.atleast_1d(file.array(sampler.input).astype(np.float64))
        values = file.array(sampler.output).astype(np.float64)
        interpolation = sampler.interpolation or "LINEAR"
        rows = len(keys) * (3 if interpolation == "CUBICSPLINE" else 1)
        if rows == 0:
            continue
        if keys.ndim != 1 or values.size % rows or not np.isfinite(keys).all() or not np.isfinite(values).all():
            raise InputError(f"{name} has {len(keys)} times for {values.size} values, or some are no numbers; {AGAIN}")
        values = values.reshape(rows, -1)  # weights are stored as one long row
        wanted = len(DEFAULTS.get(path, ())) or values.shape[1]
        if values.shape[1] != wanted:
            raise InputError(f"{name} has {values.shape[1]} numbers for a {path}; {AGAIN}")
        if (np.diff(keys) < 0).any():
            order = np.argsort(keys, kind="stable")
            keys, values = keys[order], values.reshape(len(keys), -1)[order].reshape(rows, -1)
        yield Channel((node, path), keys, values, interpolation, _moves(file, node, path, values, interpolation))


def _moves(file: GltfFile, node: int, path: str, values: Doubles, interpolation: str) -> bool:
    """Whether values (k, n) are ever other than what the file's node has."""
    if interpolation == "CUBICSPLINE":
        if np.abs(values[0::3]).max() > 1e-6 or np.abs(values[2::3]).max() > 1e-6:
            return True
        values = values[1::3]
    if np.ptp(values, axis=0).max() > 1e-6 * max(1.0, float(np.abs(values).max())):
        return True
    if path == "weights":
        return bool(np.abs(values - file.stored_weights(node, values.shape[1])).max() > 1e-6)
    held = getattr(file.gltf.nodes[node], path)
    stored = np.asarray(DEFAULTS[path] if held is None else held, np.float64)
    off = np.abs(values - stored).max()
    if path == "rotation":  # q and -q turn alike
        off = min(off, np.abs(values + stored).max())
    return bool(off > 1e-5 * max(1.0, float(np.abs(stored).max())))


def _slerp(first: Doubles, second: Doubles, share: Doubles) -> Doubles:
    """Rotations (t, 4) between two by the shorter way."""
    dot = (first * second).sum(-1, keepdims=True)
    second, dot = np.where(dot < 0, -second, second), np.abs(dot)
    angle = np.arccos(np.clip(dot, 0, 1))
    sine = np.maximum(np.sin(angle), 1e-12)
    spherical = (np.sin((1 - share) * angle) * first + np.sin(share * angle) * second) / sine
    return np.where(angle < 1e-6, first * (1 - share) + second * share, spherical)
