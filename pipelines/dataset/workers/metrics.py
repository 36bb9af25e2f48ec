"""`metrics.json`: how a run is getting on, as plain numbers for whoever watches many machines."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ss4d.pipelines.dataset.events import now
from ss4d.pipelines.dataset.workers.progress import Snapshot
from ss4d.storage.files import write_json

SCHEMA = 1
EVERY = 5.0  # seconds


class Metrics:
    """Replaces the file every few seconds, so that a reader always finds a whole one.

    Args:
        path: of the file.
        labels: what identifies the run, such as its host and shard.
    """

    def __init__(self, path: Path, labels: Mapping[str, Any]) -> None:
        self._path = path
        self._labels = dict(labels)
        self._next = 0.0

    def update(self, snapshot: Snapshot) -> None:
        """Writes it, if the last time is long enough ago.

        Raises:
            OSError: if it cannot be written.
        """
        if time.monotonic() >= self._next:
            self.write(snapshot)

    def write(self, snapshot: Snapshot) -> None:
        """Writes it.

        Raises:
            OSError: if it cannot be written.
        """
        write_json(self._path, {"schema": SCHEMA, "time": now(), **self._labels, **asdict(snapshot)})
        self._next = time.monotonic() + EVERY
