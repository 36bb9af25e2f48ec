"""Which of a glTF file's animations a clip shows, and from when to when.

Axes: t moment, v vertex. Times are in seconds of the animation's own clock, which need not begin at 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ss4d.stages.data.gltf_animation import Animation, Channel, Target, tracks
from ss4d.stages.data.gltf_file import GltfFile
from ss4d.stages.data.gltf_nodes import world_matrices
from ss4d.stages.data.gltf_parts import Part
from ss4d.stages.data.motion import motion, moves
from ss4d.stages.data.surface import Doubles
from ss4d.stages.errors import InputError

PROBES = 1500  # vertices that are looked at to see how much an animation moves
MOMENTS = 16  # at which that is done
MOST_MOMENTS = 600  # of a long animation, out of which a window is chosen
STEP = 0.05  # of an animation's largest step, below which a step is no motion
ENOUGH = 0.75  # of the most that a window moves, for an earlier one to be taken
MOST_NAMES = 3  # that are written out
PER_WINDOW = 4  # places where a window may begin, for each of its length


@dataclass(frozen=True, kw_only=True)
class AnimationChoice:
    """What a user asks for.

    Attributes:
        animation: its name or number; None to choose by what moves.
        begin: seconds at which the clip begins; None for where it moves.
        end: seconds after which it goes on at `begin`; None for the end of the animation, after which it goes on at
            that one's beginning.
        in_place: whether the object's way through space is taken out.
    """

    animation: str | int | None = None
    begin: float | None = None
    end: float | None = None
    in_place: bool = False


USUAL_CHOICE = AnimationChoice()


@dataclass(frozen=True, eq=False)
class Play:
    """What a clip shows.

    Attributes:
        names: of the animations, in the file's order.
        channels: theirs.
        begin: the first moment that is shown at all.
        end: the last.
        start: the moment at which the clip begins; after `end`, it goes on at `begin`.
    """

    names: tuple[str, ...]
    channels: tuple[Channel, ...]
    begin: float = 0.0
    end: float = 0.0
    start: float = 0.0

    def times(self, num_frames: int, fps: float) -> Doubles:
        """The moments (t,) of a clip's frames."""
        passed = self.start - self.begin + np.arange(num_frames) / fps
        length = self.end - self.begin
        return self.begin + (passed % length if length > 0 else passed * 0)

    def __str__(self) -> str:
        if not self.names:
            return "nothing moves"
        names = " + ".join(self.names[:MOST_NAMES])
        if len(self.names) > MOST_NAMES:
            names += f" and {len(self.names) - MOST_NAMES} more"
        return f"{names}, from {self.start:.2f} s of {self.begin:.2f} to {self.end:.2f} s"


def chosen(
    file: GltfFile, parts: Sequence[Part], held: Sequence[Animation], choice: AnimationChoice, seconds: float
) -> Play:
    """What a clip of so many seconds shows.

    Animations that move different things play together; of those that move the same, the one that moves most.

    Raises:
        InputError: if there is no such animation or no such time in it.
    """
    shown = _together(file, parts, held) if choice.animation is None else [named(file, held, choice.animation)]
    channels = tuple(channel for animation in shown for channel in animation.channels)
    moving = [channel for channel in channels if channel.moves]
    real = moving or channels
    if not real:
        return Play(tuple(animation.name for animation in shown), channels)
    first, last = min(float(c.keys[0]) for c in real), max(float(c.keys[-1]) for c in real)
    play = _asked(file, choice, Play(tuple(animation.name for animation in shown), channels, first, last, first))
    if moving and choice.begin is None and play.end - play.begin > seconds:
        play = replace(play, start=_window(file, parts, play, seconds))
    return play


def named(file: GltfFile, held: Sequence[Animation], name: str | int) -> Animation:
    """The animation with this name, or else with this number.

    Raises:
        InputError: if there is none; the sentence lists those that there are.
    """
    found = [animation for animation in held if animation.name == name]
    found += [animation for animation in held if str(animation.index) == str(name)]
    if not found:
        names = ", ".join(f"{animation.index} ({animation.name})" for animation in held[:20]) or "none at all"
        raise InputError(f"{file.path} has no animation {name}; it has {names}.")
    return found[0]


@dataclass(frozen=True)
class Moving:
    """A way in which a file moves.

    Attributes:
        animation: its number; None for all that play together.
        name: of the animation; empty for several.
        begin: seconds at which something begins to move.
        end: seconds from which on nothing does.
    """

    animation: int | None
    name: str
    begin: float
    end: float


