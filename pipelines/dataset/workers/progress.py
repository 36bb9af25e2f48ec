"""How a run is getting on: what is done and failed, how fast, how long it will take, and who is at what."""

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ss4d.pipelines.dataset.events import Cause

WINDOW = 200  # clips, and artifacts of a stage, that the present speed is measured on


@dataclass(frozen=True, kw_only=True)
class ClipView:
    """A clip in a worker: where it is, and for how many seconds it has been worked on."""

    id: str
    stage: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class WorkerView:
    """A worker: its process, the bytes of memory it has, and its clips; `ready` once its networks are loaded."""

    pid: int
    ready: bool
    memory: int
    clips: Sequence[ClipView]


@dataclass(frozen=True, kw_only=True)
class StageView:
    """A stage: artifacts made in this run, how many a second at present, and what one takes in seconds."""

    done: int
    per_second: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """How a run is getting on at one instant.

    Attributes:
        state: "running", or how it ended: "finished", "interrupted", "stopped", "abandoned".
        clips: that this run has to do.
        done: that are finished.
        failed: by cause, with those that are set aside.
        running: that are in a worker.
        seconds: since it began.
        per_second: clips, at present.
        remaining_seconds: until the end at this speed; None while nobody can tell.
        stages: in order of the stages.
        memory: bytes that the coordinator has.
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
    """Hears how a run goes on."""

    def message(self, text: str) -> None:
        """One line a person can read."""

    def show(self, snapshot: Snapshot) -> None:
        """How it is getting on; called about twice a second, and at the end."""


class Pace:
    """How often something happens; `begun` is when it could first happen, as `time.monotonic` has it."""

    def __init__(self, begun: float) -> None:
        self._recent = deque([begun], maxlen=WINDOW)

    def count(self, now: float) -> None:
        """It happened."""
        self._recent.append(now)

    def per_second(self, now: float) -> float:
        """How often at present; the time since it last happened counts."""
        passed = now - self._recent[0]
        return (len(self._recent) - 1) / passed if passed > 0 else 0.0


@dataclass
class _StageTally:
    pace: Pace
    done: int = 0
    seconds: float = 0.0


@dataclass
class Tally:
    """Counts what happens to the clips of a run.

    Args:
        clips: that it has to do.
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
        """Clips that are through, well or not."""
        return self.done + self.failed.total()

    def artifact(self, stage: str, seconds: float) -> None:
        """A stage's artifact was made."""
        tally = self._stages[stage]
        tally.pace.count(time.monotonic())
        tally.done += 1
        tally.seconds += seconds

    def clip(self, cause: Cause | None) -> None:
        """A clip is through: well, or it failed for good."""
        self._pace.count(time.monotonic())
        if cause is None:
            self.done += 1
        else:
            self.failed[cause] += 1

    def snapshot(self, state: str, workers: Sequence[WorkerView], memory: int) -> Snapshot:
        """How it is getting on now."""
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
