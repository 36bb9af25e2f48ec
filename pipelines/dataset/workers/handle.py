"""A worker as the coordinator sees it: its process, the pipe to it, and the clips it has been handed."""

import multiprocessing
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from ss4d.pipelines.dataset.workers.limits import Clock, resident_bytes
from ss4d.pipelines.dataset.workers.messages import Message, Stop
from ss4d.pipelines.dataset.workers.progress import ClipView, WorkerView
from ss4d.pipelines.dataset.workers.todo import Source, Todo
from ss4d.pipelines.dataset.workers.worker import Setup, work
from ss4d.pipelines.workers import without_interrupts

GRACE = 10.0  # seconds that a worker with nothing left to do has to end


@dataclass
class Assignment:
    """A clip in a worker; `clock` is None until a lane takes it up."""

    todo: Todo
    clock: Clock | None = None
    stage: str = ""
    key: str = ""

    def enter(self, stage: str, key: str) -> None:
        """It comes to a stage."""
        self.clock = self.clock or Clock(time.monotonic())
        self.stage, self.key = stage, key

    def pause(self) -> None:
        """It waits for another clip."""
        assert self.clock is not None  # it has come to a stage
        self.clock.pause(time.monotonic())

    def resume(self) -> None:
        """It is worked on again."""
        assert self.clock is not None  # it has come to a stage
        self.clock.resume(time.monotonic())

    @property
    def seconds(self) -> float:
        """How long it has been worked on."""
        return 0.0 if self.clock is None else self.clock.seconds(time.monotonic())


class Handle:
    """Starts a worker.

    Args:
        setup: of the run.
        gpu: the one device it may use, as CUDA_VISIBLE_DEVICES names it; None for all.

    Attributes:
        name: as events call it.
        ready: whether its networks are loaded.
        isolated: whether its present clip has it for itself.
        memory: bytes it had when last looked at.
    """

    def __init__(self, setup: Setup, gpu: str | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(setup, gpu, theirs), name="ss4d-worker")
        with without_interrupts():
            self.process.start()
        theirs.close()  # so that the worker's end is the only one, and its death the end of the pipe
        assert self.process.pid is not None  # it is started
        self.pid: int = self.process.pid
        self.name = f"{socket.gethostname()}:{self.pid}"
        self.gpu = gpu
        self.ready = False
        self.isolated = False
        self.memory = 0
        self.assignments: dict[str, Assignment] = {}

    def hand(self, todo: Todo) -> None:
        """Gives it a clip."""
        self.assignments[todo.source.id] = Assignment(todo)
        self._send(todo.source)

    def stop(self) -> None:
        """Tells it to begin nothing more."""
        self._send(Stop())

    def messages(self) -> Iterator[Message | None]:
        """What it has said since the last time; None, and nothing more, if it is gone."""
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
        """The bytes of memory it has now."""
        self.memory = resident_bytes(self.pid) or self.memory
        return self.memory

    def kill(self) -> None:
        """Ends it at once."""
        self.process.kill()
        self.process.join()

    def dismiss(self) -> None:
        """Tells it that nothing more will come."""
        self.pipe.close()

    def leave(self) -> None:
        """Waits for a dismissed worker to end by itself, if it has nothing to do, and kills it otherwise."""
        if self.ready and not self.assignments:
            self.process.join(GRACE)
        self.kill()

    def death(self) -> str:
        """How it ended, in words; it must be gone."""
        self.process.join(1)  # its pipe may close a little before it is gone
        self.kill()
        code = self.process.exitcode or 0
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def view(self) -> WorkerView:
        """What it is at."""
        clips = [
            ClipView(id=name, stage=assignment.stage, seconds=assignment.seconds)
            for name, assignment in self.assignments.items()
            if assignment.clock is not None
        ]
        return WorkerView(pid=self.pid, ready=self.ready, memory=self.memory, clips=clips)

    def _send(self, order: Source | Stop) -> None:
        with suppress(OSError):  # it is gone, which its end of the pipe tells in a moment
            self.pipe.send(order)
