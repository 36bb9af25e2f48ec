"""Who is blamed when a worker is lost, and what becomes of the other clips in it; with threads for workers."""

import itertools
import multiprocessing
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from ss4d.pipelines.config import load_config
from ss4d.pipelines.dataset.events import Attempt, EventWriter, read_events
from ss4d.pipelines.dataset.workers import worker_pool
from ss4d.pipelines.dataset.workers.coordinator import Coordinator, Ending
from ss4d.pipelines.dataset.workers.handle import Assignment, Handle
from ss4d.pipelines.dataset.workers.limits import Limits
from ss4d.pipelines.dataset.workers.messages import (
    ClipDone,
    ClipFailed,
    Message,
    Paused,
    Ready,
    StageDone,
    StageStarted,
    StartFailed,
)
from ss4d.pipelines.dataset.workers.metrics import Metrics
from ss4d.pipelines.dataset.workers.policy import History, Policy
from ss4d.pipelines.dataset.workers.progress import Snapshot
from ss4d.pipelines.dataset.workers.todo import Source, Todo
from ss4d.pipelines.dataset.workers.worker import Setup
from ss4d.pipelines.errors import WorkerError
from ss4d.pipelines.stage_result import StageResult

STAGE = "segmentation"
Act = Callable[["Worker", str, int], None]  # what a worker does with a clip, at which attempt from 1 on


class Worker(Handle):
    """A worker that is a thread, and does with each clip what the clip's name says."""

    started: list["Worker"]
    times: Counter[str]
    goals: list[list[str]]  # of all clips that are in a worker, each time that one is given a clip
    acts: dict[str, Act]

    def __init__(self, setup: Setup, gpu: str | None) -> None:
        self.pipe, self.theirs = multiprocessing.Pipe()
        self.pid, self.gpu, self.name = len(self.started), gpu, f"thread:{len(self.started)}"
        self.ready = self.isolated = False
        self.memory = 0
        self.assignments: dict[str, Assignment] = {}
        self.handed: list[set[str]] = []  # what it has in hand, each time that it is given a clip
        self.started.append(self)
        threading.Thread(target=self.act, daemon=True).start()

    def hand(self, todo: Todo) -> None:
        super().hand(todo)
        self.handed.append(set(self.assignments))
        self.goals.append([given.todo.goal for worker in self.started for given in worker.assignments.values()])

    def act(self) -> None:
        self.tell(Ready())
        try:
            while isinstance(order := self.theirs.recv(), Source):
                self.times[order.id] += 1
                self.acts[order.id.rstrip("0123456789")](self, order.id, self.times[order.id])
        except (EOFError, OSError):
            pass

    def tell(self, *messages: Message) -> None:
        for message in messages:
            self.theirs.send(message)

    def enter(self, clip: str) -> None:
        self.tell(StageStarted(clip, "", ""), StageStarted(clip, STAGE, f"key of {clip}"))

    def finish(self, clip: str) -> None:
        self.tell(
            StageDone(clip, STAGE, f"key of {clip}", StageResult(False, 0.5, 1, 0, {})), ClipDone(clip, complete=True)
        )

    def die(self) -> None:
        with suppress(OSError):  # both threads may do it at once
            self.theirs.close()

    def look(self) -> int:
        return self.memory

    def kill(self) -> None:
        self.die()

    def leave(self) -> None: ...

    def death(self) -> str:
        return "signal SIGSEGV"


def good(worker: Worker, clip: str, times: int) -> None:
    worker.enter(clip)
    worker.finish(clip)


def killer(worker: Worker, clip: str, times: int) -> None:
    worker.enter(clip)
    worker.die()


def second(worker: Worker, clip: str, times: int) -> None:
    """Needs so long that it is there when another clip ends the worker; the next time it has the time it needs."""
    worker.enter(clip)
    if times > 1:
        worker.finish(clip)


def hanging(worker: Worker, clip: str, times: int) -> None:
    worker.enter(clip)


def waiting(worker: Worker, clip: str, times: int) -> None:
    worker.enter(clip)
    if times == 1:
        worker.tell(Paused(clip))
    else:
        worker.finish(clip)


