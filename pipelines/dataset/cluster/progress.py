"""How a submission is getting on, counted from the metrics that the shards write into the dataset's folder."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ss4d.pipelines.dataset.cluster.runs import ShardRun
from ss4d.pipelines.dataset.layout import Dataset


@dataclass(frozen=True, kw_only=True)
class ClusterView:
    """How a submission is getting on at one instant.

    Attributes:
        shards: how many are in which state.
        clips: that were to be done when it was submitted.
        done: of these.
        failed: of these, with those that are set aside.
        per_second: clips, of all machines at present.
    """

    shards: Counter[str]
    clips: int
    done: int
    failed: int
    per_second: float

    @property
    def remaining_seconds(self) -> float | None:
        """Until the end at this speed; None while nobody can tell."""
        return (self.clips - self.done - self.failed) / self.per_second if self.per_second else None


class ShardMetrics:
    """Adds up what the coordinators of all shards say of themselves.

    Args:
        dataset: whose.
        shards: such as "2/8".
        clips: that are to be done.
    """

    def __init__(self, dataset: Dataset, shards: Sequence[str], clips: int) -> None:
        self._paths = {shard: dataset.metrics_of(shard) for shard in shards}
        self._clips = clips
        self._said: dict[tuple[str, str], dict[str, Any]] = {}  # the last words of each, by shard and coordinator
        self._old = {shard: found for shard in shards if (found := self._read(shard)) is not None}

    def view(self, runs: Iterable[ShardRun]) -> ClusterView:
        """How it is getting on now."""
        states = {run.shard: run.state for run in runs}
        for shard in self._paths:
            found = self._read(shard)
            if found is not None and found != self._old.get(shard):  # else it is an earlier submission's
                self._said[shard, found["coordinator"]] = found
        speeds = {shard: said["per_second"] for (shard, _), said in self._said.items() if states[shard] == "running"}
        return ClusterView(
            shards=Counter(states.values()),
            clips=self._clips,
            done=sum(said["done"] for said in self._said.values()),
            failed=sum(sum(said["failed"].values()) for said in self._said.values()),
            per_second=sum(speeds.values()),
        )

    def _read(self, shard: str) -> dict[str, Any] | None:
        """None where there is nothing yet; a file system of several machines may show less for an instant."""
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(self._paths[shard].read_bytes())
            return found
        return None
