"""One shard of a dataset, as an engine gives it to a machine: its work as plain data, and how it ended."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from ss4d.pipelines.dataset.keys import Settings
from ss4d.pipelines.dataset.launch import DatasetOptions, Result, run_dataset
from ss4d.pipelines.dataset.select import Choice
from ss4d.pipelines.dataset.workers.limits import Limits
from ss4d.pipelines.dataset.workers.policy import Policy
from ss4d.pipelines.dataset.workers.progress import Snapshot
from ss4d.pipelines.errors import explain

ENDING = 600.0  # seconds that a run which was given up may take to end its stage and let go of its shard


class ShardWork(BaseModel):
    """What all shards of a submission share; engines pass it on as JSON.

    Attributes:
        dataset: its folder, which every machine finds under this path.
        settings: configuration, overrides and seed.
        where: which clips, as of `ss4d.pipelines.dataset.select.Choice`.
        device: "auto", "cpu" or "cuda".
        workers: processes of one shard; None for one per GPU, or one per CPU core.
        lanes: clips that each worker runs at the same time.
        policy: what follows from failures.
        limits: what a clip may take.
        command: that submitted it.
        store: where the dataset's artifacts are kept, as the user named it.
    """

    dataset: Path
    settings: Settings = Settings()
    where: str | None = None
    device: str = "auto"
    workers: int | None = None
    lanes: int = 2
    policy: Policy = Policy()
    limits: Limits = Limits()
    command: str = ""
    store: str | None = None

    def options(self, shard: str | None) -> DatasetOptions:
        """The options of a run of one shard, such as "2/8", or of all clips."""
        return DatasetOptions(
            folder=self.dataset,
            settings=self.settings,
            choice=Choice(where=self.where, shard=shard),
            device=self.device,
            workers=self.workers,
            lanes=self.lanes,
            policy=self.policy,
            limits=self.limits,
            command=self.command,
            patience=0.0 if shard is None else ENDING,
            store=self.store,
        )

    def title(self, shard: str) -> str:
        """The name of a shard for people: "birds 2of8"."""
        return f"{self.dataset.name} {shard.replace('/', 'of')}"


@dataclass(frozen=True, kw_only=True)
class ShardEnd:
    """How a shard ended.

    Attributes:
        completed: whether all its clips have ended, done or failed.
        message: a sentence for people.
        result: of the run; None if it could not start.
    """

    completed: bool
    message: str
    result: Result | None = None


@dataclass(frozen=True)
class ShardWatcher:
    """Is told about the progress of a shard.

    Args:
        say: called with each line for people.
        take: called with each snapshot.
    """

    say: Callable[[str], None]
    take: Callable[[Snapshot], None]

    def message(self, text: str) -> None:
        """A line for people."""
        self.say(text)

    def show(self, snapshot: Snapshot) -> None:
        """The current progress."""
        self.take(snapshot)


def do_shard(work: ShardWork, shard: str, watcher: ShardWatcher) -> ShardEnd:
    """Runs what is not finished of a shard; an error that a user can repair is returned, not raised."""
    # As `ss4d.cli.entry` does: read by the processes that compute, when they import torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        result = run_dataset(work.options(shard), watcher)
    except Exception as error:
        if sentence := explain(error, "`ss4d dataset init --store`"):
            return ShardEnd(completed=False, message=sentence)
        raise
    if result.ending is None:
        return ShardEnd(completed=True, message="nothing was left to do", result=result)
    ending, snapshot = result.ending, result.ending.snapshot
    if ending.reason or snapshot.state != "finished":
        return ShardEnd(completed=False, message=ending.reason or snapshot.state, result=result)
    return ShardEnd(completed=True, message=f"{snapshot.done} clips done, {snapshot.num_failed} failed", result=result)
