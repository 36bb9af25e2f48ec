"""What a clip may take: sizes and times, and a clock that knows what counts."""

import math

import pytest

from ss4d.pipelines.dataset.workers.limits import Clock, Limits, parse_size
from ss4d.pipelines.errors import ConfigError


def test_a_clock_stands_still_while_a_clip_waits() -> None:
    clock = Clock(10.0)
    clock.pause(12.0)
    assert clock.seconds(100.0) == 2.0
    clock.resume(100.0)
    assert clock.seconds(101.5) == 3.5


@pytest.mark.parametrize(
    ("text", "size"), [("800M", 800 << 20), ("6G", 6 << 30), ("1.5 GiB", 3 << 29), ("2kb", 2048), ("100", 100)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "0", "-1G", "6X"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match="--memory takes a size such as 800M"):
        parse_size(text)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_a_timeout_is_a_time(seconds: float) -> None:
    with pytest.raises(ConfigError, match="--clip-timeout must be a number of seconds above 0"):
        Limits(clip_seconds=seconds)
