"""What the coordinator and its workers tell each other, one message at a time, through pipes."""

from collections.abc import Callable
from dataclasses import dataclass

from ss4d.pipelines.dataset.events import Cause
from ss4d.pipelines.tasks import Outcome


@dataclass(frozen=True, slots=True)
class Source:
    """A clip as a worker is handed it; there may be very many, so they are small."""

    id: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Stop:
    """To a worker: the clips that are begun end after their present stage, and no other is begun."""


@dataclass(frozen=True)
class Ready:
    """The networks are loaded."""


@dataclass(frozen=True)
class Unfit:
    """The worker cannot begin; a sentence says why."""

    reason: str


@dataclass(frozen=True)
class Entered:
    """A clip has come to a stage; "" is what comes before the first one."""

    clip: str
    stage: str
    key: str


@dataclass(frozen=True)
class Waits:
    """A clip waits until another one has computed."""

    clip: str


@dataclass(frozen=True)
class GoesOn:
    """A clip's turn has come."""

    clip: str


@dataclass(frozen=True)
class Left:
    """A stage's artifact is in the store."""

    clip: str
    stage: str
    key: str
    outcome: Outcome


@dataclass(frozen=True)
class Failed:
    """A clip is through, and not well."""

    clip: str
    stage: str
    key: str
    error: str
    message: str
    cause: Cause
    seconds: float  # since it came to the stage


@dataclass(frozen=True)
class Through:
    """A clip is through, to the last stage or, after `Stop`, to an earlier one."""

    clip: str
    whole: bool


Message = Ready | Unfit | Entered | Waits | GoesOn | Left | Failed | Through
Tell = Callable[[Message], None]
