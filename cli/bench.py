"""`ss4d bench`: how fast the networks are on this machine, and how much of what it could do."""

import signal
from pathlib import Path
from typing import Annotated, Literal

import typer

from ss4d.cli.console import bar, say
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug, Device
from ss4d.cli.tables import print_table


def bench(
    size: Annotated[
        Literal["tiny", "published"], typer.Option("--size", help="Of the networks; their weights are random.")
    ] = "tiny",
    device: Device = "auto",
    precision: Annotated[
        Literal["float32", "float16", "bfloat16"] | None,
        typer.Option("--precision", help="Of the torsos; by default float16 on CUDA and float32 elsewhere."),
    ] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, help="Of the clip; by default as many as take minutes.")
    ] = None,
    voxels: Annotated[int | None, typer.Option("--voxels", min=1, help="Of each frame, on a sphere's surface.")] = None,
    stages: Annotated[
        list[str] | None,
        typer.Option("--stage", metavar="STAGE", help="Measures this stage alone; by default all. Repeatable."),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            "--repeats",
            min=1,
            help="Of each measurement; medians count. By default 3, or 1 of published size on a CPU.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Writes the report as JSON too, to compare it later.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Measures the networks of each stage on this machine.

    Prints for each piece of work, and for the kinds of layers in it, the seconds of one call, its arithmetic, that as a
    share of what products of large matrices reach here, the peak of memory, and how much longer the naive way takes:
    all neighbors gathered, absent ones as zeros, attention to tokens of zeros, tables made anew, float32.

    With OMP_NUM_THREADS=1 seconds on a CPU are those of the processor, so that other work does not count.

    For example:

        ss4d bench
        ss4d bench --size published --device cuda --out card.json
        ss4d bench --size published --stage slat --frames 4 --voxels 1500
    """
    with explained(debug, "nothing was changed"):
        from ss4d.pipelines.bench.bench import BenchOptions, run_bench
        from ss4d.pipelines.bench.report import COLUMNS, cells

        signal.signal(signal.SIGINT, signal.default_int_handler)
        options = BenchOptions(
            size=size,
            device=device,
            precision=precision,
            frames=frames,
            voxels=voxels,
            stages=stages,
            repeats=repeats,
            out=out,
        )
        with bar("measured") as progress:
            report = run_bench(options, progress)
        facts = report.facts
        say(
            f"{facts['size']} networks in {facts['precision']}, {facts['frames']} frames of {facts['voxels']} voxels; "
            f"{facts['device']}, {facts['threads']} threads, torch {facts['torch']}"
        )
        reached = (f"{most / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, most in facts["ceilings"].items())
        say(f"seconds are those {facts['seconds']}; products of large matrices reach {', '.join(reached)}")
        print_table(COLUMNS, map(cells, report.rows))
