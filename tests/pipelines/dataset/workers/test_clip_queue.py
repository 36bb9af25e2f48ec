"""In which order clips are handed out, and which are held back."""

import time

from ss4d.pipelines.dataset.workers.clip_queue import ClipQueue
from ss4d.pipelines.dataset.workers.todo import Source, Todo


def clip(name: str, goal: str | None = None) -> Todo:
    return Todo(Source(name, f"{name}.mp4", "0"), goal or name, ("segmentation",))


A, B, C = clip("a"), clip("b"), clip("c")


def test_clips_come_in_order() -> None:
    queue = ClipQueue([A, B])
    assert [queue.take(), queue.take(), queue.take()] == [A, B, None]
    assert not queue


def test_a_clip_of_equal_content_waits_until_the_first_has_left_its_worker() -> None:
    first, second = clip("first", "goal"), clip("second", "goal")
    queue = ClipQueue([first, second, A])
    assert [queue.take(), queue.take(), queue.take()] == [first, A, None]
    assert queue  # the second is held back
    queue.release(first)
    assert queue.take() == second
    assert not queue


def test_a_clip_that_is_put_back_comes_next() -> None:
    queue = ClipQueue([A, B])
    assert queue.take() == A
    queue.release(A)
    queue.put_back(A)
    assert [queue.take(), queue.take()] == [A, B]


def test_delayed_clips_come_when_their_time_has_come_and_before_all_others() -> None:
    queue = ClipQueue([C])
    queue.delay(A, 0.03)
    queue.delay(B, 60)
    assert queue.take() == C
    assert queue.take() is None
    time.sleep(0.04)
    assert [queue.take(), queue.take()] == [A, None]
    assert queue  # the last one


def test_isolated_clips_come_only_when_asked_for() -> None:
    queue = ClipQueue([])
    queue.isolate(A)
    assert queue
    assert queue.take() is None
    assert [queue.take_isolated(), queue.take_isolated()] == [A, None]
    assert not queue
