"""`runs.jsonl`: the launches of a dataset, a line for each start and each end; and the lock that keeps them apart."""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ss4d.pipelines.dataset.events import Cause, event_files, now, worker_name
from ss4d.pipelines.dataset.keys import Settings
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.run_record import machine, versions
from ss4d.storage.manifest import locked

SCHEMA = 1
LaunchRecipes = Mapping[str, Mapping[str, Any]]  # by stage; of a clip without its source's hash


class Launch:
    """One start of a run. Each of its lines holds the settings, so the last line of the file tells the current ones.

    Args:
        dataset: that is run.
        settings: configuration, overrides and seed, as the user gave them.
        recipes: of all stages.
        details: further fields of its first line: the resolved configuration, device, workers, the command.

    Raises:
        OSError: if it cannot be written.
    """

    def __init__(
        self, dataset: Dataset, settings: Settings, recipes: LaunchRecipes, details: Mapping[str, Any]
    ) -> None:
        self._dataset = dataset
        self._common = {"schema": SCHEMA, "launch": secrets.token_hex(4), **settings.recorded(), "recipes": recipes}
        self._append(event="begun", coordinator=worker_name(), versions=versions(), machine=machine(), **details)

    def end(
        self, *, state: str, reason: str | None, clips: int, done: int, failed: Mapping[Cause, int], seconds: float
    ) -> None:
        """Records the end.

        Args:
            state: how it ended, as `ss4d.pipelines.dataset.workers.progress.Snapshot` has it.
            reason: why it did not finish; None if it did.
            clips: number of clips that it had to run.
            done: of these.
            failed: of these, by cause.
            seconds: that it took.

        Raises:
            OSError: if it cannot be written.
        """
        self._append(
            event="ended",
            state=state,
            reason=reason,
            clips=clips,
            done=done,
            failed=dict(failed),
            seconds=round(seconds, 3),
        )

    def _append(self, **content: Any) -> None:
        line = json.dumps({**self._common, "time": now(), **content}).encode() + b"\n"
        with locked(self._dataset.lock("runs")), self._dataset.launches.open("ab") as file:
            if _is_torn(self._dataset.launches):
                file.write(b"\n")
            file.write(line)


@dataclass(frozen=True)
class RecordedLaunch:
    """A launch as `runs.jsonl` has it.

    Attributes:
        coordinator: its process, as host:pid.
        recipes: of all stages.
        ended: whether its end is recorded; that of a killed one never is.
    """

    coordinator: str
    recipes: LaunchRecipes
    ended: bool

    def is_running(self, dataset: Dataset, patience: float) -> bool:
        """Whether it has not ended and has written an event within the last `patience` seconds."""
        host, _, pid = self.coordinator.rpartition(":")
        files = [] if self.ended else event_files(dataset.events, host, pid)
        return any(file.stat().st_mtime > time.time() - patience for file in files)


def recorded_launches(dataset: Dataset) -> list[RecordedLaunch]:
    """Every launch whose lines can be read, the oldest first.

    Raises:
        OSError: if the records cannot be read.
    """
    try:
        lines = dataset.launches.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found: dict[str, RecordedLaunch] = {}
    for line in lines:
        try:
            data = json.loads(line)
            begun = found.get(data["launch"])
            coordinator = data["coordinator"] if begun is None else begun.coordinator
            found[data["launch"]] = RecordedLaunch(coordinator, data["recipes"], data["event"] == "ended")
        except (ValueError, KeyError, TypeError):
            continue  # cut off by a kill, or edited by hand
    return list(found.values())


@contextmanager
def only_launch(dataset: Dataset, shard: str | None) -> Iterator[None]:
    """Locks the dataset while it runs, since two runs of the same clips would make everything twice.

    A run of all clips excludes every other run; a run of a shard excludes only runs of all clips. The submission
    sees to it that no two machines run the same shard.

    Raises:
        ConfigError: another run is in progress.
        OSError: the dataset's folder cannot be written.
    """
    with dataset.lock("run").open("a") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if shard is None else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            others = [launch.coordinator for launch in recorded_launches(dataset) if not launch.ended]
            where = f" ({others[-1]})" if others else ""
            raise ConfigError(
                f"another run of {dataset.folder} is in progress{where}: wait for it, or give each its own part "
                "with --shard"
            ) from error
        yield  # the system releases the lock when the file is closed, also after a kill


def last_recipes(dataset: Dataset) -> LaunchRecipes | None:
    """The recipes of the last launch; None if there was none."""
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