def ways_to_move(file: GltfFile, parts: Sequence[Part], held: Sequence[Animation], *, together: bool) -> list[Moving]:
    """Each animation in which the object moves, in the file's order.

    Args:
        file: the parsed file.
        parts: what it draws.
        held: its animations.
        together: if they all move different things, tell of them as one.
    """
    groups: list[tuple[int | None, str, tuple[Channel, ...]]] = [(a.index, a.name, a.channels) for a in held]
    moving = [animation for animation in held if animation.targets]
    if together and len(moving) > 1 and _apart(moving):
        groups = [(None, "", tuple(channel for animation in moving for channel in animation.channels))]
    made = []
    for index, name, channels in groups:
        if any(channel.moves for channel in channels):
            times, points = _over_time(file, parts, channels)
            if moves(points):
                steps = np.abs(np.diff(points, axis=0)).max((1, 2))
                moved = np.flatnonzero(steps > STEP * steps.max())
                made.append(Moving(index, name, float(times[moved[0]]), float(times[moved[-1] + 1])))
    return made


def _over_time(file: GltfFile, parts: Sequence[Part], channels: Sequence[Channel]) -> tuple[Doubles, Doubles]:
    """Moments over all of the channels' time, at their keys, too, and some of the vertices (t, v, 3) then."""
    real = [channel for channel in channels if channel.moves]
    keys = np.unique(np.concatenate([channel.keys for channel in real]))
    picked = keys[np.linspace(0, len(keys) - 1, min(len(keys), MOMENTS)).astype(int)]
    times = np.union1d(np.linspace(keys[0], keys[-1], MOMENTS), picked)
    return times, probed(file, parts, channels, times)


def _together(file: GltfFile, parts: Sequence[Part], held: Sequence[Animation]) -> list[Animation]:
    """The animations that move most and nothing that another of them moves, in the file's order."""
    moving = [animation for animation in held if animation.targets]
    if _apart(moving):
        return moving
    most = {held.index: motion(_over_time(file, parts, held.channels)[1]) for held in moving}
    taken: set[Target] = set()
    shown = []
    for animation in sorted(moving, key=lambda found: -most[found.index]):
        if not taken & animation.targets:
            taken |= animation.targets
            shown.append(animation)
    return sorted(shown, key=lambda found: found.index)


def _apart(moving: Sequence[Animation]) -> bool:
    """Whether no two of the animations move the same."""
    targets = [target for animation in moving for target in animation.targets]
    return len(set(targets)) == len(targets)


def _asked(file: GltfFile, choice: AnimationChoice, play: Play) -> Play:
    """What of a play that has all of its animations' time is shown."""
    first, last = play.begin, play.end
    start = first if choice.begin is None else max(choice.begin, first)
    end = last if choice.end is None else min(choice.end, last)
    if (start >= end and first < last) or start > last or end < first:
        asked = f"{'the start' if choice.begin is None else f'{choice.begin:g} s'} to "
        asked += "the end" if choice.end is None else f"{choice.end:g} s"
        raise InputError(
            f"{file.path} moves from {first:g} to {last:g} s, of which {asked} is no part; give --from and --to within."
        )
    return replace(play, start=start, end=end, begin=first if choice.end is None else start)


def _window(file: GltfFile, parts: Sequence[Part], play: Play, seconds: float) -> float:
    """The first moment from which on the clip moves nearly as much as from any other."""
    count = min(MOST_MOMENTS, int(np.ceil((play.end - play.begin) / seconds * MOMENTS)) + 1)
    keys = np.unique(np.concatenate([channel.keys for channel in play.channels if channel.moves]))
    picked = keys[np.linspace(0, len(keys) - 1, min(len(keys), MOST_MOMENTS)).astype(int)]
    times = np.union1d(np.linspace(play.begin, play.end, count), picked.clip(play.begin, play.end))
    points = probed(file, parts, play.channels, times)
    room = play.end - play.begin - seconds
    starts = play.begin + np.linspace(0, room, min(MOST_MOMENTS, int(np.ceil(room / seconds * PER_WINDOW)) + 1))
    first = np.searchsorted(times, starts - 1e-9)
    last = np.searchsorted(times, starts + seconds + 1e-9)
    moved = np.array([motion(points[a:b], 1.0) for a, b in zip(first, last, strict=True)])
    return float(starts[int(np.argmax(moved >= moved.max() * ENOUGH))])


def probed(file: GltfFile, parts: Sequence[Part], channels: Sequence[Channel], times: Doubles) -> Doubles:
    """Some of the vertices of each part (t, v, 3) at the given moments."""
    values = tracks(channels, times)
    worlds = world_matrices(file, values, len(times))
    each = max(PROBES // len(parts), 3)
    made = []
    for part in parts:
        rows = np.unique(np.linspace(0, len(part.rows) - 1, min(each, len(part.rows))).astype(np.int64))
        some = part.taken(rows, part.faces[:0])
        made.append(some.posed(values, worlds, len(times))[0])
    return np.concatenate(made, axis=1)
