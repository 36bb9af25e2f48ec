"""What is shown when: the middle of each frame's time decides, order counts before stamps, and pauses are bounded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ss4d.stages.reading.timeline import MAX_HOLD, Timeline, durations, steady, timeline, typical_step


def shown(line: Timeline) -> list[int]:
    return [line.picture(frame) for frame in range(line.count)]


@given(st.lists(st.floats(0.02, 0.5), min_size=1, max_size=20), st.floats(2, 40))
def test_a_picture_is_shown_until_the_next_one(held: list[float], rate: float) -> None:
    line = timeline(held, rate)
    ends = np.cumsum(held)
    for frame, picture in enumerate(shown(line)):
        middle = (frame + 0.5) / rate
        if middle < ends[-1]:
            assert ends[picture] - held[picture] <= middle + 1e-9
            assert middle <= ends[picture] + 1e-9
        else:
            assert picture == len(held) - 1
    assert line.count / rate == pytest.approx(ends[-1], abs=max(0.51 / rate, 1 / rate - ends[-1]))


@given(st.integers(1, 50), st.sampled_from([24.0, 30000 / 1001, 60.0]))
def test_every_picture_of_a_regular_video_is_shown_once(count: int, rate: float) -> None:
    stamps = [5 + round(i / rate, 3) for i in range(count)]  # webm rounds to milliseconds
    step = typical_step(stamps) or 1 / rate
    assert step == pytest.approx(1 / rate, rel=0.03)
    assert shown(timeline(durations(stamps, step), rate)) == list(range(count))
    assert shown(steady(count, rate)) == list(range(count))


def test_the_usual_step_is_that_of_most_pictures() -> None:
    assert typical_step([0.0, 0.017, 0.067, 0.1, 0.133, 0.166, 0.2]) == pytest.approx(0.0333, abs=1e-4)
    assert typical_step([0.0, 0.1, 0.2, 600.0, 600.1]) == pytest.approx(0.1)
    assert typical_step([3.0]) is None
    assert typical_step([None, 1.0, 1.0, 0.5]) is None


def test_order_counts_where_stamps_go_back() -> None:
    joined = [0.0, 0.1, 0.2, 0.0, 0.1, None, 0.3]
    assert durations(joined, 0.1) == pytest.approx([0.1] * 7)


def test_long_pauses_are_shortened_and_told() -> None:
    line = timeline([0.1, 600.0, 0.1], 10.0)
    assert line.cut == ((1, 600.0),)
    assert line.count == round(10 * (MAX_HOLD + 0.2))
    assert timeline([10.0] * 4, 0.1).cut == ()  # a slide show has no pauses
    assert timeline([10.0] * 4, 0.1).count == 4
