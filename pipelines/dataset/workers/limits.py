"""The limits on the time of a clip and the memory of a worker, and how both are measured."""

import re
from dataclasses import dataclass

import psutil

from ss4d.pipelines.dataset.checks import check_seconds
from ss4d.pipelines.errors import ConfigError

UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}  # powers of two


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits beyond which a worker is killed; None for no limit.

    Args:
        clip_seconds: that a clip may run, without waits for other clips of its worker.
        worker_bytes: resident memory that a worker may take.

    Raises:
        ConfigError: naming the option that is out of range.
    """

    clip_seconds: float | None = None
    worker_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.clip_seconds is not None:
            check_seconds("--clip-timeout", self.clip_seconds)


class Clock:
    """Counts the seconds that a clip runs; times are those of `time.monotonic`."""

    def __init__(self, now: float) -> None:
        self._spent = 0.0
        self._since: float | None = now

    def pause(self, now: float) -> None:
        """Stops counting: the clip waits for another one."""
        self._spent, self._since = self.seconds(now), None

    def resume(self, now: float) -> None:
        """Counts again: the clip runs."""
        self._since = now

    def seconds(self, now: float) -> float:
        """The seconds counted so far."""
        return self._spent + (0.0 if self._since is None else now - self._since)


def parse_size(text: str) -> int:
    """The bytes that a text means, such as "800M", "6G" or "1.5GiB"; powers of 1024.

    Raises:
        ConfigError: it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", text.strip().upper())
    if match is None or not float(match[1]):
        raise ConfigError(f"--memory takes a size such as 800M or 6G; got {text!r}")
    return round(float(match[1]) * (1 << UNITS[match[2]]))


def resident_bytes(pid: int) -> int:
    """The resident memory of a process; 0 if it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