def greedy(worker: Worker, clip: str, times: int) -> None:
    worker.enter(clip)
    worker.memory = 1000


def passing(worker: Worker, clip: str, times: int) -> None:
    worker.enter(clip)
    if times <= 2:
        worker.tell(ClipFailed(clip, STAGE, f"key of {clip}", "OSError", "no answer", "transient", 0.1))
    else:
        worker.finish(clip)


def bad(worker: Worker, clip: str, times: int) -> None:
    worker.tell(StageStarted(clip, "", ""), ClipFailed(clip, "", "", "InputError", "no video", "input", 0.1))


ACTS = {act.__name__: act for act in (good, killer, second, hanging, waiting, greedy, passing, bad)}


class Deaf:
    def message(self, text: str) -> None: ...

    def show(self, snapshot: Snapshot) -> None: ...


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "Handle", Worker)
    Worker.started, Worker.times, Worker.goals, Worker.acts = [], Counter(), [], dict(ACTS)


def run(
    folder: Path,
    clips: Sequence[str],
    *,
    workers: int = 1,
    lanes: int = 2,
    limits: Limits | None = None,
    policy: Policy | None = None,
    history: History | None = None,
    goals: Mapping[str, str] | None = None,
) -> Ending:
    setup = Setup(
        config=load_config("tiny"),
        seed=42,
        device="cpu",
        fingerprints={},
        store=str(folder / "store"),
        logs=folder / "logs",
        roles=(),
        lanes=lanes,
        threads=1,
        memory_share=1.0,
    )
    with EventWriter(folder / "events", {}) as events:
        return Coordinator(
            setup=setup,
            stages=[STAGE],
            todo=[Todo(Source(clip, f"{clip}.mp4", "0"), (goals or {}).get(clip, clip), (STAGE,)) for clip in clips],
            history=history or History(),
            gpus=[None] * workers,
            policy=policy or Policy(wait=0.01),
            limits=limits or Limits(),
            events=events,
            metrics=Metrics(folder / "metrics.json", {}),
            watcher=Deaf(),
        ).run()


def attempts(folder: Path) -> Iterator[Attempt]:
    return itertools.chain.from_iterable(batch.attempts for batch in read_events(folder / "events", {}))


def ends(folder: Path) -> dict[str, list[str]]:
    """What became of each clip, each time."""
    found = defaultdict(list)
    for attempt in attempts(folder):
        found[attempt.clip].append(attempt.error or attempt.state)
    return dict(found)


def test_every_clip_is_done_once(tmp_path: Path) -> None:
    clips = [f"good{number}" for number in range(20)]
    ending = run(tmp_path, clips, workers=3)
    assert (ending.snapshot.state, ending.snapshot.done, ending.reason) == ("finished", 20, None)
    assert ends(tmp_path) == {clip: ["done"] for clip in clips}
    assert all(len(handed) <= 3 for worker in Worker.started for handed in worker.handed)  # lanes, and one more


def test_clips_of_equal_content_are_done_one_after_the_other(tmp_path: Path) -> None:
    """The first one makes what the others then find."""
    clips = [f"good{number}" for number in range(12)] + ["bad1", "bad2"]
    goals = {clip: f"goal {number // 4}" for number, clip in enumerate(clips[:12])} | {"bad1": "goal 0", "bad2": "bad"}
    ending = run(tmp_path, clips, workers=3, goals=goals)
    assert ends(tmp_path) == {clip: ["done"] for clip in clips[:12]} | {"bad1": ["InputError"], "bad2": ["InputError"]}
    assert (ending.snapshot.done, ending.snapshot.failed) == (12, {"input": 2})
    assert all(len(set(at_work)) == len(at_work) for at_work in Worker.goals)


def test_clips_of_equal_content_end_their_workers_one_after_the_other(tmp_path: Path) -> None:
    clips = ["killer1", "killer2", "killer3", "good"]
    run(tmp_path, clips, workers=2, goals=dict.fromkeys(clips[:3], "goal"))
    assert ends(tmp_path) == {clip: ["WorkerDied"] * 2 for clip in clips[:3]} | {"good": ["done"]}


