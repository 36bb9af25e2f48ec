"""A dataset on many machines: a run for each shard, by the workers of a pool, watched until all have ended.

A run whose machine is lost stays "running" on its server for ever. So runs send heartbeats, and one that is silent for
too long is marked as crashed and started again by another worker. Artifacts are found by content, so what the first
run had finished is reused.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from ss4d.pipelines.dataset.catalog import write_catalog
from ss4d.pipelines.dataset.checks import check_at_least, check_seconds
from ss4d.pipelines.dataset.cluster.progress import ClusterView, ShardMetrics
from ss4d.pipelines.dataset.cluster.runs import ACTIVE, AwayError, Server, ShardRun
from ss4d.pipelines.dataset.cluster.shard import ShardWork
from ss4d.pipelines.dataset.launch import plan_dataset
from ss4d.pipelines.dataset.layout import open_dataset
from ss4d.pipelines.dataset.opened import open_for
from ss4d.pipelines.dataset.plan import DatasetPlan
from ss4d.pipelines.dataset.select import Shard
from ss4d.pipelines.dataset.workers.todo import Todo
from ss4d.pipelines.errors import ConfigError

LEAST_SILENCE = 15.0  # seconds: a few heartbeats, see `ss4d.pipelines.dataset.cluster.shard_flow.BEAT`
POLL = 2.0  # seconds between two queries of the server
STARTING = 900.0  # seconds that a machine may take to start, such as to fetch an image
IDLE = 30.0  # seconds without any worker that takes a run, before the user is told
COMMON = {"command"}  # fields in which two equal submissions may differ


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What a user asks for.

    Args:
        work: what all shards share.
        shards: number of parts.
        silence: seconds without a heartbeat after which a run is given up.
        restarts: how often a shard whose run crashed is started again.

    Raises:
        ConfigError: naming the option that is out of range.
    """

    work: ShardWork
    shards: int
    silence: float = 120.0
    restarts: int = 3

    def __post_init__(self) -> None:
        check_at_least("--shards", self.shards, 1)
        check_seconds("--silence", self.silence)
        if self.silence < LEAST_SILENCE:
            raise ConfigError(f"--silence must be at least {LEAST_SILENCE:g} seconds; got {self.silence:g}")
        check_at_least("--restarts", self.restarts, 0)


