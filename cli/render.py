"""`ss4d render`: a film of a run's asset from any cameras."""

import signal
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.filesize import decimal

from ss4d.cli.console import bar, say
from ss4d.cli.failures import explained
from ss4d.cli.inspect import Run, place_for
from ss4d.cli.options import Debug, RunStore


def render(
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE|DIR",
            help="A .mp4, .gif or .webp, or without an ending a folder of PNG files; by default RUN/render.mp4, for "
            "bird.zip bird-render.mp4 beside it.",
        ),
    ] = None,
    cameras: Annotated[
        str,
        typer.Option(
            "--cameras",
            metavar="orbit|input|FILE.json",
            help="**orbit**: a turn around it. **input**: where it was filmed from. Or a file such as a run's "
            "cameras.json.",
        ),
    ] = "orbit",
    what: Annotated[
        Literal["color", "depth", "normals"],
        typer.Option("--what", help="**depth**: the nearer, the lighter. **normals**: which way the surface faces."),
    ] = "color",
    size: Annotated[
        int | None,
        typer.Option("--size", min=16, max=4096, metavar="PIXELS", help="From top to bottom; by default 512."),
    ] = None,
    background: Annotated[
        str,
        typer.Option("--background", metavar="COLOR", help="**white**, **gray**, **black**, **transparent**, #rrggbb."),
    ] = "white",
    beside_input: Annotated[
        bool, typer.Option("--beside-input", help="With the input's frame, cut out and cropped, to its left.")
    ] = False,
    frames: Annotated[
        int,
        typer.Option(
            "--frames",
            min=1,
            max=100_000,
            help="Least number of pictures of an orbit, which is rounded up to whole loops of the clip.",
        ),
    ] = 96,
    turns: Annotated[int, typer.Option("--turns", min=0, max=1000, help="Full turns of an orbit.")] = 1,
    pitch: Annotated[
        float, typer.Option("--pitch", min=-90, max=90, help="Degrees of an orbit above the horizon.")
    ] = 15.0,
    store: RunStore = None,
    debug: Debug = False,
) -> None:
    """Draws the asset of a run as a film, of what is stored.

    From a turn around it, from where the input was seen, or from the cameras of a file; in colors, as depth or as
    normals. docs/assets.md tells what a file of cameras holds.

    For example:

        ss4d render output/runs/bird --size 1024
        ss4d render output/runs/bird --cameras input --beside-input
        ss4d render output/runs/bird --background transparent --out bird.webp
        ss4d render output/runs/bird --what normals --out normals
    """
    with explained(debug, "the run itself was not changed"):
        from ss4d.pipelines.inspect.opened import open_run

        signal.signal(signal.SIGINT, signal.default_int_handler)
        opened = open_run(run, store)
        from ss4d.pipelines.inspect.render import Wanted, render_run  # torch, for which what is no run need not wait

        wanted = Wanted(
            cameras=cameras,
            kind=what,
            size=size,
            background=background,
            beside_input=beside_input,
            least=frames,
            turns=turns,
            pitch=pitch,
        )
        target = out or place_for(run, "render.mp4")
        with bar("pictures") as progress:
            number = render_run(opened, target, wanted, progress)
        size_of = "" if target.is_dir() else f" ({decimal(target.stat().st_size)})"
        say(f"{number} pictures: {target}{size_of}")
