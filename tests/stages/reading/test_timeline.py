"""What is shown when: the middle of each frame's time decides, order counts before stamps, and pauses are bounded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ss4d.stages.reading.timeline import Timeline, durations, steady, timeline, typical_step

PAUSE = 5.0


def shown(line: Timeline) -> list[int]:
    return [line.picture(frame) for frame in range(line.count)]


@given(st.lists(st.floats(0.02, 0.5), min_size=1, max_size=20), st.floats(2, 40))
def test_a_picture_is_shown_until_the_next_one(held: list[float], rate: float) -> None:
    line = timeline(held, rate, PAUSE)
    ends = np.cumsum(held)
    for frame, picture in enumerate(shown(line)):
        middle = (frame + 0.5) / rate
        assert ends[picture] - held[picture] <= middle + 1 / rate + 1e-9
        assert middle <= ends[picture] + 1 / rate + 1e-9
    assert line.count / rate == pytest.approx(ends[-1], abs=max(1.51 / rate, 1 / rate - ends[-1]))
    assert shown(line) == sorted(shown(line))


RATES = [24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 50.0, 60000 / 1001, 60.0]


@given(st.integers(2, 400), st.sampled_from(RATES), st.floats(0, 1), st.sampled_from([0.001, 1 / 600, 1 / 90000]))
def test_a_regular_video_is_known_by_stamps_that_are_rounded(
    count: int, rate: float, begin: float, tick: float
) -> None:
    stamps = [tick * round((begin + i / rate) / tick) for i in range(count)]
    step = typical_step(stamps, tick)
    assert step is not None
    found = step.rate([])
    assert found == pytest.approx(rate, rel=2 * tick * rate / (count - 1))
    assert step.rate([3.0, rate]) == pytest.approx(rate)
    assert shown(timeline(durations(stamps, 1 / found), found, PAUSE)) == list(range(count))
    assert shown(steady(count, rate)) == list(range(count))


def test_of_rates_that_stamps_cannot_tell_apart_the_nearest_usual_one_is_taken() -> None:
    for rate in RATES:
        long = typical_step([round(i / rate, 3) for i in range(2000)], 0.001)
        assert long is not None
        assert long.rate([]) == rate
    slow = typical_step([round(i / 13, 3) for i in range(50)], 0.001)
    assert slow is not None
    assert slow.rate([24.0]) == pytest.approx(13, rel=1e-3)


@given(st.lists(st.floats(-0.4, 0.4), min_size=4, max_size=200), st.sampled_from(RATES))
def test_shaken_stamps_lose_no_picture(shaken: list[float], rate: float) -> None:
    """As of a camera that writes down when it got to a picture: two come within a frame's time, none in the next."""
    stamps = [round((i + late / 2 + 1) / rate, 3) for i, late in enumerate(shaken)]
    line = timeline(durations(stamps, 1 / rate), rate, PAUSE)
    assert set(shown(line)) == set(range(len(stamps)))
    assert line.count <= len(stamps) + 1


def test_a_burst_of_pictures_shifts_none_by_more_than_a_frame() -> None:
    stamps = [0, 0.1, 0.2, *(0.3 + 0.05 * i for i in range(20)), 1.4, 1.5, 1.6]
    line = timeline(durations(stamps, 0.1), 10.0, PAUSE)
    for frame, picture in enumerate(shown(line)):
        assert abs(stamps[picture] - frame / 10) <= 0.15 + 1e-9


def test_the_usual_step_is_that_of_most_pictures() -> None:
    for stamps, step in (
        ([0.0, 0.017, 0.067, 0.1, 0.133, 0.166, 0.2], 0.0333),
        ([0.0, 0.1, 0.2, 600.0, 600.1], 0.1),
    ):
        found = typical_step(stamps)
        assert found is not None
        assert found.seconds == pytest.approx(step, abs=1e-4)
    assert typical_step([3.0]) is None
    assert typical_step([None, 1.0, 1.0, 0.5]) is None


def test_order_counts_where_stamps_go_back() -> None:
    joined = [0.0, 0.1, 0.2, 0.0, 0.1, None, 0.3]
    assert durations(joined, 0.1) == pytest.approx([0.1] * 7)


def test_long_pauses_are_shortened_and_told() -> None:
    line = timeline([0.1, 600.0, 0.1], 10.0, PAUSE)
    assert line.cut == ((1, 600.0),)
    assert line.count == round(10 * (PAUSE + 0.2))
    assert timeline([10.0] * 4, 0.1, PAUSE).cut == ()  # a slide show has no pauses
    assert timeline([10.0] * 4, 0.1, PAUSE).count == 4
