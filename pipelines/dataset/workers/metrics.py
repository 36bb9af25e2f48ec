"""`metrics.json`: the progress of a run as plain numbers, for monitoring many machines."""

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
    """Replaces the file every few seconds as a whole, so that readers never find half of one.

    Args:
        path: of the file.
        labels: what identifies the run, such as its host and shard.
    """

    def __init__(self, path: Path, labels: Mapping[str, Any]) -> None:
        self._path = path
        self._labels = dict(labels)
        self._next = 0.0

    def update(self, snapshot: Snapshot) -> None:
        """Writes the file, if the last time is long enough ago.

        Raises:
            OSError: if it cannot be written.
        """
        if time.monotonic() >= self._next:
            self.write(snapshot)

    def write(self, snapshot: Snapshot) -> None:
        """Writes the file.

        Raises:
            OSError: if it cannot be written.
        """
        write_json(self._path, {"schema": SCHEMA, "time": now(), **self._labels, **asdict(snapshot)})
        self._next = time.monotonic() + EVERY
