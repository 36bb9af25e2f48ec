"""`runs.jsonl`: when runs of a dataset began and ended, with what, and how; a line for each beginning and each end."""

import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ss4d.pipelines.dataset.events import event_files, now, worker_name
from ss4d.pipelines.dataset.keys import Settings
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.workers.progress import Snapshot
from ss4d.pipelines.run_record import machine, versions
from ss4d.storage.manifest import locked

SCHEMA = 1
Recipes = Mapping[str, Mapping[str, Any]]  # by stage; those of a clip whose source is not told


class Launch:
    """One run. Each of its lines says what was asked for, so that the last line of the file tells what is current.

    Args:
        dataset: whose.
        settings: configuration, overrides and seed, as the user says them.
        recipes: of all stages.
        details: what else is to be known: the resolved configuration, device, workers, the command.

    Raises:
        OSError: if it cannot be written.
    """

    def __init__(self, dataset: Dataset, settings: Settings, recipes: Recipes, details: Mapping[str, Any]) -> None:
        self._dataset = dataset
        self._common = {"schema": SCHEMA, "launch": secrets.token_hex(4), **settings.recorded(), "recipes": recipes}
        self._append(event="begun", coordinator=worker_name(), versions=versions(), machine=machine(), **details)

    def end(self, snapshot: Snapshot, reason: str | None) -> None:
        """It is over.

        Args:
            snapshot: how far it got.
            reason: why no further, if it did not finish.
        """
        self._append(
            event="ended",
            state=snapshot.state,
            reason=reason,
            clips=snapshot.clips,
            done=snapshot.done,
            failed=snapshot.failed,
            seconds=round(snapshot.seconds, 3),
        )

    def _append(self, **content: Any) -> None:
        line = json.dumps({**self._common, "time": now(), **content}).encode() + b"\n"
        with locked(self._dataset.lock("runs")), self._dataset.launches.open("ab") as file:
            if _is_torn(self._dataset.launches):
                file.write(b"\n")
            file.write(line)


@dataclass(frozen=True)
class Recorded:
    """A launch as `runs.jsonl` tells of it.

    Attributes:
        coordinator: its process, host:pid.
        recipes: of all stages.
        ended: whether it said that it was over; one that was killed never does.
    """

    coordinator: str
    recipes: Recipes
    ended: bool

    def goes_on(self, dataset: Dataset, patience: float) -> bool:
        """Whether it has not ended, and wrote an event within the last `patience` seconds."""
        host, _, pid = self.coordinator.rpartition(":")
        files = [] if self.ended else event_files(dataset.events, host, pid)
        return any(file.stat().st_mtime > time.time() - patience for file in files)


def recorded_launches(dataset: Dataset) -> list[Recorded]:
    """Every launch whose lines can be read, from the first on.

    Raises:
        OSError: if the records cannot be read.
    """
    try:
        lines = dataset.launches.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found: dict[str, Recorded] = {}
    for line in lines:
        try:
            data = json.loads(line)
            begun = found.get(data["launch"])
            coordinator = data["coordinator"] if begun is None else begun.coordinator
            found[data["launch"]] = Recorded(coordinator, data["recipes"], data["event"] == "ended")
        except (ValueError, KeyError, TypeError):
            continue  # torn by a kill, or a person's
    return list(found.values())


def last_recipes(dataset: Dataset) -> Recipes | None:
    """Those of the last launch; None if there was none."""
    launches = recorded_launches(dataset)
    return launches[-1].recipes if launches else None


def _is_torn(path: Path) -> bool:
    """Whether the last line was cut off by a kill."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
