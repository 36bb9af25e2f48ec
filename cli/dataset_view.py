"""The progress of a dataset's run: a live view in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ss4d.cli.console import console, say

if TYPE_CHECKING:
    from ss4d.pipelines.dataset.events import Cause
    from ss4d.pipelines.dataset.plan import DatasetPlan
    from ss4d.pipelines.dataset.workers.progress import Snapshot

EVERY = 10.0  # seconds between two lines
MOST_WORKERS = 16  # most workers shown one by one
CAUSES = {
    "input": "bad input",
    "transient": "disk or network",
    "killed": "time, memory or the end of their worker",
    "numbers": "results that are not numbers",
    "program": "a fault of the program or its configuration",
}


T = TypeVar("T")


class LiveView(Generic[T]):
    """A context that shows progress.

    Args:
        picture: of the progress, redrawn in a terminal.
        line: the progress in words, printed now and then elsewhere.
    """

    def __init__(self, picture: Callable[[T], RenderableType], line: Callable[[T], str]) -> None:
        self._picture, self._line = picture, line
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._next = time.monotonic() + EVERY

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def message(self, text: str) -> None:
        """Prints a line as it is."""
        say(text)

    def show(self, state: T) -> None:
        """Redraws the picture, or prints a line if the last one is long enough ago."""
        if self._live:
            self._live.update(self._picture(state))
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            say(self._line(state))


def dataset_view() -> LiveView["Snapshot"]:
    """Shows the progress of a dataset's run."""
    return LiveView(picture, line)


def line(snapshot: "Snapshot") -> str:
    """The progress in one line."""
    left = snapshot.remaining_seconds
    stages = ", ".join(f"{name} {view.per_second:.2f}/s" for name, view in snapshot.stages.items() if view.done)
    words = [
        f"{snapshot.done} of {snapshot.clips} clips done",
        f"{snapshot.num_failed} failed",
        f"{snapshot.running} running",
        f"{snapshot.per_second:.2f} clips/s",
        "" if left is None else f"{duration(left)} left",
        stages,
    ]
    return ", ".join(word for word in words if word)


def duration(seconds: float) -> str:
    """A duration in two units: "3 h 12 min"."""
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole} s"


def summary(plan: "DatasetPlan", snapshot: "Snapshot | None") -> list[str]:
    """The state of the chosen clips in a few lines."""
    if snapshot is None:
        lines = [f"{plan.finished} of {plan.clips} clips are finished."]
    else:
        finished = plan.finished + snapshot.done
        took = duration(snapshot.seconds)
        lines = [f"{finished} of {plan.clips} clips are finished, {snapshot.done} of them by this run in {took}."]
        if snapshot.num_failed:
            lines.append(f"{snapshot.num_failed} failed: {_causes(snapshot.failed)}.")
        if left := snapshot.clips - snapshot.done - snapshot.num_failed:
            lines.append(f"{left} are left to do.")
    if given_up := plan.given_up.total():
        lines.append(
            f"{given_up} failed in earlier runs and are not run again ({_causes(plan.given_up)}): `ss4d dataset retry`."
        )
    if plan.unreadable:
        lines.append(f"{plan.unreadable} cannot be read; the manifest says why.")
    return lines


def _causes(failed: "Mapping[Cause, int]") -> str:
    return ", ".join(f"{count} by {CAUSES[cause]}" for cause, count in failed.items())


def picture(snapshot: "Snapshot") -> RenderableType:
    """The progress by stage and by worker."""
    head = Table.grid(padding=(0, 2))
    left = snapshot.remaining_seconds
    head.add_row(
        ProgressBar(total=max(snapshot.clips, 1), completed=snapshot.done + snapshot.num_failed, width=40),
        f"{snapshot.done}/{snapshot.clips} clips",
        Text(f"{snapshot.num_failed} failed", style="red" if snapshot.num_failed else ""),
        f"{snapshot.per_second:.2f} clips/s",
        "" if left is None else f"{duration(left)} left",
    )
    stages = Table("stage", "done", "a second", "seconds each", box=None)
    for name, view in snapshot.stages.items():
        if view.done:
            stages.add_row(name, str(view.done), f"{view.per_second:.2f}", f"{view.seconds:.2f}")
    return Group(head, stages, _workers(snapshot))


def _workers(snapshot: "Snapshot") -> Table:
    table = Table("worker", "memory", "clip", "stage", "seconds", box=None)
    for worker in snapshot.workers[:MOST_WORKERS]:
        memory = decimal(worker.memory)
        if not worker.clips:
            table.add_row(str(worker.pid), memory, "waits for clips" if worker.ready else "loads the networks", "", "")
        for number, clip in enumerate(worker.clips):
            first = (str(worker.pid), memory) if number == 0 else ("", "")
            table.add_row(*first, Text(clip.id), clip.stage or "reading", f"{clip.seconds:.0f}")
    if len(snapshot.workers) > MOST_WORKERS:
        table.add_row(f"and {len(snapshot.workers) - MOST_WORKERS} more", "", "", "", "")
    return table
