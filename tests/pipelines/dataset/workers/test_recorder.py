"""What is written down of each attempt, and what follows from it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ss4d.pipelines.dataset.events import Attempt, Cause, EventWriter, read_events
from ss4d.pipelines.dataset.workers.messages import ClipFailed, StageDone
from ss4d.pipelines.dataset.workers.policy import History, Policy
from ss4d.pipelines.dataset.workers.progress import Tally
from ss4d.pipelines.dataset.workers.recorder import Recorder
from ss4d.pipelines.dataset.workers.todo import Source, Todo
from ss4d.pipelines.stage_result import StageResult

CLIP = Todo(Source("owl", "owl.mp4", "0"), "goal", ("slat",))
HISTORY = History(failures={"owl": {"killed": 1}}, attempts={"key": 2})


@pytest.fixture
def events(tmp_path: Path) -> Iterator[EventWriter]:
    with EventWriter(tmp_path, {}) as writer:
        yield writer


def recorder(events: EventWriter, tally: Tally, history: History | None = None) -> Recorder:
    policy = Policy(retries=1, wait=2.0, max_failure_ratio=0.5)
    return Recorder(events=events, tally=tally, policy=policy, history=history or History(), seed=7)


def written(events: EventWriter) -> list[Attempt]:
    return [attempt for batch in read_events(events.path.parent, {}) for attempt in batch.attempts]


def failed(cause: Cause, key: str = "key") -> ClipFailed:
    return ClipFailed("owl", "slat", key, "OSError", "no answer", cause, 0.5)


@pytest.mark.parametrize(("stage", "states"), [("slat", ["reused"]), ("segmentation", [])])
def test_a_reused_artifact_is_recorded_only_if_it_was_to_be_made(
    events: EventWriter, stage: str, states: list[str]
) -> None:
    tally = Tally(1, ["segmentation", "slat"])
    recorder(events, tally).stage_done(CLIP, "host:1", StageDone("owl", stage, "key", StageResult(True, 1.0, 2, 0)))
    assert [attempt.state for attempt in written(events)] == states
    assert tally.snapshot("running", [], 0).stages[stage].done == 0


def test_a_made_artifact_is_recorded_with_its_costs_and_measures(events: EventWriter) -> None:
    tally = Tally(1, ["slat"])
    done = StageDone("owl", "slat", "key", StageResult(False, 1.23456, 2, 0, {"voxels": 3}))
    recorder(events, tally, HISTORY).stage_done(CLIP, "host:1", done)
    (attempt,) = written(events)
    assert (attempt.state, attempt.seconds, attempt.peak_memory, attempt.number) == ("done", 1.235, 2, 3)
    assert (attempt.worker, attempt.seed, attempt.measures) == ("host:1", 7, {"voxels": 3})
    assert tally.snapshot("running", [], 0).stages["slat"].done == 1


def test_what_can_pass_is_tried_again_until_the_retries_are_used_up(events: EventWriter) -> None:
    tally = Tally(1, ["slat"])
    record = recorder(events, tally)
    assert record.clip_failed(CLIP, "host:1", 100, failed("transient")) == 2.0
    assert tally.finished == 0
    assert record.clip_failed(CLIP, "host:1", 100, failed("transient")) is None
    assert tally.failed == {"transient": 1}
    assert [(attempt.number, attempt.peak_memory) for attempt in written(events)] == [(1, 100), (2, 100)]


def test_earlier_runs_count(events: EventWriter) -> None:
    assert recorder(events, Tally(1, [])).clip_failed(CLIP, "host:1", 0, failed("killed")) == 0.0
    assert recorder(events, Tally(1, []), HISTORY).clip_failed(CLIP, "host:1", 0, failed("killed")) is None
    assert [attempt.number for attempt in written(events)] == [1, 3]


def test_a_failure_before_the_first_stage_stands_at_the_goal(events: EventWriter) -> None:
    recorder(events, Tally(1, [])).clip_failed(CLIP, "host:1", 0, failed("input", key=""))
    assert [attempt.key for attempt in written(events)] == ["goal"]


def test_too_many_failures_are_told_at_the_end_and_stop_only_a_run_of_many_clips(events: EventWriter) -> None:
    tally = Tally(40, [])
    record = recorder(events, tally)
    record.clip_done()
    assert record.too_many() is None
    for _ in range(18):
        record.clip_failed(CLIP, "host:1", 0, failed("input"))
    assert str(record.too_many()).startswith("18 of 19 clips failed")
    assert record.why_stop() is None
    record.clip_failed(CLIP, "host:1", 0, failed("input"))
    assert str(record.why_stop()).startswith("stopped, since 19 of 20 clips failed")
