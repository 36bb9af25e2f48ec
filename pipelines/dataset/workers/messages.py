"""The messages between the coordinator and its workers, sent through pipes."""

from collections.abc import Callable
from dataclasses import dataclass

from ss4d.pipelines.dataset.events import Cause
from ss4d.pipelines.stage_result import StageResult


@dataclass(frozen=True)
class Stop:
    """To a worker: clips in progress end after their current stage, and no other clip is started."""


@dataclass(frozen=True)
class Ready:
    """The worker has loaded its networks and takes clips."""


@dataclass(frozen=True)
class StartFailed:
    """The worker cannot start; `reason` is a sentence that says why."""

    reason: str


@dataclass(frozen=True)
class StageStarted:
    """A clip has started a stage; "" is the work before the first stage."""

    clip: str
    stage: str
    key: str


@dataclass(frozen=True)
class Paused:
    """A clip waits for the networks, which another clip uses."""

    clip: str


@dataclass(frozen=True)
class Resumed:
    """A clip that waited for the networks has them now."""

    clip: str


@dataclass(frozen=True)
class StageDone:
    """The artifact of a stage is in the store."""

    clip: str
    stage: str
    key: str
    result: StageResult


@dataclass(frozen=True)
class ClipFailed:
    """A clip has failed at a stage."""

    clip: str
    stage: str
    key: str
    error: str
    message: str
    cause: Cause
    seconds: float  # since the stage started


@dataclass(frozen=True)
class ClipDone:
    """A clip has ended without failing; `complete` is False if `Stop` ended it before its last stage."""

    clip: str
    complete: bool


Message = Ready | StartFailed | StageStarted | Paused | Resumed | StageDone | ClipFailed | ClipDone
Tell = Callable[[Message], None]
