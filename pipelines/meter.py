"""Seconds and peak memory of a piece of work."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import psutil
import torch

INTERVAL = 0.02  # seconds between looks at the process's memory


class Meter:
    """A context that measures what runs inside it: `seconds`, `peak_memory` (bytes, whole process) and
    `peak_device_memory` (bytes torch allocated on CUDA).
    """

    def __enter__(self) -> "Meter":
        self.seconds = 0.0
        self.peak_memory = 0
        self.peak_device_memory = 0
        self._start = time.monotonic()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        return self

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.peak_memory = max(self.peak_memory, process.memory_info().rss)
            if self._done.wait(INTERVAL):
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens in here does not count among the seconds."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._start += time.monotonic() - begun

    def stop(self) -> None:
        """Ends the measurement early; leaving the context after it changes nothing."""
        if self._done.is_set():
            return
        self._done.set()
        self._watcher.join()
        self.seconds = time.monotonic() - self._start
        if torch.cuda.is_available():
            self.peak_device_memory = torch.cuda.max_memory_allocated()
