"""The log of each clip: what happened to it, in lines for people, in a file of its own."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ss4d.pipelines.dataset.events import now, worker_name
from ss4d.stages.errors import InputError

LOG = logging.getLogger("ss4d")


def clip_log(folder: Path, clip: str) -> TextIO:
    """A clip's log, to append to.

    Raises:
        OSError: if it cannot be written.
    """
    folder.mkdir(exist_ok=True)
    return (folder / f"{clip}.log").open("a", encoding="utf-8", errors="backslashreplace")


def note(folder: Path, clip: str, text: str) -> None:
    """Adds a line to a clip's log from outside of its worker, such as why that was killed.

    Raises:
        OSError: if it cannot be written.
    """
    with clip_log(folder, clip) as file:
        file.write(f"{now()} {worker_name()} ERROR   {text}\n")


class ClipLogs(logging.Handler):
    """Takes this process's log for itself: what a thread logs while it does a clip goes into that clip's log.

    Args:
        folder: of the logs.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._threads = threading.local()
        formatter = logging.Formatter(f"%(asctime)s {worker_name()} %(levelname)-7s %(message)s")
        formatter.converter = time.gmtime  # as in `events.now`
        formatter.default_time_format, formatter.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03d+00:00"
        self.setFormatter(formatter)
        LOG.addHandler(self)
        LOG.setLevel(logging.INFO)
        LOG.propagate = False

    @contextmanager
    def of(self, clip: str) -> Iterator[None]:
        """What this thread logs in here goes into the clip's log, and so does an error.

        With its traceback, unless the input is at fault: then the sentence says it all.

        Raises:
            OSError: if it cannot be written.
        """
        with clip_log(self._folder, clip) as file:
            self._threads.file = file
            try:
                yield
            except InputError as error:
                LOG.error("failed: %s", error)
                raise
            except BaseException:
                LOG.exception("failed")
                raise
            finally:
                self._threads.file = None

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line, at once; what no clip's thread says goes nowhere."""
        file = getattr(self._threads, "file", None)
        if file is not None:
            file.write(self.format(record) + "\n")
            file.flush()