def test_of_several_clips_each_is_tried_by_itself_and_only_the_killer_is_blamed(tmp_path: Path) -> None:
    ending = run(tmp_path, ["second", "killer", "good"])
    assert ends(tmp_path) == {"second": ["done"], "killer": ["WorkerDied"] * 2, "good": ["done"]}
    assert ending.snapshot.failed == {"killed": 1}
    alone = [handed for worker in Worker.started[1:] for handed in worker.handed if handed & {"second", "killer"}]
    assert all(len(handed) == 1 for handed in alone)
    assert "other clips were in it" in (tmp_path / "logs" / "second.log").read_text()
    assert (
        "WorkerDied: the worker that did it ended with signal SIGSEGV" in (tmp_path / "logs" / "killer.log").read_text()
    )


def test_a_clip_that_waits_for_another_is_not_blamed_for_the_time(tmp_path: Path) -> None:
    ending = run(tmp_path, ["waiting", "hanging"], limits=Limits(clip_seconds=0.3))
    assert ends(tmp_path) == {"waiting": ["done"], "hanging": ["TimeLimit"] * 2}
    assert ending.snapshot.failed == {"killed": 1}


def test_a_worker_that_takes_too_much_memory_is_replaced(tmp_path: Path) -> None:
    run(tmp_path, ["greedy", "good"], lanes=1, limits=Limits(worker_bytes=500))
    assert ends(tmp_path) == {"greedy": ["MemoryLimit"] * 2, "good": ["done"]}
    assert [attempt.peak_memory for attempt in attempts(tmp_path) if attempt.clip == "greedy"] == [1000, 1000]


def test_what_can_pass_is_tried_again_and_bad_input_is_not(tmp_path: Path) -> None:
    ending = run(tmp_path, ["passing", "bad", "good"])
    assert ends(tmp_path) == {"passing": ["OSError", "OSError", "done"], "bad": ["InputError"], "good": ["done"]}
    assert [attempt.number for attempt in attempts(tmp_path) if attempt.clip == "passing"] == [1, 2, 3]
    assert [attempt.key for attempt in attempts(tmp_path) if attempt.clip == "bad"] == ["bad"]  # it came to no stage
    assert (ending.snapshot.done, ending.snapshot.failed) == (2, {"input": 1})


def test_an_earlier_death_counts(tmp_path: Path) -> None:
    history = History(failures={"killer": {"killed": 1}}, attempts={"key of killer": 1})
    run(tmp_path, ["killer"], history=history)
    assert [(attempt.number, attempt.error) for attempt in attempts(tmp_path)] == [(2, "WorkerDied")]


def test_a_run_that_fails_wholesale_stops(tmp_path: Path) -> None:
    ending = run(tmp_path, [f"bad{number}" for number in range(100)], policy=Policy(max_failure_ratio=0.1))
    assert ending.snapshot.state == "stopped"
    assert "20 of 20 clips failed" in str(ending.reason)
    assert len(ends(tmp_path)) < 30


def test_a_small_run_that_fails_is_told_apart_at_its_end(tmp_path: Path) -> None:
    ending = run(tmp_path, ["bad1", "good1", "good2"], policy=Policy(max_failure_ratio=0.3))
    assert (ending.snapshot.state, ending.snapshot.done) == ("finished", 2)
    assert str(ending.reason).startswith("1 of 3 clips failed (33%, --max-failure-ratio allows 30%)")
    assert run(tmp_path, ["bad1", "good1", "good2"], policy=Policy(max_failure_ratio=0.4)).reason is None


def test_workers_that_cannot_begin_end_the_run(tmp_path: Path) -> None:
    def unfit(worker: Worker, clip: str, times: int) -> None:
        worker.tell(StartFailed("weights are missing"))

    Worker.acts["good"] = unfit
    with pytest.raises(WorkerError, match="no worker can start: weights are missing"):
        run(tmp_path, ["good"])


def test_workers_that_end_before_they_begin_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "act", lambda worker: worker.die())
    with pytest.raises(WorkerError, match=r"3 workers in a row ended before they started a clip.*SIGSEGV"):
        run(tmp_path, ["good"])
    assert len(Worker.started) == 3
