"""The progress of a submission, from the metrics that the shards write into the dataset's folder."""

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
    """The progress of a submission at one moment.

    Attributes:
        shards: number of shards by state.
        clips: number of clips to run when it was submitted.
        done: of these, with all artifacts.
        failed: of these.
        per_second: clips of all machines, at the current rate.
    """

    shards: Counter[str]
    clips: int
    done: int
    failed: int
    per_second: float

    @property
    def remaining_seconds(self) -> float | None:
        """Seconds until the end at this rate; None while that is unknown."""
        return (self.clips - self.done - self.failed) / self.per_second if self.per_second else None


class ShardMetrics:
    """Adds up the metrics that the coordinators of all shards write.

    Args:
        dataset: that is run.
        shards: such as "2/8".
        clips: number of clips to run.
    """

    def __init__(self, dataset: Dataset, shards: Sequence[str], clips: int) -> None:
        self._paths = {shard: dataset.metrics_of(shard) for shard in shards}
        self._clips = clips
        self._said: dict[tuple[str, str], dict[str, Any]] = {}  # the last metrics, by shard and coordinator
        self._old = {shard: found for shard in shards if (found := self._read(shard)) is not None}

    def view(self, runs: Iterable[ShardRun]) -> ClusterView:
        """The current progress."""
        states = {run.shard: run.state for run in runs}
        for shard in self._paths:
            found = self._read(shard)
            if found is not None and found != self._old.get(shard):  # otherwise they are an earlier submission's
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
        """The metrics of a shard; None while there are none, or a shared file system hides them."""
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(self._paths[shard].read_bytes())
            return found
        return None
