"""The runs of shards, and what any server that keeps them can be asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ss4d.pipelines.dataset.cluster.shard import ShardWork
from ss4d.pipelines.errors import EngineError

State = Literal["waiting", "starting", "running", "stopping", "completed", "failed", "crashed", "cancelled"]
ACTIVE: frozenset[State] = frozenset({"waiting", "starting", "running", "stopping"})


class AwayError(EngineError):
    """The server does not answer, which can pass."""


@dataclass(frozen=True, kw_only=True)
class ShardRun:
    """A run of one shard, as a server knows it.

    Attributes:
        id: on the server.
        name: as people call it.
        shard: such as "2/8".
        work: the rest of its parameters, as JSON has them.
        state: how it stands.
        message: that belongs to the state.
        changed: when it last gave a sign of life, by the server's clock.
    """

    id: str
    name: str
    shard: str
    work: Mapping[str, Any]
    state: State
    message: str
    changed: str


class Server(Protocol):
    """What keeps the runs and hands them to workers; each method raises AwayError if it does not answer."""

    def runs_of(self, work: ShardWork) -> list[ShardRun]:
        """All runs of the dataset's shards that there ever were, the oldest first."""

    def read(self, ids: Sequence[str]) -> list[ShardRun]:
        """The runs with these ids, those that are still there, in any order."""

    def create(self, work: ShardWork, shard: str, after: ShardRun | None) -> ShardRun:
        """A new run of a shard; if the one that follows `after` is there already, that one."""

    def crash(self, run: ShardRun, message: str) -> None:
        """Marks a run as crashed."""
