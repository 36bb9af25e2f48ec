"""`ss4d export`: a finished run's asset in more formats."""

import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from ss4d.cli.console import MEANINGS, bar, say
from ss4d.cli.exits import FAILED
from ss4d.cli.failures import explained
from ss4d.cli.inspect import Run, place_for
from ss4d.cli.options import Debug, Formats, MaxGaussians, RunStore


def export(
    run: Run,
    formats: Formats,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Where the files go; by default RUN; for bird.zip bird-export beside it."
        ),
    ] = None,
    max_gaussians: MaxGaussians = None,
    store: RunStore = None,
    debug: Debug = False,
) -> None:
    """Writes the asset of a finished run in more formats, of what is stored: nothing is computed again.

    **ply**, **compressed_ply** and **spz** are a file a frame; **glb** (of meshes, which the run must have),
    **gaussian_glb**, **usd**, **4d.zip** and **html** hold the whole clip. docs/assets.md tells what opens them. In RUN
    they stay as long as the asset is the same: the next run of the name that makes another one removes them, and says
    so. What cannot be made is told, and the other formats are made all the same.

    For example:

        ss4d export output/runs/bird --formats html
        ss4d export output/runs/bird --formats spz,usd --out bird-files
        ss4d export output/runs/bird --formats html --max-gaussians 20000
    """
    with explained(debug, "the run itself was not changed"):
        from ss4d.pipelines.chosen_formats import chosen_formats
        from ss4d.pipelines.inspect.opened import open_run

        signal.signal(signal.SIGINT, signal.default_int_handler)
        chosen, opened = chosen_formats(formats), open_run(run, store)
        from ss4d.pipelines.inspect.add_formats import add_formats  # torch: what is refused before need not wait for it

        folder = out or (run if run.is_dir() else place_for(run, "export"))
        with bar("frames") as progress:
            added = add_formats(opened, chosen, folder, max_gaussians=max_gaussians, progress=progress)
        files = [file for names in added.files.values() for file in names]
        for name in dict.fromkeys(name.partition("/")[0] for name in files):
            mine = [file for file in files if file.partition("/")[0] == name]
            size = decimal(sum((folder / file).stat().st_size for file in mine))
            count = f"{len(mine)} files" if len(mine) > 1 else "1 file"
            say(f"{folder / name} ({size}): {MEANINGS[name].format(files=count)}")
        for name, reason in added.refused.items():
            say(f"ss4d: {name} is not made: {reason}")
        if added.refused:
            raise typer.Exit(FAILED)
