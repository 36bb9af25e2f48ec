"""How a run looks in a terminal: a line a stage, with a bar where there is someone to watch it."""

import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment

if TYPE_CHECKING:
    from ss4d.pipelines.plan import Step
    from ss4d.pipelines.stage_result import StageResult

# What a terminal would obey, and what would turn the order of letters around; all but the ends of lines and tabs.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """The text with a picture of one letter for each control character: it may come from anybody's file or its name."""
    return _CONTROL.sub(
        lambda found: chr(0x2400 + ord(found[0])) if found[0] < " " else "\N{REPLACEMENT CHARACTER}", text
    )


class _Plain(RenderHook):
    """Lets a console write no control character but its own."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_PlainPart(part) for part in renderables]


class _PlainPart:
    def __init__(self, part: ConsoleRenderable) -> None:
        self._part = part

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for text, style, control in console.render(self._part, options):
            yield Segment(text if control else plain(text), style, control)


def new_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console that is safe to print anybody's text with."""
    made = Console(stderr=stderr, width=width)
    made.push_render_hook(_Plain())
    return made


console = new_console(stderr=True)
# Seconds until the first line about a long step where no bar can be drawn, and from one line to the next.
FIRST_LINE, LINE_INTERVAL = 5.0, 30.0


@contextmanager
def bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left, or in a file a line now and then; to be told what is done, of how much."""
    if not console.is_terminal:
        yield _Lines(unit)
        return
    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(unit, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class _Lines:
    """Says what is done after `FIRST_LINE` seconds, and every `LINE_INTERVAL` seconds from there."""

    def __init__(self, unit: str) -> None:
        self._unit, self._begun = unit, time.monotonic()
        self._next = self._begun + FIRST_LINE

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LINE_INTERVAL
            say(f"{self._unit}: {done} of {total} done after {now - self._begun:.0f} s")


def say(text: str) -> None:
    """Prints one line as it is, on the error stream."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def output(text: str) -> None:
    """Prints lines as they are, on the standard output."""
    typer.echo(plain(text))


def to_copy(path: Path | str) -> str:
    """A path as a shell takes it for an argument: quoted, and no option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


# What the files of an asset are, by the first part of their names.
MEANINGS = {
    "frames": "{files} in PLY, one per frame",
    "compressed": "{files} in compressed PLY, one per frame",
    "spz": "{files} in SPZ, one per frame",
    "mesh.glb": "all frames, as textured meshes in animated glTF",
    "gaussians.glb": "all frames, as Gaussians in animated glTF",
    "gaussians.usdc": "all frames, as Gaussians in USD over time",
    "points.usdc": "all frames, as colored points in USD over time",
    "asset.4d.zip": "all frames, as SPZ files and a description",
    "viewer.html": "a page that shows the asset, to turn and to play",
    "turntable.mp4": "a turn around the object while it moves",
    "cameras.json": "the cameras of a turn around the object, and the input's",
}


class ConsoleReporter:
    """Prints a line per stage: reused or run, why, seconds and peak memory."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar: TaskID | None = None

    def __enter__(self) -> "ConsoleReporter":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def message(self, text: str) -> None:
        """Prints one line as it is."""
        say(text)

    def stage_started(self, step: "Step") -> None:
        """Says that the stage runs or is reused, and why."""
        self.message(f"{step.stage:<16} {step.action:<5} {step.reason}")
        if step.action == "run":
            self._bar = self._progress.add_task(step.stage, total=None)

    def stage_progress(self, done: int, total: int) -> None:
        """Moves the stage's bar."""
        if self._bar is not None:
            self._progress.update(self._bar, completed=done, total=total)

    def stage_finished(self, result: "StageResult") -> None:
        """Says what the stage cost."""
        if self._bar is not None:
            self._progress.remove_task(self._bar)
            self._bar = None
        if not result.reused:
            self.message(f"{'':<16} done  in {result.seconds:.1f} s, peak memory {result.peak_memory / 2**20:,.0f} MiB")

    def results(self, folder: Path) -> None:
        """Says where the results lie, and what shows them."""
        # Not at the top: --help should not wait for it.
        from ss4d.pipelines.run_record import RECORD, read_record

        self.message(f"\nDone. The results are in {folder}:")
        record = read_record(folder)
        counts = Counter(name.partition("/")[0] for name in (record.results if record else ()))
        for name, count in counts.items():
            named = f"{name}/" if (folder / name).is_dir() else name
            files = f"{count} files" if count > 1 else "1 file"
            self.message(f"  {named:<14} {MEANINGS.get(name, files).format(files=files)}")
        self.message(f"  {RECORD:<14} configuration, seed, versions, seconds and memory per stage")
        self.message(f"To look at it: ss4d report {to_copy(folder)}")
