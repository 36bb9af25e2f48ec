"""When the pictures of an input are shown, and which of them a frame at a constant rate shows; times in seconds."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

PAUSE_STEPS = 2  # where all pictures stay long, a pause is longer than this many usual steps
NEAR = 0.45  # steps that differ from the median one by less than this share of it count as usual
SEEN = 0.4  # of a frame's time: a picture that stays so long is shown, though no frame's middle may fall into it
FARTHEST = 1  # frames that a picture is moved by for that, at most
# What cameras, broadcasts and screens use, in frames a second.
USUAL_RATES = (24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 48.0, 50.0, 60000 / 1001, 60.0, 120.0)


@dataclass(frozen=True, eq=False)
class Timeline:
    """Pictures that are shown one after the other, seen at a constant rate.

    Attributes:
        rate: frames per second.
        starts: (n,) when each picture appears, from 0, increasing.
        length: until the last one is gone.
        cut: pauses that were shortened: the picture that stayed, and its seconds.
        max_pause: what they were shortened to, seconds.
    """

    rate: float
    starts: NDArray[np.float64]
    length: float
    cut: tuple[tuple[int, float], ...] = ()
    max_pause: float = math.inf

    @property
    def count(self) -> int:
        """How many frames there are."""
        return int(self._firsts[-1]) if len(self.starts) else 0

    def pauses(self) -> Iterator[str]:
        """A sentence on each pause that was shortened."""
        for picture, seconds in self.cut:
            yield (
                f"nothing comes for {seconds:.0f} s after frame {picture}; the pause is shortened to "
                f"{self.max_pause:g} s (input.max_pause)"
            )

    def picture(self, frame: int) -> int:
        """The picture that a frame shows: the one in the middle of its time, or a short one beside that."""
        return int(np.searchsorted(self._firsts[:-1], frame, side="right")) - 1

    @cached_property
    def _firsts(self) -> NDArray[np.int64]:
        """(n + 1,) the first frame of each picture, and the frame after the last.

        Stamps that are rounded or shaken let two pictures fall into one frame and none into the next. So each picture
        that stays long enough is given a frame of its own, and all of them are moved by as little as that takes: by
        their isotonic regression, whose largest error is least halfway between the running bounds from both sides.
        """
        places = np.append(self.starts, self.length) * self.rate
        nearest = np.ceil(places - 0.5)
        before = np.append(0, np.cumsum(np.diff(places) >= SEEN))  # frames that must lie before each picture
        room = places - before
        bounds = np.maximum.accumulate(room), np.minimum.accumulate(room[::-1])[::-1]
        apart = np.ceil((bounds[0] + bounds[1]) / 2 - 0.5) + before
        firsts = np.maximum.accumulate(np.clip(apart, nearest - FARTHEST, nearest + FARTHEST))
        firsts[0], firsts[-1] = 0, max(1, firsts[-1])
        return firsts.astype(np.int64)


def steady(count: int, rate: float) -> Timeline:
    """The timeline of `count` pictures that are all shown equally long."""
    return Timeline(rate, np.arange(count) / rate, count / rate)


def timeline(durations: Sequence[float], rate: float, max_pause: float) -> Timeline:
    """The timeline of pictures that are shown for `durations` seconds each, all above 0.

    A pause of more than `max_pause` seconds is shortened to that: it tells nothing more, and all of it costs frames.
    """
    longest = max(max_pause, PAUSE_STEPS / rate)
    held = np.minimum(np.asarray(durations, np.float64), longest)
    cut = tuple((i, float(seconds)) for i, seconds in enumerate(durations) if seconds > longest)
    return Timeline(rate, np.cumsum(held) - held, float(held.sum()), cut, longest)


def durations(stamps: Sequence[float | None], step: float) -> list[float]:
    """How long each picture is shown, by time stamps in the order in which the pictures are shown.

    The order counts, not the stamps: where one is missing or lies before the stamp it follows, as where recordings were
    joined, and after the last one, the picture is shown for a typical `step`.
    """
    shown = []
    for stamp, following in zip(stamps, [*stamps[1:], None], strict=True):
        later = following is not None and stamp is not None and following > stamp
        shown.append(following - stamp if later else step)  # type: ignore[operator]  # both are numbers if it is later
    return shown


@dataclass(frozen=True)
class Step:
    """The usual time from one picture to the next.

    Attributes:
        seconds: of it.
        error: by what share of it the stamps, which are rounded, may tell it wrong.
    """

    seconds: float
    error: float = 0.0

    def rate(self, stated: Iterable[float]) -> float:
        """Frames per second: one that is stated if the stamps agree with it, else a usual one, else what they say."""
        for rates in (stated, USUAL_RATES):
            near = min(rates, key=self._off, default=None)
            if near is not None and self._off(near) <= self.error:
                return near
        return 1 / self.seconds

    def _off(self, rate: float) -> float:
        return abs(rate * self.seconds - 1)


def too_fast(rate: float, max_rate: float) -> str:
    """A sentence on time stamps that tell so many frames per second that they cannot be true."""
    return (
        f"its time stamps tell {rate:,.0f} frames per second, more than the {max_rate:,g} of input.max_rate: they are "
        "not followed"
    )


def typical_step(stamps: Sequence[float | None], tick: float = 0.0) -> Step | None:
    """The usual time from one stamp to the next; None where none of them rises.

    The mean of the steps about the median one: formats that round to milliseconds have steps of 33 and of 34.

    Args:
        stamps: in the order in which the pictures are shown.
        tick: what they are rounded to; what is not much shorter than a step counts steps, and rounds nothing.
    """
    steps = np.array([b - a for a, b in pairwise(stamps) if a is not None and b is not None and b > a])
    if not len(steps):
        return None
    middle = np.sort(steps)[(len(steps) - 1) // 2]
    usual = np.abs(steps - middle) <= NEAR * middle
    rounding = tick if tick <= NEAR * middle else 0.0
    # Roundings cancel out along a row of usual steps, but for those at its two ends.
    rows = 1 + np.count_nonzero(np.diff(np.flatnonzero(usual)) > 1)
    return Step(float(steps[usual].mean()), float(rows * rounding / steps[usual].sum()))
