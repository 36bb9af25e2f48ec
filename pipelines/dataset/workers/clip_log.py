"""The log of each clip: lines for people, in a file for each clip."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ss4d.pipelines.dataset.events import now, worker_name
from ss4d.stages.errors import InputError
from ss4d.storage.files import appending

LOG = logging.getLogger("ss4d")


def clip_log(folder: Path, clip: str) -> TextIO:
    """Opens a clip's log to append to it.

    Raises:
        OSError: if it cannot be written.
    """
    folder.mkdir(exist_ok=True)
    return appending(folder / f"{clip}.log")


def note(folder: Path, clip: str, text: str) -> None:
    """Adds a line to a clip's log from another process than its worker, such as why that was killed.

    Raises:
        OSError: if it cannot be written.
    """
    with clip_log(folder, clip) as file:
        file.write(f"{now()} {worker_name()} ERROR   {text}\n")


class ClipLogs(logging.Handler):
    """Handles the log "ss4d" of this process: what a thread logs while it runs a clip goes into that clip's log.

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
        """A context in which this thread logs into the clip's log; an error that leaves it is logged, too.

        It is logged with its traceback, except for bad input, where the sentence is enough.

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
        """Writes a line at once; drops what a thread logs that runs no clip."""
        file = getattr(self._threads, "file", None)
        if file is not None:
            file.write(self.format(record) + "\n")
            file.flush()
