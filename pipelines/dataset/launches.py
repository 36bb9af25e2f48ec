"""`runs.jsonl`: the launches of a dataset, a line for each start and each end; and the lock that keeps them apart."""

import fcntl
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from ss4d.pipelines.dataset.events import Cause, event_files, now, worker_name
from ss4d.pipelines.dataset.keys import Settings
from ss4d.pipelines.dataset.launch_lines import append_line, read_lines
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.select import parse_shard
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.one_writer import agree, agreed_on, lock_file
from ss4d.pipelines.run_record import machine, versions
from ss4d.storage.errors import StoreError
from ss4d.storage.files import appending

POLL = 0.5  # seconds between two looks at a lock
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
        self._common = {"launch": secrets.token_hex(4), **settings.recorded(), "recipes": recipes}
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
        append_line(self._dataset, {**self._common, "time": now(), **content})


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
        NewerError: if a newer version of the program wrote a line.
        OSError: if the records cannot be read.
    """
    return _read(dataset)[0]


def all_launches(dataset: Dataset) -> list[RecordedLaunch]:
    """Every launch, the oldest first.

    Raises:
        StoreError: if a line cannot be read, so that it is unknown what a launch needed.
        OSError: if the records cannot be read.
    """
    launches, damaged = _read(dataset)
    if damaged:
        raise StoreError(
            f"line {damaged[0]} of {dataset.launches} cannot be read, so it is unknown what that run of the dataset "
            "needs, and nothing is deleted; put the line back from a copy, or, if that run is over and another has "
            "begun since, take the line out"
        )
    return launches


class _LaunchLine(BaseModel):
    """What every line holds."""

    launch: str
    event: Literal["begun", "ended"]
    coordinator: str = ""  # of the first line alone
    recipes: dict[str, dict[str, Any]]


def _read(dataset: Dataset) -> tuple[list[RecordedLaunch], list[int]]:
    """The launches, and the numbers of the lines that tell of none."""
    found: dict[str, RecordedLaunch] = {}
    damaged = []
    for line in read_lines(dataset):
        try:
            data = _LaunchLine.model_validate(line.data)
        except ValidationError:
            damaged.append(line.number)
            continue
        begun = found.get(data.launch)
        if begun is not None and begun.recipes != data.recipes:  # lines of the first schema carry no digest
            damaged.append(line.number)
        coordinator = begun.coordinator if begun else data.coordinator
        found[data.launch] = RecordedLaunch(coordinator, data.recipes, data.event == "ended")
    return list(found.values()), damaged


@contextmanager
def only_launch(dataset: Dataset, shard: str | None, patience: float = 0.0) -> Iterator[None]:
    """Locks the dataset while it runs, since two runs of the same clips would make everything twice.

    A run of all clips excludes every other run; a run of a shard excludes runs of all clips, of the same shard, and of
    shards of another number.

    Args:
        dataset: that is run.
        shard: such as "2/8"; None for all clips.
        patience: seconds to wait for another run that is about to end.

    Raises:
        ConfigError: another run is in progress.
        OSError: the dataset's folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            until = time.monotonic() + patience
            _lock(stack, dataset.lock("run"), fcntl.LOCK_EX if shard is None else fcntl.LOCK_SH, until)
            if shard is not None:
                part = parse_shard(shard)
                _agree(stack, dataset, part.count, until)
                _lock(stack, dataset.lock(f"run-{part.number}-of-{part.count}"), fcntl.LOCK_EX, until)
        except BlockingIOError as error:
            raise ConfigError(
                f"another run of {dataset.folder} is in progress{_where(dataset)}: wait for it, or give each its own "
                "part with --shard"
            ) from error
        yield  # the system releases a lock when its file is closed, also after a kill


def _where(dataset: Dataset) -> str:
    """The process that runs a dataset, as far as its launches tell."""
    others = [launch.coordinator for launch in recorded_launches(dataset) if not launch.ended]
    return f" ({others[-1]})" if others else ""


def _agree(stack: ExitStack, dataset: Dataset, parts: int, until: float) -> None:
    """Sees to it that all who run a part mean one of as many parts, since else the same clip is in two of them."""
    file = stack.enter_context(lock_file(dataset.folder, dataset.lock("parts").name))
    while not agree(file, str(parts)):
        if time.monotonic() >= until:
            raise ConfigError(
                f"a run of one of {agreed_on(file)} parts of {dataset.folder} is in progress{_where(dataset)}, and "
                f"parts of {parts} would have clips of it, too: wait for it, or give --shard I/{agreed_on(file)}"
            )
        time.sleep(POLL)


def _lock(stack: ExitStack, path: Path, kind: int, until: float) -> None:
    file = stack.enter_context(appending(path))
    while True:
        try:
            return fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
        time.sleep(POLL)


def last_recipes(dataset: Dataset) -> LaunchRecipes | None:
    """The recipes of the last launch; None if there was none."""
    launches = recorded_launches(dataset)
    return launches[-1].recipes if launches else None
