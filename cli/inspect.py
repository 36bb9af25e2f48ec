"""`ss4d inspect` and `ss4d report`: a run in numbers, in pictures, and as one page for a browser."""

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from ss4d.cli.console import console, new_console, say
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug, RunStore, stage_names

if TYPE_CHECKING:
    from ss4d.pipelines.inspect.opened import OpenedRun
    from ss4d.pipelines.inspect.statistics import ArrayStatistics

NOTHING_LOST = "the run itself was not changed"
WIDE = 160  # characters; a table in a file or a pipe is not cut to a terminal's width
Run = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="The folder of a run, such as output/runs/bird, or a packed run, bird.zip."),
]


def inspect(
    run: Run,
    stage: Annotated[
        str | None,
        typer.Argument(
            metavar="[STAGE]", autocompletion=stage_names, help="One stage in detail; by default a table of all."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Where the stage's picture goes; by default RUN/inspect; for bird.zip bird-inspect beside it.",
        ),
    ] = None,
    store: RunStore = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")] = False,
    debug: Debug = False,
) -> None:
    """Shows what the stages of a run made.

    Without STAGE: a row for each stage with its state, key, arrays, size in the store, seconds, peak memory and
    what it was made from. With STAGE: range, mean, numbers that are not finite and a histogram of each array, its
    files, and a picture over time in RUN/inspect/STAGE.png. Works on an unfinished run, too.

    For example:

        ss4d inspect output/runs/bird
        ss4d inspect output/runs/bird sparse_structure
        ss4d inspect output/runs/bird slat --json
    """
    with explained(debug, NOTHING_LOST):
        from ss4d.pipelines.inspect.opened import open_run

        signal.signal(signal.SIGINT, signal.default_int_handler)
        opened = open_run(run, store)
        if stage is None:
            _show_run(opened, as_json)
        else:
            _show_stage(opened, stage, out or place_for(run, "inspect"), as_json)


def report(
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.html",
            help="The page; by default RUN/report.html; for bird.zip bird-report.html beside it.",
        ),
    ] = None,
    store: RunStore = None,
    debug: Debug = False,
) -> None:
    """Makes one HTML page of a run, to open in a browser or to hand on.

    It holds the record, a table of the stages, pictures of what each of them made, the pictures and videos among their
    files, and the asset in a viewer that turns and plays it. It needs no network and no other file. Of an unfinished
    run it says what is missing.

    For example:

        ss4d report output/runs/bird --out bird.html
    """
    with explained(debug, NOTHING_LOST):
        from ss4d.pipelines.inspect.opened import open_run

        signal.signal(signal.SIGINT, signal.default_int_handler)
        path = out or place_for(run, "report.html")
        opened = open_run(run, store)
        with console.status("drawing") as status:
            from ss4d.pipelines.inspect.report import write_report  # torch, for which what is no run need not wait

            write_report(opened, path, lambda part: status.update(f"drawing {part}"))
        say(f"Page: {path} ({decimal(path.stat().st_size)})")


def place_for(run: Path, name: str) -> Path:
    """Where an output about a run goes: in its folder, or beside its archive, named after it."""
    if not run.is_dir():
        return run.with_name(f"{run.stem}-{name}")
    if (run / name).is_symlink():  # put there by whoever made the run
        from ss4d.pipelines.errors import ConfigError

        raise ConfigError(f"{run / name} is a link and leads somewhere else: say with --out where to write")
    return run / name


def _show_run(opened: "OpenedRun", as_json: bool) -> None:
    from ss4d.pipelines.inspect.summary import COLUMNS, NUMERIC

    rows = opened.summaries()
    if as_json:
        record = opened.record
        _print_json({"name": record.name, "state": record.state, "stages": [asdict(row) for row in rows]})
        return
    table = Table(box=None, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in NUMERIC else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row.cells()))
    _output().print(Text(opened.title), soft_wrap=True)
    _output().print(table)


def _show_stage(opened: "OpenedRun", name: str, folder: Path, as_json: bool) -> None:
    from ss4d.pipelines.inspect.pictures import Pictures
    from ss4d.pipelines.inspect.statistics import array_statistics

    stage = opened[name]
    statistics = array_statistics(stage)
    picture = Pictures(opened).write(name, folder)
    files = stage.artifact.attributes["files"]
    if as_json:
        _print_json(
            {
                **asdict(stage.summary()),
                "arrays": [asdict(array) for array in statistics],
                "values": stage.scalars,
                "measures": stage.measures,
                "files": files,
                "picture": str(picture) if picture else None,
            }
        )
        return
    for array in statistics:
        _show_array(array)
    if numbers := {**stage.scalars, **stage.measures}:
        _output().print(Text(", ".join(f"{name} {value}" for name, value in numbers.items())), soft_wrap=True)
    for name, listed in files.items():
        _output().print(Text(f"{name}  {listed.get('bytes')} bytes"), soft_wrap=True)
    if picture is not None:
        say(f"Picture: {picture}")


def _show_array(array: "ArrayStatistics") -> None:
    from ss4d.pipelines.inspect.statistics import bars

    axes = ", ".join(
        f"{dim} {size}" if dim != str(size) else dim for dim, size in zip(array.dims, array.shape, strict=True)
    )
    if array.least is None:
        summary = f"no finite number; {array.num_nan:,} NaN, {array.num_inf:,} infinite"
    else:
        bad = f"{array.num_nan:,} NaN, {array.num_inf:,} infinite" if array.num_nan + array.num_inf else "all finite"
        summary = f"{array.least:.6g} to {array.most:.6g}, mean {array.mean:.6g}, {bad}"
    lines = (
        f"{array.name}  {array.dtype} ({axes}), chunks ({', '.join(map(str, array.chunks))})",
        f"    {array.meaning}",
        f"    {summary}",
        f"    |{bars(array.histogram)}|",
    )
    _output().print(Text("\n".join(lines)), soft_wrap=True)


def _output() -> Console:
    """The standard output; as wide as the terminal, or wide enough where there is none."""
    return new_console(width=None if sys.stdout.isatty() else WIDE)


def _print_json(data: object) -> None:
    typer.echo(json.dumps(data, indent=2))
