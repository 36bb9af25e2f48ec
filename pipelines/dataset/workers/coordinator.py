"""The coordinator of a run: the loop that gives clips to workers, takes their messages, and decides what follows.

Its parts are modules of their own: which clip comes next (`clip_queue`), what is recorded and whether a clip is tried
again (`recorder`), which workers exceed the limits (`enforcement`), and the processes (`worker_pool`).
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ss4d.pipelines.dataset.events import EventWriter
from ss4d.pipelines.dataset.workers.clip_log import note
from ss4d.pipelines.dataset.workers.clip_queue import ClipQueue
from ss4d.pipelines.dataset.workers.enforcement import check_room, find_excess
from ss4d.pipelines.dataset.workers.handle import Assignment, Handle
from ss4d.pipelines.dataset.workers.interrupts import Interrupts
from ss4d.pipelines.dataset.workers.limits import Limits, resident_bytes
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
)
from ss4d.pipelines.dataset.workers.metrics import Metrics
from ss4d.pipelines.dataset.workers.policy import History, Policy
from ss4d.pipelines.dataset.workers.progress import Snapshot, Tally, Watcher
from ss4d.pipelines.dataset.workers.recorder import Recorder
from ss4d.pipelines.dataset.workers.todo import Todo
from ss4d.pipelines.dataset.workers.worker import Setup
from ss4d.pipelines.dataset.workers.worker_pool import WorkerPool
from ss4d.pipelines.errors import WorkerError

TICK = 0.25  # seconds between two checks of the limits
SHOW = 0.5  # seconds between two snapshots for the watcher


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a run ended: its last snapshot, and a sentence if it stopped early or too many clips failed."""

    snapshot: Snapshot
    reason: str | None


