"""A process that works for this one, and the pipe to it."""

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from ss4d.pipelines.workers import without_interrupts


class Child:
    """A process that is given a pipe and ends when that is closed; creating the handle starts it.

    Args:
        work: a function of a module, called with `given` and its end of the pipe.
        given: what it is called with.
        name: of the process.

    Attributes:
        pipe: this end.
        pid: of the process.
    """

    def __init__(self, work: Callable[..., None], *given: Any, name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe: Connection
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(*given, theirs), name=name)
        with without_interrupts():
            self._process.start()
        theirs.close()  # so that the pipe ends when the process does
        assert self._process.pid is not None  # it is started
        self.pid: int = self._process.pid

    def leave(self, grace: float) -> None:
        """Lets the process end by itself, which it does when it has nothing to do; kills it after `grace` seconds."""
        self.pipe.close()
        self._process.join(grace)
        self.kill()

    def kill(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()

    def death(self) -> str:
        """How the process ended, in words; it must have ended."""
        self._process.join(1)  # the pipe may close a little before the process ends
        self.kill()
        code = self._process.exitcode or 0
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
