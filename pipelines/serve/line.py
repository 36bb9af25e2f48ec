"""The line of those who wait for an asset, and for each device a thread that has one after the other made."""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ss4d.pipelines.child import Child
from ss4d.pipelines.errors import ConfigError, explain
from ss4d.pipelines.serve.submissions import VIDEO, Submissions, delete_run
from ss4d.pipelines.serve.worker import Advanced, Ended, Job, Making, Started, work

LOG = logging.getLogger("ss4d.serve")
PATIENCE = 0.2  # seconds between two looks at the clock, and at what was removed
GRACE = 5.0  # seconds that a worker without work may take to end
MOST_DEATHS = 2  # of a worker, of one submission: after that it is taken for what kills them


@dataclass(frozen=True)
class Position:
    """The stage that a run is at, and how much of it is done, of how much."""

    stage: str
    done: int = 0
    total: int = 0


class Line:
    """Makes the assets of submissions.

    Args:
        submissions: all of them; those that a server before left unfinished come first.
        making: how assets are made.
        overrides: of the configuration, for all.
        gpus: one entry a worker: the device it may use, None for all.
        most_waiting: that may wait at once.
        most_seconds: that making one may take.
    """

    def __init__(
        self,
        submissions: Submissions,
        making: Making,
        overrides: Sequence[str],
        gpus: Sequence[str | None],
        *,
        most_waiting: int,
        most_seconds: float,
    ) -> None:
        self._submissions, self._making, self._overrides = submissions, making, overrides
        self._most_waiting, self._most_seconds = most_waiting, most_seconds
        self._waiting: deque[str] = deque(submissions.unfinished())
        self._changed = threading.Condition()
        self._positions: dict[str, Position] = {}
        self._closed = False
        for id_ in self._waiting:
            submissions.change(id_, state="waiting")
        self._threads = [threading.Thread(target=self._serve, args=(gpu,), daemon=True) for gpu in gpus]
        for thread in self._threads:
            thread.start()

    def enter(self, id_: str, point: tuple[int, int] | None) -> None:
        """Puts a submission at the end of the line, unless it is in it, or its asset is made.

        Raises:
            ConfigError: the line is as long as it may be.
        """
        with self._changed:
            submission = self._submissions.get(id_)
            if submission is None or submission.state not in ("new", "failed"):
                return
            if len(self._waiting) >= self._most_waiting:
                raise ConfigError(f"{self._most_waiting} videos wait already: try again in some minutes")
            self._submissions.change(id_, state="waiting", point=point, message="", deaths=0)
            self._waiting.append(id_)
            self._changed.notify()

    def ahead_of(self, id_: str) -> int | None:
        """How many are before it in the line; None if it is not in it."""
        with self._changed:
            return self._waiting.index(id_) if id_ in self._waiting else None

    def position(self, id_: str) -> Position | None:
        """Where its run is; None if it does not run."""
        return self._positions.get(id_)

    def leave(self, id_: str) -> None:
        """Takes it out of the line; if it is being made, its thread sees that it is gone, and ends that."""
        with self._changed:
            if id_ in self._waiting:
                self._waiting.remove(id_)

    def close(self) -> None:
        """Ends the workers; what they were at goes on with the next server."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self, gpu: str | None) -> None:
        worker: Child | None = None
        while (id_ := self._next()) is not None:
            if worker is None:
                try:
                    worker = Child(work, self._making, gpu, name="ss4d-serve")
                except OSError as error:  # no memory or number left for one: this thread lives on for the next
                    LOG.warning("%s has failed: no process can be started: %s", id_, explain(error))
                    self._submissions.change(id_, state="failed", message="the server is too busy: try again later")
                    continue
            problem = self._made(worker, id_)
            self._positions.pop(id_, None)
            if problem is None or problem:
                worker.kill()
                worker = None
            if self._submissions.get(id_) is None:
                delete_run(self._making.out, id_)  # which the worker may have written to after it was removed
        if worker is not None:
            worker.leave(GRACE)  # not killed, since torch has things to tidy up

    def _next(self) -> str | None:
        """The next one's id, as soon as there is one; None once this is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return None if self._closed else self._waiting.popleft()

    def _made(self, worker: Child, id_: str) -> str | None:
        """Has an asset made: how the worker died or was stopped, empty if it lives, None if this is closed."""
        submission = self._submissions.change(id_, state="running")
        if submission is None:
            return ""
        point = [] if submission.point is None else [f"segmentation.point=[{', '.join(map(str, submission.point))}]"]
        video = self._submissions.folder_of(id_) / VIDEO
        try:
            worker.pipe.send(Job(id=id_, video=video, overrides=[*self._overrides, *point]))
        except OSError:
            return self._died(worker, id_)
        begun = time.monotonic()
        while not self._closed:
            if self._submissions.get(id_) is None:
                return "removed"
            if time.monotonic() - begun > self._most_seconds:
                told = f"it took more than the {self._most_seconds / 60:g} minutes allowed here"
                self._submissions.change(id_, state="failed", message=told)
                return told
            try:
                message = worker.pipe.recv() if worker.pipe.poll(PATIENCE) else None
            except (EOFError, OSError):
                return self._died(worker, id_)
            if isinstance(message, Started):
                self._positions[id_] = Position(message.stage)
            elif isinstance(message, Advanced):
                self._positions[id_] = Position(self._positions[id_].stage, message.done, message.total)
            elif isinstance(message, Ended):
                told = message.problem.replace(str(video), submission.title)
                if told:
                    LOG.warning("%s has failed: %s%s", id_, told, message.trace and f"\n{message.trace}")
                self._submissions.change(id_, state="failed" if told else "done", message=told)
                return ""
        return None

    def _died(self, worker: Child, id_: str) -> str:
        """A worker's process has ended: the submission gets another try, before all others, or is given up."""
        told = worker.death()
        submission = self._submissions.get(id_)
        deaths = 1 + (submission.deaths if submission else 0)
        LOG.warning("the process that made %s has died (%s)", id_, told)
        if deaths < MOST_DEATHS:
            if self._submissions.change(id_, state="waiting", deaths=deaths):
                with self._changed:
                    self._waiting.appendleft(id_)
            return told
        why = f"the process that made it died {deaths} times ({told}), most likely for lack of memory"
        self._submissions.change(id_, state="failed", deaths=deaths, message=why)
        return told