class Coordinator:
    """Runs the clips of one launch.

    Args:
        setup: what all workers are given.
        stages: of the run, in order.
        todo: the clips.
        history: what earlier runs recorded of them.
        gpus: one entry a worker: the device it may use, None for all.
        policy: what follows from failures.
        limits: what a clip may take.
        events: takes every attempt.
        metrics: the file that the progress is written to.
        watcher: is told of the progress, too.
    """

    def __init__(
        self,
        *,
        setup: Setup,
        stages: Sequence[str],
        todo: Sequence[Todo],
        history: History,
        gpus: Sequence[str | None],
        policy: Policy,
        limits: Limits,
        events: EventWriter,
        metrics: Metrics,
        watcher: Watcher,
    ) -> None:
        self._setup, self._limits, self._metrics, self._watcher = setup, limits, metrics, watcher
        self._tally = Tally(len(todo), stages)
        self._recorder = Recorder(events=events, tally=self._tally, policy=policy, history=history, seed=setup.seed)
        self._queue = ClipQueue(todo)
        self._pool = WorkerPool(setup, gpus)
        self._interrupts = Interrupts()
        self._state = "running"
        self._reason: str | None = None
        self._next_look = self._next_show = 0.0

    def run(self) -> Ending:
        """Runs all clips, or as many as policy and Ctrl-C let it.

        The first Ctrl-C lets clips in progress finish their stage; the second raises KeyboardInterrupt.

        Raises:
            WorkerError: the workers cannot start, or end before their first clip.
            OSError: an event, a log or the metrics cannot be written.
        """
        try:
            with self._interrupts:
                self._pool.start()
                while self._pool.at_work or (self._state == "running" and self._queue):
                    self._step()
            if self._state == "running":
                self._state, self._reason = "finished", self._recorder.too_many()
            self._pool.close()
            snapshot = self._show()
            self._metrics.write(snapshot)
            return Ending(snapshot=snapshot, reason=self._reason)
        finally:
            self._pool.kill()

    def snapshot(self, state: str) -> Snapshot:
        """The current progress."""
        return self._tally.snapshot(state, self._pool.views(), resident_bytes(os.getpid()))

    def _step(self) -> None:
        if self._interrupts and self._state == "running":
            self._stop("interrupted", None)
            self._watcher.message(
                "Interrupted: clips in progress finish their current stage. Ctrl-C again abandons them at once."
            )
        self._hand_out()
        for worker in self._pool.with_news(TICK):
            self._listen(worker)
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + TICK
            self._enforce()
        if time.monotonic() >= self._next_show:
            self._next_show = time.monotonic() + SHOW
            self._metrics.update(self._show())

    def _show(self) -> Snapshot:
        snapshot = self.snapshot(self._state)
        self._watcher.show(snapshot)
        return snapshot

    def _stop(self, state: str, reason: str | None) -> None:
        """Starts no further stage."""
        self._state, self._reason = state, reason
        self._pool.stop()

    def _hand_out(self) -> None:
        """Fills all lanes before any worker gets a clip in advance, which keeps its lanes from waiting."""
        if self._state != "running":
            return
        for depth in range(1, self._setup.lanes + 2):
            for worker in self._pool:
                if worker.ready and len(worker.assignments) < depth:
                    self._fill(worker)

    def _fill(self, worker: Handle) -> None:
        if not worker.assignments:
            isolated = self._queue.take_isolated()
            worker.isolated = isolated is not None
            if isolated is not None:
                worker.hand(isolated)
        if not worker.isolated and (todo := self._queue.take()) is not None:
            worker.hand(todo)

    def _listen(self, worker: Handle) -> None:
        for message in worker.messages():
            if message is None:
                self._lost(worker, "WorkerDied", f"the worker that did it ended with {worker.death()}")
                return
            self._hear(worker, message)

    def _hear(self, worker: Handle, message: Message) -> None:
        match message:
            case Ready():
                worker.ready = True
                check_room(worker, self._limits)
            case StartFailed(reason):
                raise WorkerError(f"no worker can start: {reason}")
            case StageStarted(clip, stage, key):
                worker.assignments[clip].enter(stage, key)
            case Paused(clip):
                worker.assignments[clip].pause()
            case Resumed(clip):
                worker.assignments[clip].resume()
            case StageDone(clip):
                self._recorder.stage_done(worker.assignments[clip].todo, worker.name, message)
            case ClipFailed(clip):
                self._failed(self._leave(worker, clip), worker, message)
            case ClipDone(clip, complete):
                self._leave(worker, clip)
                if complete:
                    self._recorder.clip_done()

    def _leave(self, worker: Handle, clip: str) -> Todo:
        """A clip has ended in its worker."""
        self._pool.works()
        todo = worker.assignments.pop(clip).todo
        self._queue.release(todo)
        return todo

    def _failed(self, todo: Todo, worker: Handle, failure: ClipFailed) -> None:
        """Records a failure, and queues the clip again if the policy says so."""
        pause = self._recorder.clip_failed(todo, worker.name, worker.memory, failure)
        if pause is None:
            if self._state == "running" and (reason := self._recorder.why_stop()):
                self._stop("stopped", reason)
        elif failure.cause == "killed":
            self._queue.isolate(todo)
        else:
            self._queue.delay(todo, pause)

    def _enforce(self) -> None:
        """Kills the workers that exceed the limits."""
        for worker in self._pool:
            worker.look()
            if (excess := find_excess(worker, self._limits)) is not None:
                worker.kill()
                for message in worker.messages():  # what it did in the meantime counts
                    if message is not None:
                        self._hear(worker, message)
                self._lost(worker, excess.error, excess.message, excess.clip)

    def _lost(self, worker: Handle, error: str, message: str, culprit: str | None = None) -> None:
        """A worker has ended: blames a clip, queues its other clips again, and starts another worker.

        If it ran several clips, any of them may have ended it; each of them then gets a worker for itself.
        """
        begun = [clip for clip, assignment in worker.assignments.items() if assignment.clock is not None]
        if culprit is None and not begun:
            self._pool.false_start(message)
        if culprit is None and len(begun) == 1:
            (culprit,) = begun
        for clip, assignment in reversed(worker.assignments.items()):
            self._queue.release(assignment.todo)
            if clip == culprit:
                self._blame(worker, assignment, error, message)
            elif culprit is None and clip in begun:
                note(self._setup.logs, clip, f"{message}; other clips were in it, so this one is tried again by itself")
                self._queue.isolate(assignment.todo)
            else:
                self._queue.put_back(assignment.todo)
        self._pool.remove(worker, replace=self._state == "running" and bool(self._queue))

    def _blame(self, worker: Handle, assignment: Assignment, error: str, message: str) -> None:
        clip = assignment.todo.source.id
        note(self._setup.logs, clip, f"{assignment.stage or 'reading'}: {error}: {message}")
        failure = ClipFailed(
            clip, assignment.stage, assignment.key, error, message, cause="killed", seconds=assignment.seconds
        )
        self._failed(assignment.todo, worker, failure)
