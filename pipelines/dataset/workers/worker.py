"""A worker: a process that runs the clips it is given, several at the same time, on networks that it loads once.

Where there is no room for all networks, each is loaded when its stage comes.

A worker has lanes, and each lane runs one clip through all stages. The networks compute for one lane at a time;
meanwhile the others read, decode, write, and run stages without networks.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from ss4d.pipelines.config import RunConfig
from ss4d.pipelines.dataset.workers.clip_log import ClipLogs
from ss4d.pipelines.dataset.workers.messages import (
    ClipDone,
    ClipFailed,
    Message,
    Paused,
    Ready,
    Resumed,
    StageDone,
    StageStarted,
    StartFailed,
    Stop,
    Tell,
)
from ss4d.pipelines.dataset.workers.policy import cause_of
from ss4d.pipelines.dataset.workers.todo import Source
from ss4d.pipelines.errors import USER_ERRORS, explain
from ss4d.pipelines.handover import Handover
from ss4d.pipelines.networks import open_model
from ss4d.pipelines.plan import NO_WISH, RUN, Recipes, StageJob, jobs_of, make_plan
from ss4d.pipelines.tasks import AT_ONCE, run_job
from ss4d.pipelines.workers import end_with_parent
from ss4d.stages.errors import InputError, ModelError
from ss4d.stages.input_files import input_digest
from ss4d.stages.types import silent
from ss4d.storage.files import in_utf8
from ss4d.storage.store import open_store

LOG = logging.getLogger("ss4d.dataset")
ELSEWHERE = "`ss4d dataset init --store`"  # the option that says where results are written


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all workers of a run are given.

    Attributes:
        config: with every value filled in.
        seed: of the random numbers of each clip.
        device: "cpu" or "cuda".
        fingerprints: of each role's weights.
        store: its location.
        logs: the folder of the clips' logs.
        roles: the networks that the clips need.
        lanes: how many clips run at the same time.
        threads: that a computation on the CPU uses.
        memory_share: of the memory of its device that a worker may use.
    """

    config: RunConfig
    seed: int
    device: str
    fingerprints: Mapping[str, str]
    store: str
    logs: Path
    roles: Sequence[str]
    lanes: int
    threads: int
    memory_share: float


class Turn:
    """Lets one lane at a time compute with the networks."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._lock = threading.Lock()

    @contextmanager
    def of(self, clip: str) -> Iterator[None]:
        """Waits for the turn and holds it; reports a wait, which does not count as the clip's time."""
        if not self._lock.acquire(blocking=False):
            self._tell(Paused(clip))
            self._lock.acquire()
            self._tell(Resumed(clip))
        try:
            yield
        finally:
            self._lock.release()


class Position:
    """The stage that a clip is at, and since when: what a failure reports."""

    def __init__(self, clip: str) -> None:
        self.at = StageStarted(clip, "", "")
        self._since = time.monotonic()

    def enter(self, job: StageJob) -> StageStarted:
        """The clip starts the stage of a job."""
        self.at, self._since = StageStarted(self.at.clip, job.step.stage, job.step.ref.key), time.monotonic()
        return self.at

    def failed(self, error: BaseException) -> ClipFailed:
        """The message that the clip failed at this stage."""
        return ClipFailed(
            self.at.clip,
            self.at.stage,
            self.at.key,
            error=type(error).__name__,
            message=in_utf8(explain(error, ELSEWHERE) or str(error)),
            cause=cause_of(error),
            seconds=time.monotonic() - self._since,
        )