class ClusterWatcher(Protocol):
    """Is told about the progress of a submission."""

    def message(self, text: str) -> None:
        """A line for people."""

    def show(self, view: ClusterView) -> None:
        """The current progress; called every few seconds, and at the end."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """The result of a submission.

    Attributes:
        plan: of the dataset when it was submitted.
        runs: the last run of each shard that had something to do.
        after: the plan when all runs had ended; None if the command did not wait.
    """

    plan: DatasetPlan
    runs: Sequence[ShardRun] = ()
    after: DatasetPlan | None = None

    @property
    def unfinished(self) -> list[ShardRun]:
        """The runs that ended without completing."""
        return [run for run in self.runs if run.state not in ACTIVE | {"completed"}]


def submit(submission: Submission, server: Server, watcher: ClusterWatcher, *, wait: bool) -> Submitted:
    """Runs a dataset's shards on a server's workers; only those that have something to do.

    Shards that an earlier call started and that still run are watched, not started again.

    Raises:
        ConfigError, InputError, ModelError, PluginError, StoreError: one sentence each, see `ss4d.pipelines.errors`.
        EngineError: the server cannot be reached at the start.
    """
    plan = plan_dataset(submission.work.options(None))
    shards = shards_of(plan.todo, submission.shards)
    if not shards:
        return Submitted(plan=plan)
    begun = begin(submission, server, shards, watcher)
    if not wait:
        return Submitted(plan=plan, runs=list(begun.values()))
    progress = ShardMetrics(open_dataset(submission.work.dataset), shards, len(plan.todo))
    ended = RunMonitor(submission, server, begun, progress, watcher).follow()
    return Submitted(plan=plan, runs=ended, after=finish(submission.work))


def finish(work: ShardWork) -> DatasetPlan:
    """Writes the catalog after all shards have ended, and plans what is left to do."""
    with open_for(open_dataset(work.dataset), work.settings) as opened:
        write_catalog(opened)
    return plan_dataset(work.options(None))


def shards_of(todo: Iterable[Todo], count: int) -> list[str]:
    """The shards, such as "2/8", that have a clip in `todo`, in order."""
    ids = [clip.source.id for clip in todo]
    parts = [Shard(number, count) for number in range(1, count + 1)]
    return [f"{part.number}/{count}" for part in parts if any(part.has(clip) for clip in ids)]


def begin(
    submission: Submission, server: Server, shards: Sequence[str], watcher: ClusterWatcher
) -> dict[str, ShardRun]:
    """A run for each shard: one that is in progress, or a new one.

    Raises:
        ConfigError: runs of another submission are in progress, which would run the same clips.
    """
    work = submission.work
    last = {run.shard: run for run in server.runs_of(work)}  # the latest run of each
    active = [run for run in last.values() if run.state in ACTIVE]
    others = [run for run in active if not _same(run, submission)]
    if others:
        raise ConfigError(
            f"{len(others)} shards of another submission of {work.dataset} are not finished, such as "
            f"{others[0].name!r}, and would run the same clips: let them finish, or stop each of them, as with "
            f"`prefect flow-run delete {others[0].id}`"
        )
    begun = {}
    for shard in shards:
        before = last.get(shard)
        begun[shard] = before if before is not None and before in active else server.create(work, shard, before)
    if watched := sum(run in active for run in begun.values()):
        watcher.message(f"{watched} of {len(shards)} shards are in progress already, and are watched.")
    return begun


def _same(run: ShardRun, submission: Submission) -> bool:
    """Whether a run has the parameters that the submission would give it."""
    mine = submission.work.model_dump(mode="json", exclude=COMMON)
    theirs = {name: value for name, value in run.work.items() if name not in COMMON}
    return mine == theirs and run.shard.endswith(f"/{submission.shards}")


@dataclass
class RunMonitor:
    """Watches runs until all have ended, and starts those again that crash.

    Args:
        submission: that the runs belong to.
        server: that keeps them.
        runs: one per shard.
        progress: counts clips.
        watcher: is told of the progress.
    """

    submission: Submission
    server: Server
    runs: dict[str, ShardRun]
    progress: ShardMetrics
    watcher: ClusterWatcher
    # By id: when the last heartbeat was, by the server's clock and by this machine's.
    _heard: dict[str, tuple[str, float]] = field(default_factory=dict)
    _restarts: Counter[str] = field(default_factory=Counter)
    _away: bool = False
    _idle_since: float | None = None

    def follow(self) -> list[ShardRun]:
        """Watches until no run is in progress; gives the last run of each shard."""
        while True:
            try:
                self.step()
                self._away = False
            except AwayError as error:
                self._heard.clear()  # that silence is the server's, not the runs'
                if not self._away:
                    self.watcher.message(f"{error}; this is tried again until it answers")
                self._away = True
            self.watcher.show(self.progress.view(self.runs.values()))
            if not any(run.state in ACTIVE for run in self.runs.values()):
                return list(self.runs.values())
            time.sleep(POLL)

    def step(self) -> None:
        """Queries the server once, and acts on the answer."""
        active = [run.id for run in self.runs.values() if run.state in ACTIVE]
        read = {run.id: run for run in self.server.read(active)}
        for shard, run in list(self.runs.items()):
            if run.id in active:
                self.runs[shard] = self._judged(read.get(run.id), run)
        self._hint()

    def _judged(self, now: ShardRun | None, before: ShardRun) -> ShardRun:
        """The run to watch from now on in place of `before`, which the server now has as `now`."""
        if now is None:
            return replace(before, state="cancelled", message="it was deleted on the server")
        if now.state in ACTIVE:
            silent, patience = self._silence(now), self._patience(now)
            if silent <= patience:
                return now
            message = f"no heartbeat for {silent:.0f} s"
            self.server.crash(now, message)
            # A run that somebody stops is not started again.
            now = replace(now, state="cancelled" if now.state == "stopping" else "crashed", message=message)
        if now.state != "crashed" or self._restarts[now.shard] == self.submission.restarts:
            self.watcher.message(f"{now.name}: {now.state}: {now.message}")
            return now
        self._restarts[now.shard] += 1
        self.watcher.message(f"{now.name}: {now.state}: {now.message}; another worker continues it")
        return self.server.create(self.submission.work, now.shard, now)

    def _silence(self, run: ShardRun) -> float:
        """Seconds since the last heartbeat, by this machine's clock alone, so that clocks need not agree."""
        now = time.monotonic()
        changed, when = self._heard.get(run.id, ("", now))
        if run.changed != changed:
            self._heard[run.id] = (run.changed, now)
            return 0.0
        return now - when

    def _patience(self, run: ShardRun) -> float:
        if run.state == "waiting":  # for a worker, and workers may be busy for days
            return float("inf")
        return max(STARTING, self.submission.silence) if run.state == "starting" else self.submission.silence

    def _hint(self) -> None:
        """Tells the user, once, that no worker takes a run."""
        states = {run.state for run in self.runs.values()}
        if "waiting" not in states or states & {"starting", "running"}:
            self._idle_since = None
            return
        if self._idle_since is None:
            self._idle_since = time.monotonic()
        elif time.monotonic() - self._idle_since > IDLE:
            self._idle_since = float("inf")
            self.watcher.message("No worker of the pool takes the shards: `prefect worker start` starts one.")
