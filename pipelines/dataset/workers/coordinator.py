"""The coordinator of a run: hands clips to workers, writes down what becomes of them, and kills what takes too much."""

import heapq
import itertools
import os
import signal
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait

from ss4d.pipelines.dataset.events import Attempt, Cause, EventWriter, now
from ss4d.pipelines.dataset.workers.clip_log import note
from ss4d.pipelines.dataset.workers.handle import Handle, Todo, Visit
from ss4d.pipelines.dataset.workers.limits import Limits, resident_bytes
from ss4d.pipelines.dataset.workers.messages import (
    Entered,
    Failed,
    GoesOn,
    Left,
    Message,
    Ready,
    Through,
    Unfit,
    Waits,
)
from ss4d.pipelines.dataset.workers.metrics import Metrics
from ss4d.pipelines.dataset.workers.policy import History, Policy, too_many, why_stop
from ss4d.pipelines.dataset.workers.progress import Snapshot, Tally, Watcher
from ss4d.pipelines.dataset.workers.worker import Setup
from ss4d.pipelines.errors import WorkerError

TICK = 0.25  # seconds between two looks at the limits
SHOW = 0.5  # seconds between two looks for the watcher
MOST_FALSE_STARTS = 3  # workers in a row that end before they begin a clip
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a run ended: its last snapshot, and what is to be said if it stopped early, or too many clips failed."""

    snapshot: Snapshot
    reason: str | None


class Coordinator:
    """Does the clips of one run.

    Args:
        setup: what the workers have in common.
        stages: of the run, in order.
        todo: the clips.
        history: what is known of them.
        gpus: one entry a worker: the device it may use, None for all.
        policy: what follows from failures.
        limits: what a clip may take.
        events: where what happens is written.
        metrics: where it is told how the run is getting on.
        watcher: hears it, too.
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
        self._setup, self._gpus, self._policy, self._limits = setup, gpus, policy, limits
        self._events, self._metrics, self._watcher = events, metrics, watcher
        self._waiting = deque(todo)
        self._later: list[tuple[float, int, Todo]] = []  # a heap: when, a number that orders equals, what
        self._numbers = itertools.count()
        self._alone: deque[Todo] = deque()  # each to have a worker for itself, since it may have ended one
        self._copies: dict[str, deque[Todo]] = defaultdict(deque)  # by goal, of clips that are in a worker
        self._last_failure: Attempt | None = None
        self._failures: dict[str, Counter[Cause]] = {c: Counter(known) for c, known in history.failures.items()}
        self._attempts: Counter[str] = Counter(history.attempts)
        self._tally = Tally(len(todo), stages)
        self._workers: list[Handle] = []
        self._false_starts = 0
        self._interrupts = 0
        self._state = "running"
        self._reason: str | None = None
        self._next_look = self._next_show = 0.0

    def run(self) -> Ending:
        """Does all clips, or as many as it may.

        The first Ctrl-C lets the clips that are begun finish their stage; the second is a KeyboardInterrupt.

        Raises:
            WorkerError: the workers cannot begin, or end before they do.
            OSError: what happens cannot be written.
        """
        try:
            with self._interruptible():
                for gpu in self._gpus:
                    self._workers.append(Handle(self._setup, gpu))
                while self._busy():
                    self._step()
            if self._state == "running":
                self._state = "finished"
                self._reason = too_many(self._policy, self._tally.finished, self._tally.failed, self._last_failure)
            for worker in self._workers:
                worker.dismiss()
            for worker in self._workers:
                worker.leave()
            self._workers = []
            snapshot = self._show()
            self._metrics.write(snapshot)
            return Ending(snapshot=snapshot, reason=self._reason)
        finally:
            for worker in self._workers:
                worker.kill()

    def _busy(self) -> bool:
        return any(worker.visits for worker in self._workers) or (self._state == "running" and self._to_come())

    def _to_come(self) -> bool:
        return bool(self._waiting or self._later or self._alone or self._copies)

    def _step(self) -> None:
        if self._interrupts and self._state == "running":
            self._stop("interrupted", None)
            self._watcher.message(
                "Interrupted: the clips that are begun finish their present stage. Ctrl-C again abandons them at once."
            )
        self._hand_out()
        told = wait([worker.pipe for worker in self._workers], TICK)
        for worker in [worker for worker in self._workers if worker.pipe in told]:
            self._listen(worker)
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + TICK
            self._enforce()
        if time.monotonic() >= self._next_show:
            self._next_show = time.monotonic() + SHOW
            self._metrics.update(self._show())

    def snapshot(self, state: str) -> Snapshot:
        """How it is getting on."""
        return self._tally.snapshot(state, [worker.view() for worker in self._workers], resident_bytes(os.getpid()))

    def _show(self) -> Snapshot:
        snapshot = self.snapshot(self._state)
        self._watcher.show(snapshot)
        return snapshot

    def _stop(self, state: str, reason: str | None) -> None:
        """Begins nothing more."""
        self._state, self._reason = state, reason
        for worker in self._workers:
            worker.stop()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Counts Ctrl-C; the first one is answered between two steps."""
        if threading.current_thread() is not threading.main_thread():  # another program answers it
            yield
            return

        def count(*_: object) -> None:
            self._interrupts += 1
            if self._interrupts > 1:
                raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, count)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    # Handing out

    def _hand_out(self) -> None:
        """Fills all lanes before any worker is given a clip in advance, which keeps its lanes from waiting."""
        if self._state != "running":
            return
        for depth in range(1, self._setup.lanes + 2):
            for worker in self._workers:
                if worker.ready and len(worker.visits) < depth:
                    self._fill(worker)

    def _fill(self, worker: Handle) -> None:
        if not worker.visits:
            worker.alone = bool(self._alone)
            if worker.alone:
                worker.hand(self._alone.popleft())
        if not worker.alone and (todo := self._next()) is not None:
            worker.hand(todo)

    def _next(self) -> Todo | None:
        if self._later and self._later[0][0] <= time.monotonic():
            return heapq.heappop(self._later)[2]
        at_work = {visit.todo.goal for worker in self._workers for visit in worker.visits.values()}
        while self._waiting:
            todo = self._waiting.popleft()
            if todo.goal not in at_work:
                return todo
            self._copies[todo.goal].append(todo)  # the same content under another name waits, and then finds all there
        return None

    def _left_by(self, todo: Todo) -> None:
        """A clip is in no worker any more: the next one of its content may go on."""
        if copies := self._copies.get(todo.goal):
            self._waiting.appendleft(copies.popleft())
            if not copies:
                del self._copies[todo.goal]

    # Hearing

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
                self._check_room(worker)
            case Unfit(reason):
                raise WorkerError(f"no worker can begin: {reason}")
            case Entered(clip, stage, key):
                worker.visits[clip].enter(stage, key)
            case Waits(clip) | GoesOn(clip):
                clock = worker.visits[clip].clock
                assert clock is not None  # it has entered
                (clock.pause if isinstance(message, Waits) else clock.go_on)(time.monotonic())
            case Left():
                self._left(worker, message)
            case Failed():
                self._false_starts = 0
                todo = worker.visits.pop(message.clip).todo
                self._left_by(todo)
                self._failed(todo, worker, message)
            case Through(clip, whole):
                self._false_starts = 0
                self._left_by(worker.visits.pop(clip).todo)
                if whole:
                    self._tally.clip(None)

    def _left(self, worker: Handle, message: Left) -> None:
        """A reused artifact is told only if it was to be made: another process did it, or the index was behind."""
        outcome, visit = message.outcome, worker.visits[message.clip]
        if outcome.reused and message.stage not in visit.todo.stages:
            return
        if not outcome.reused:
            self._tally.artifact(message.stage, outcome.seconds)
        self._events.write(
            Attempt(
                clip=message.clip,
                stage=message.stage,
                key=message.key,
                state="reused" if outcome.reused else "done",
                time=now(),
                seconds=round(outcome.seconds, 3),
                peak_memory=outcome.peak_memory,
                number=self._attempts[message.key] + 1,
                worker=worker.name,
                seed=self._setup.seed,
                versions=self._events.versions,
                measures=outcome.measures,
            )
        )

    def _failed(self, todo: Todo, worker: Handle, failure: Failed) -> None:
        """Writes it down, and decides whether the clip is tried again."""
        clip, key, cause = failure.clip, failure.key or todo.goal, failure.cause
        self._attempts[key] += 1
        known = self._failures.setdefault(clip, Counter())
        known[cause] += 1
        attempt = Attempt(
            clip=clip,
            stage=failure.stage,
            key=key,
            state="failed",
            time=now(),
            seconds=round(failure.seconds, 3),
            peak_memory=worker.memory,
            number=self._attempts[key],
            error=failure.error,
            message=failure.message,
            cause=cause,
            worker=worker.name,
            seed=self._setup.seed,
            versions=self._events.versions,
        )
        self._events.write(attempt)
        self._last_failure = attempt
        pause = self._policy.pause(cause, known[cause])
        if pause is None:
            self._tally.clip(cause)
            if self._state == "running" and (
                reason := why_stop(self._policy, self._tally.finished, self._tally.failed, attempt)
            ):
                self._stop("stopped", reason)
        elif cause == "killed":
            self._alone.append(todo)
        else:
            heapq.heappush(self._later, (time.monotonic() + pause, next(self._numbers), todo))

    # Limits

    def _enforce(self) -> None:
        """Kills the workers that take too much."""
        limits = self._limits
        for worker in list(self._workers):
            worker.look()
            if (late := self._late(worker)) is not None:
                message = f"it took longer than the {limits.clip_seconds:g} s that --clip-timeout allows"
                self._kill(worker, "TimeLimit", message, late)
            elif limits.worker_bytes is not None and worker.memory > limits.worker_bytes and worker.visits:
                message = (
                    f"its worker took {worker.memory / MIB:,.0f} MiB of memory, and --memory allows "
                    f"{limits.worker_bytes / MIB:,.0f}"
                )
                self._kill(worker, "MemoryLimit", message, None)

    def _late(self, worker: Handle) -> str | None:
        """The clip in a worker that has taken the longest, if that is too long."""
        if self._limits.clip_seconds is None or not worker.visits:
            return None
        clip = max(worker.visits, key=lambda name: worker.visits[name].seconds)
        return clip if worker.visits[clip].seconds > self._limits.clip_seconds else None

    def _check_room(self, worker: Handle) -> None:
        """Without a clip a worker must stay well below the limit, or clips would be blamed for it."""
        limit = self._limits.worker_bytes
        if limit is not None and worker.look() > limit:
            raise WorkerError(
                f"--memory allows a worker {limit / MIB:,.0f} MiB, but it takes {worker.memory / MIB:,.0f} before it "
                "begins its first clip: allow more"
            )

    def _kill(self, worker: Handle, error: str, message: str, culprit: str | None) -> None:
        worker.kill()
        for said in worker.messages():  # what it did in the meantime counts
            if said is not None:
                self._hear(worker, said)
        self._lost(worker, error, message, culprit)

    def _lost(self, worker: Handle, error: str, message: str, culprit: str | None = None) -> None:
        """A worker is gone: says which clip is to blame, hands out the others again, and starts another worker.

        Of several clips nobody can tell which one ended it; each then has a worker for itself.
        """
        begun = [name for name, visit in worker.visits.items() if visit.clock is not None]
        if culprit is None and not begun:
            self._count_false_start(message)
        if culprit is None and len(begun) == 1:
            (culprit,) = begun
        for name, visit in reversed(worker.visits.items()):
            self._left_by(visit.todo)
            if name == culprit:
                self._blame(worker, visit, error, message)
            elif culprit is None and name in begun:
                note(self._setup.logs, name, f"{message}; other clips were in it, so this one is tried again by itself")
                self._alone.append(visit.todo)
            else:
                self._waiting.appendleft(visit.todo)
        self._workers.remove(worker)
        if self._state == "running" and self._to_come():
            self._workers.append(Handle(self._setup, worker.gpu))

    def _blame(self, worker: Handle, visit: Visit, error: str, message: str) -> None:
        clip = visit.todo.source.id
        note(self._setup.logs, clip, f"{visit.stage or 'reading'}: {error}: {message}")
        failure = Failed(clip, visit.stage, visit.key, error, message, "killed", visit.seconds)
        self._failed(visit.todo, worker, failure)

    def _count_false_start(self, message: str) -> None:
        self._false_starts += 1
        if self._false_starts == MOST_FALSE_STARTS:
            raise WorkerError(
                f"{MOST_FALSE_STARTS} workers in a row ended before they began a clip; of the last one: {message}; "
                "most likely there is too little memory: take fewer with --workers"
            )