class Lanes:
    """What the lanes of a worker share.

    Args:
        setup: of the run.
        tell: called with every message to the coordinator, from any lane's thread.
    """

    def __init__(self, setup: Setup, tell: Tell) -> None:
        self.stopping = threading.Event()
        self._setup = setup
        self._tell = tell
        self._stages = setup.config.stages()
        self._store = open_store(setup.store)
        self._turn = Turn(tell)
        self._logs = ClipLogs(setup.logs)

    def load(self) -> None:
        """Loads the networks that stay loaded from clip to clip.

        Raises:
            ConfigError, ModelError: one of all networks cannot be loaded, or is not what it was when this was planned.
        """
        model = open_model(self._setup.config, self._setup.device)
        model.keep_if_room(self._setup.roles, self._setup.memory_share)
        stages = self._stages.values()
        model.prepare(
            self._setup.roles,
            draws=any(stage.draws for stage in stages),
            triangles=any(stage.triangles for stage in stages),
        )
        for role in self._setup.roles:
            if model.fingerprint(role) != self._setup.fingerprints[role]:
                raise ModelError(f"{model.folder.files(role).weights} has changed since the run was planned: run again")

    def serve(self, clips: "queue.SimpleQueue[Source | None]") -> None:
        """Runs one clip after the other until there is None."""
        while (clip := clips.get()) is not None:
            self._do(clip)

    def _do(self, clip: Source) -> None:
        if self.stopping.is_set():
            self._tell(ClipDone(clip.id, complete=False))
            return
        position = Position(clip.id)
        self._tell(position.at)
        try:
            with self._logs.of(clip.id):
                complete = self._do_stages(clip, position)
        except BaseException as error:  # whatever a stage raises ends its clip, but not the lane or the worker
            self._tell(position.failed(error))
        else:
            self._tell(ClipDone(clip.id, complete))

    def _do_stages(self, clip: Source, position: "Position") -> bool:
        """Runs the stages of a clip; False if it was stopped before the last one."""
        jobs = self._jobs(clip)
        handover = Handover(jobs)
        for job in jobs:
            if self.stopping.is_set():
                LOG.info("stopped before %s", job.step.stage)
                return False
            self._stage(job, position.enter(job), handover)
        return True

    def _jobs(self, clip: Source) -> list[StageJob]:
        """The stages that are not stored yet, as jobs."""
        setup = self._setup
        recipes = Recipes(setup.config, clip.sha256, setup.seed, setup.fingerprints)
        steps = make_plan(recipes, self._store, wish=NO_WISH, previous={})
        read = any(step.action == RUN and self._stages[step.stage].source for step in steps)
        path = Path(clip.path)
        if read and input_digest(path) != clip.sha256:
            raise InputError(
                f"{path} has changed since it was added to the dataset: `ss4d dataset init` reads it again"
            )
        return jobs_of(steps, setup.config, path, setup.seed, setup.device, setup.store)

    def _stage(self, job: StageJob, at: StageStarted, handover: Handover) -> None:
        turn = AT_ONCE
        if job.step.action == RUN:
            self._tell(at)
            LOG.info("%s begins", at.stage)
            if self._stages[at.stage].roles:
                turn = self._turn.of(at.clip)
        result = run_job(job, silent, handover, turn)
        if not result.reused:
            LOG.info("%s done in %.2f s, peak memory %.0f MiB", at.stage, result.seconds, result.peak_memory / 2**20)
        self._tell(StageDone(at.clip, at.stage, at.key, result))


def work(setup: Setup, gpu: str | None, pipe: Connection) -> None:
    """The main function of a worker's process; it ends when the other end of the pipe is closed or its parent ends.

    Args:
        setup: of the run.
        gpu: the one device it may use, as CUDA_VISIBLE_DEVICES names it; None for all.
        pipe: receives `Source` and `Stop`, and sends a `Message` each time.
    """
    end_with_parent()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # torch reads it when it first looks for devices, which is later
    torch.set_num_threads(setup.threads)
    mutex = threading.Lock()

    def tell(message: Message) -> None:
        with mutex:
            pipe.send(message)

    try:
        lanes = Lanes(setup, tell)
        lanes.load()
    except USER_ERRORS as error:
        tell(StartFailed(str(error)))
        return
    clips: queue.SimpleQueue[Source | None] = queue.SimpleQueue()
    threads = [threading.Thread(target=lanes.serve, args=(clips,), daemon=True) for _ in range(setup.lanes)]
    for thread in threads:
        thread.start()
    tell(Ready())
    try:
        while True:
            order = pipe.recv()
            if isinstance(order, Stop):
                lanes.stopping.set()
            else:
                clips.put(order)
    except EOFError:  # the coordinator has no more clips
        for _ in threads:
            clips.put(None)
    for thread in threads:
        thread.join()
