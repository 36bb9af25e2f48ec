"""A worker as the coordinator sees it: its process, the pipe to it, and the clips it has been given."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from ss4d.pipelines.child import Child
from ss4d.pipelines.dataset.workers.limits import Clock, resident_bytes
from ss4d.pipelines.dataset.workers.messages import Message, Stop
from ss4d.pipelines.dataset.workers.progress import ClipView, WorkerView
from ss4d.pipelines.dataset.workers.todo import Source, Todo
from ss4d.pipelines.dataset.workers.worker import Setup, work

GRACE = 10.0  # seconds that a worker without clips may take to end


@dataclass
class Assignment:
    """A clip that a worker has been given; `clock` is None until a lane starts it."""

    todo: Todo
    clock: Clock | None = None
    stage: str = ""
    key: str = ""

    def enter(self, stage: str, key: str) -> None:
        """The clip starts a stage."""
        self.clock = self.clock or Clock(time.monotonic())
        self.stage, self.key = stage, key

    def pause(self) -> None:
        """The clip waits for another clip."""
        assert self.clock is not None  # it has started
        self.clock.pause(time.monotonic())

    def resume(self) -> None:
        """The clip runs again."""
        assert self.clock is not None  # it has started
        self.clock.resume(time.monotonic())

    @property
    def seconds(self) -> float:
        """How long it has run, without waits for other clips."""
        return 0.0 if self.clock is None else self.clock.seconds(time.monotonic())


class Handle:
    """A worker; creating the handle starts its process.

    Args:
        setup: of the run.
        gpu: the one device it may use, as CUDA_VISIBLE_DEVICES names it; None for all.

    Attributes:
        name: host:pid, as events have it.
        ready: whether its networks are loaded.
        isolated: whether its clip has the worker for itself.
        memory: resident bytes of the process when it was last measured.
        assignments: the clips it has been given and has not ended, by id.
    """

    def __init__(self, setup: Setup, gpu: str | None) -> None:
        self._child = Child(work, setup, gpu, name="ss4d-worker")
        self.pipe, self.pid = self._child.pipe, self._child.pid
        self.name = f"{socket.gethostname()}:{self.pid}"
        self.gpu = gpu
        self.ready = False
        self.isolated = False
        self.memory = 0
        self.assignments: dict[str, Assignment] = {}

    def hand(self, todo: Todo) -> None:
        """Gives the worker a clip."""
        self.assignments[todo.source.id] = Assignment(todo)
        self._send(todo.source)

    def stop(self) -> None:
        """Tells the worker to start no further stage."""
        self._send(Stop())

    def messages(self) -> Iterator[Message | None]:
        """The messages since the last call; None comes last if the process has ended."""
        while True:
            try:
                if not self.pipe.poll():
                    return
                message = self.pipe.recv()
            except (EOFError, OSError):  # OSError: in the middle of a message
                yield None
                return
            yield message

    def look(self) -> int:
        """Measures the resident bytes of the process."""
        self.memory = resident_bytes(self.pid) or self.memory
        return self.memory

    def kill(self) -> None:
        """Kills the process."""
        self._child.kill()

    def dismiss(self) -> None:
        """Closes the pipe, which tells the worker that no more clips come."""
        self.pipe.close()

    def leave(self) -> None:
        """Waits for a dismissed worker to end by itself, if it has nothing to do, and kills it otherwise."""
        self._child.leave(GRACE if self.ready and not self.assignments else 0)

    def death(self) -> str:
        """How the process ended, in words; it must have ended."""
        return self._child.death()

    def view(self) -> WorkerView:
        """Its clips and their stages, for the watcher."""
        clips = [
            ClipView(id=name, stage=assignment.stage, seconds=assignment.seconds)
            for name, assignment in self.assignments.items()
            if assignment.clock is not None
        ]
        return WorkerView(pid=self.pid, ready=self.ready, memory=self.memory, clips=clips)

    def _send(self, order: Source | Stop) -> None:
        with suppress(OSError):  # the process has ended, which `messages` reports in a moment
            self.pipe.send(order)
