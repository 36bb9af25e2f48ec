"""The runs of shards, and the interface of a server that keeps them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ss4d.pipelines.dataset.cluster.shard import ShardWork
from ss4d.pipelines.errors import EngineError

State = Literal["waiting", "starting", "running", "stopping", "completed", "failed", "crashed", "cancelled"]
ACTIVE: frozenset[State] = frozenset({"waiting", "starting", "running", "stopping"})


class AwayError(EngineError):
    """The server does not answer; it may answer later."""


@dataclass(frozen=True, kw_only=True)
class ShardRun:
    """A run of one shard, as a server knows it.

    Attributes:
        id: on the server.
        name: for people.
        shard: such as "2/8".
        work: the rest of its parameters, as JSON has them.
        state: the current one.
        message: of the state.
        changed: time of its last change, which heartbeats renew, by the server's clock.
    """

    id: str
    name: str
    shard: str
    work: Mapping[str, Any]
    state: State
    message: str
    changed: str


class Server(Protocol):
    """Keeps the runs and gives them to workers; every method raises AwayError if it does not answer."""

    def runs_of(self, work: ShardWork) -> list[ShardRun]:
        """All runs of the dataset's shards that there have been, the oldest first."""

    def read(self, ids: Sequence[str]) -> list[ShardRun]:
        """The runs with these ids that still exist, in any order."""

    def create(self, work: ShardWork, shard: str, after: ShardRun | None) -> ShardRun:
        """A new run of a shard, to follow the run `after`; if such a run exists already, that one."""

    def crash(self, run: ShardRun, message: str) -> None:
        """Marks a run as crashed."""
