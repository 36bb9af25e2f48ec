"""When the pictures of an input are shown, and which of them a frame at a constant rate shows; times in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

MAX_HOLD = 5.0  # seconds: a picture that stays longer tells nothing more, and every second of it costs frames
HOLD_STEPS = 2  # ... but not of pictures that all stay long: a pause is longer than this many usual steps
NEAR = 0.25  # steps that differ from the median one by less than this share of it count as typical


@dataclass(frozen=True, eq=False)
class Timeline:
    """Pictures that are shown one after the other, seen at a constant rate.

    Attributes:
        rate: frames per second.
        starts: (n,) when each picture appears, from 0, increasing.
        length: until the last one is gone.
        cut: pauses that were shortened: the picture that stayed, and its seconds.
    """

    rate: float
    starts: NDArray[np.float64]
    length: float
    cut: tuple[tuple[int, float], ...] = ()

    @property
    def count(self) -> int:
        """How many frames there are."""
        return max(1, round(self.length * self.rate)) if len(self.starts) else 0

    def picture(self, frame: int) -> int:
        """The picture that is shown in the middle of the time of a frame."""
        middle = (frame + 0.5) / self.rate
        return int(np.searchsorted(self.starts, middle, side="right")) - 1


def steady(count: int, rate: float) -> Timeline:
    """The timeline of `count` pictures that are all shown equally long."""
    return Timeline(rate, np.arange(count) / rate, count / rate)


def timeline(durations: Sequence[float], rate: float) -> Timeline:
    """The timeline of pictures that are shown for `durations` seconds each, all above 0; long pauses are shortened."""
    longest = max(MAX_HOLD, HOLD_STEPS / rate)
    held = np.minimum(np.asarray(durations, np.float64), longest)
    cut = tuple((i, float(seconds)) for i, seconds in enumerate(durations) if seconds > longest)
    return Timeline(rate, np.cumsum(held) - held, float(held.sum()), cut)


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


def typical_step(stamps: Sequence[float | None]) -> float | None:
    """The usual time from one stamp to the next; None where none of them rises.

    The mean of the steps about the median one: formats that round to milliseconds have steps of 33 and of 34.
    """
    steps = np.array([b - a for a, b in pairwise(stamps) if a is not None and b is not None and b > a])
    if not len(steps):
        return None
    middle = np.sort(steps)[(len(steps) - 1) // 2]
    return float(steps[np.abs(steps - middle) <= NEAR * middle].mean())
