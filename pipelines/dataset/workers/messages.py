"""What the coordinator and its workers tell each other, one message at a time, through pipes."""

from collections.abc import Callable
from dataclasses import dataclass

from ss4d.pipelines.dataset.events import Cause
from ss4d.pipelines.tasks import StageResult


@dataclass(frozen=True)
class Stop:
    """To a worker: the clips that are begun end after their present stage, and no other is begun."""


@dataclass(frozen=True)
class Ready:
    """The networks are loaded."""


@dataclass(frozen=True)
class StartFailed:
    """The worker cannot begin; a sentence says why."""

    reason: str


@dataclass(frozen=True)
class StageStarted:
    """A clip has come to a stage; "" is what comes before the first one."""

    clip: str
    stage: str
    key: str


@dataclass(frozen=True)
class Paused:
    """A clip waits until another one has computed."""

    clip: str


@dataclass(frozen=True)
class Resumed:
    """A clip's turn has come."""

    clip: str


@dataclass(frozen=True)
class StageDone:
    """A stage's artifact is in the store."""

    clip: str
    stage: str
    key: str
    result: StageResult


@dataclass(frozen=True)
class ClipFailed:
    """A clip is through, and not well."""

    clip: str
    stage: str
    key: str
    error: str
    message: str
    cause: Cause
    seconds: float  # since it came to the stage


@dataclass(frozen=True)
class ClipDone:
    """A clip is through, to the last stage or, after `Stop`, to an earlier one."""

    clip: str
    complete: bool


Message = Ready | StartFailed | StageStarted | Paused | Resumed | StageDone | ClipFailed | ClipDone
Tell = Callable[[Message], None]
