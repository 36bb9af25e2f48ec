"""Which workers are beyond the limits, and which clip is to blame."""

import time
from dataclasses import dataclass, field
from typing import cast

import pytest

from ss4d.pipelines.dataset.workers.enforcement import check_room, find_excess
from ss4d.pipelines.dataset.workers.handle import Assignment, Handle
from ss4d.pipelines.dataset.workers.limits import Clock, Limits
from ss4d.pipelines.dataset.workers.todo import Source, Todo
from ss4d.pipelines.errors import WorkerError

MIB = 2**20


@dataclass
class FakeWorker:
    memory: int = 0
    assignments: dict[str, Assignment] = field(default_factory=dict)

    def look(self) -> int:
        return self.memory


def worker(memory: int = 0, **seconds: float) -> Handle:
    """One whose clips have been worked on for so many seconds."""
    now = time.monotonic()
    given = {
        clip: Assignment(Todo(Source(clip, "", ""), clip, ()), Clock(now - spent)) for clip, spent in seconds.items()
    }
    return cast(Handle, FakeWorker(memory, given))


def test_without_limits_nothing_is_too_much() -> None:
    assert find_excess(worker(memory=10**15, owl=1e6), Limits()) is None


def test_the_slowest_clip_is_blamed_for_the_time() -> None:
    limits = Limits(clip_seconds=60)
    assert find_excess(worker(owl=10, crow=59), limits) is None
    excess = find_excess(worker(owl=61, crow=100), limits)
    assert excess is not None
    assert (excess.error, excess.clip) == ("TimeLimit", "crow")
    assert excess.message == "it took longer than the 60 s that --clip-timeout allows"


def test_no_clip_alone_is_blamed_for_the_memory() -> None:
    limits = Limits(worker_bytes=100 * MIB)
    assert find_excess(worker(memory=100 * MIB, owl=1), limits) is None
    assert find_excess(worker(memory=200 * MIB), limits) is None  # it has no clip
    excess = find_excess(worker(memory=2000 * MIB, owl=1), limits)
    assert excess is not None
    assert (excess.error, excess.clip) == ("MemoryLimit", None)
    assert excess.message == "its worker took 2,000 MiB of memory, and --memory allows 100"


def test_a_worker_that_is_too_large_without_a_clip_is_refused() -> None:
    check_room(worker(memory=100 * MIB), Limits(worker_bytes=100 * MIB))
    with pytest.raises(WorkerError, match="allows a worker 100 MiB, but it takes 150 before it begins its first clip"):
        check_room(worker(memory=150 * MIB), Limits(worker_bytes=100 * MIB))
