"""The progress of a run: what is done and failed, how fast, how long the rest takes, and what each worker does."""

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ss4d.pipelines.dataset.events import Cause

WINDOW = 200  # the last clips, or artifacts of a stage, that the current rate is measured over


@dataclass(frozen=True, kw_only=True)
class ClipView:
    """A clip in a worker: its stage, and for how many seconds it has run."""

    id: str
    stage: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class WorkerView:
    """A worker: its process, its resident bytes and its clips; `ready` once its networks are loaded."""

    pid: int
    ready: bool
    memory: int
    clips: Sequence[ClipView]


@dataclass(frozen=True, kw_only=True)
class StageView:
    """A stage: artifacts made in this run, their current rate per second, and the mean seconds for each."""

    done: int
    per_second: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The progress of a run at one moment.

    Attributes:
        state: "running", or how it ended: "finished", "interrupted", "stopped", "abandoned".
        clips: number of clips of this run.
        done: of these, with all artifacts.
        failed: of these, by cause.
        running: of these, in a worker.
        seconds: since the run started.
        per_second: clips, at the current rate.
        remaining_seconds: until the end at this rate; None while that is unknown.
        stages: by name, in order.
        workers: in the order in which they were started.
        memory: resident bytes of the coordinator.
    """

    state: str
    clips: int
    done: int
    failed: dict[Cause, int]
    running: int
    seconds: float
    per_second: float
    remaining_seconds: float | None
    stages: dict[str, StageView]
    workers: Sequence[WorkerView]
    memory: int

    @property
    def num_failed(self) -> int:
        """Clips that failed."""
        return sum(self.failed.values())


class Watcher(Protocol):
    """Is told about the progress of a run."""

    def message(self, text: str) -> None:
        """A line for people."""

    def show(self, snapshot: Snapshot) -> None:
        """The current progress; called about twice a second, and at the end."""


class Pace:
    """The rate of an event; `begun` is when the counting starts, as `time.monotonic` has it."""

    def __init__(self, begun: float) -> None:
        self._recent = deque([begun], maxlen=WINDOW)

    def count(self, now: float) -> None:
        """Counts one event."""
        self._recent.append(now)

    def per_second(self, now: float) -> float:
        """The current rate; the time since the last event counts."""
        passed = now - self._recent[0]
        return (len(self._recent) - 1) / passed if passed > 0 else 0.0


@dataclass
class _StageTally:
    pace: Pace
    done: int = 0
    seconds: float = 0.0


@dataclass
class Tally:
    """Counts the clips and artifacts of a run.

    Args:
        clips: number of clips of the run.
        stages: in order.
    """

    clips: int
    stages: Sequence[str]
    done: int = 0
    failed: Counter[Cause] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._begun = time.monotonic()
        self._pace = Pace(self._begun)
        self._stages = {stage: _StageTally(Pace(self._begun)) for stage in self.stages}

    @property
    def finished(self) -> int:
        """Clips that have ended, done or failed."""
        return self.done + self.failed.total()

    def artifact(self, stage: str, seconds: float) -> None:
        """Counts an artifact that was made."""
        tally = self._stages[stage]
        tally.pace.count(time.monotonic())
        tally.done += 1
        tally.seconds += seconds

    def clip(self, cause: Cause | None) -> None:
        """Counts a clip that has ended: None for one that is done, else the cause of its failure."""
        self._pace.count(time.monotonic())
        if cause is None:
            self.done += 1
        else:
            self.failed[cause] += 1

    def snapshot(self, state: str, workers: Sequence[WorkerView], memory: int) -> Snapshot:
        """The current progress."""
        now = time.monotonic()
        speed = self._pace.per_second(now)
        left = self.clips - self.finished
        return Snapshot(
            state=state,
            clips=self.clips,
            done=self.done,
            failed=dict(self.failed),
            running=sum(len(worker.clips) for worker in workers),
            seconds=now - self._begun,
            per_second=speed,
            remaining_seconds=0.0 if left == 0 else left / speed if speed and self.finished else None,
            stages={
                stage: StageView(
                    done=tally.done,
                    per_second=tally.pace.per_second(now),
                    seconds=tally.seconds / tally.done if tally.done else 0.0,
                )
                for stage, tally in self._stages.items()
            },
            workers=workers,
            memory=memory,
        )
