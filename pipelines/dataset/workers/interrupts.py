"""Ctrl-C during a run: the first is counted, to be answered between two steps; the second ends the run at once."""

import signal
import threading
from types import TracebackType
from typing import Any, Self


class Interrupts:
    """Counts Ctrl-C while the context is open; the second one raises KeyboardInterrupt.

    In a thread other than the main one it counts nothing: Ctrl-C is then for the program that started the thread.
    """

    def __init__(self) -> None:
        self._count = 0
        self._before: Any = None  # the handler to go back to, as `signal.signal` gives it

    def __bool__(self) -> bool:
        """Whether there was a Ctrl-C."""
        return self._count > 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _hear(self, *_: object) -> None:
        self._count += 1
        if self._count > 1:
            raise KeyboardInterrupt
