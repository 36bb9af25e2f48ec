"""Processes that kill themselves at a chosen step: before they change a file's name, write, sync, upload or delete."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from sys import addaudithook
from typing import Any

import obstore

from tests.conftest import Silent

CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.truncate", "shutil.rmtree"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass
class Steps:
    """Counts this process's steps below `folders` and in object stores, and kills it when it is about to do one.

    Args:
        folders: what happens elsewhere does not count.
        death: the phase, and the step in it counted from 1, or else the first step of a later phase; None to live.
        phases: what the process goes through, in order.
    """

    folders: Sequence[Path]
    death: tuple[str, int] | None = None
    phases: Sequence[str] = ("",)
    phase: str = field(init=False)
    counts: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self.phase = self.phases[0]
        addaudithook(self._hear)
        os.fsync = self._counted(os.fsync)
        obstore.put, obstore.delete = self._counted(obstore.put), self._counted(obstore.delete)

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self._step()
            return function(*arguments, **named)

        return counted

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and arguments[2] & WRITES):
            path = arguments[0]
            if isinstance(path, str | Path) and self._counts(Path(path)):
                self._step()

    def _counts(self, path: Path) -> bool:
        """A relative path is one in a folder that is being deleted."""
        return not path.is_absolute() or any(path.is_relative_to(folder) for folder in self.folders)

    def _step(self) -> None:
        self.counts[self.phase] += 1
        if self.death is not None:
            place = self.phases.index(self.phase), self.counts[self.phase]
            if place >= (self.phases.index(self.death[0]), self.death[1]):
                os.kill(os.getpid(), signal.SIGKILL)


PHASES = (
    "start",
    "segmentation",
    "conditioning",
    "sparse_structure",
    "slat",
    "decoding",
    "export",
    "end",
)


class Watched(Silent):
    """Hears how a run goes on: marks its phases, and tells which stage begins, and whether to compute it."""

    def __init__(self, steps: Steps, tell: Callable[[tuple[str, str]], None]) -> None:
        self._steps, self._tell = steps, tell

    def stage_started(self, step: Any) -> None:
        self._steps.phase = step.stage
        self._tell((step.stage, step.action))

    def stage_finished(self, outcome: object) -> None:
        if self._steps.phase == PHASES[-2]:
            self._steps.phase = PHASES[-1]
