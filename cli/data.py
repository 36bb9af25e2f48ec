"""`ss4d data`: makes training clips, imports assets as such, and lists and checks what a folder holds."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from ss4d.cli.console import bar, console, say
from ss4d.cli.exits import FAILED
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug

if TYPE_CHECKING:
    from ss4d.pipelines.training.make_records import MadeRecords

app = typer.Typer(
    name="data",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Makes, imports, lists and checks training clips.",
)

KEPT = "finished clips are kept, and the same command continues where it stopped"
HELD_OUT = "From 2147483648 on, clips are held out for evaluation; every smaller seed is to train on."

Frames = Annotated[int, typer.Option("--frames", help="Frames in a clip, at 12 a second.")]
Size = Annotated[int, typer.Option("--size", help="Side of the input frames and of the other views in pixels.")]
Views = Annotated[int, typer.Option("--views", help="Cameras around the object, besides the input's.")]
Resolution = Annotated[
    int,
    typer.Option(
        "--resolution",
        help="Cells of the voxel grid along each axis; must be the model's: 16 for tiny, 64 for the published one.",
    ),
]
GridAxes = Annotated[
    Literal["camera", "crop", "yaw", "world"],
    typer.Option(
        "--axes",
        help="What the grid's axes follow; must be the model's: camera for tiny, crop for small, world for the "
        "published one. camera: the input camera, which looks along y. crop: the same, and its crop lays out "
        "the grid. yaw: as camera, but with z upright. world: the object, its front at -y.",
    ),
]
Workers = Annotated[int | None, typer.Option("--workers", help="Processes; by default one per core.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder of clips.")]


@app.command(no_args_is_help=True)
def make(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the clips go; made if missing.")],
    clips: Annotated[int, typer.Option("--clips", help="How many.")],
    seed: Annotated[int, typer.Option("--seed", help=f"Of the first clip; the others count on. {HELD_OUT}")],
    frames: Frames = 16,
    size: Size = 128,
    views: Views = 8,
    resolution: Resolution = 16,
    axes: GridAxes = "camera",
    families: Annotated[
        str, typer.Option("--families", metavar="A,B,...", help="Only these kinds of object, in turn; by default all.")
    ] = "",
    workers: Workers = None,
    debug: Debug = False,
) -> None:
    """Makes training clips of procedural objects, with ground truth.

    Equal seeds and sizes give equal clips. Clips that are in DIR already are not made again, so the same command
    continues after an interruption, and asking for more adds to them.

    For example:

        ss4d data make clips --clips 2000 --seed 0
    """
    with explained(debug, KEPT, "the argument DIR"):
        from ss4d.pipelines.training.make_records import Sizes, make_records

        signal.signal(signal.SIGINT, signal.default_int_handler)
        with bar("clips") as progress:
            outcome = make_records(
                folder,
                num_clips=clips,
                seed=seed,
                sizes=Sizes(frames=frames, size=size, views=views, resolution=resolution, axes=axes),
                families=[name.strip() for name in families.split(",") if name.strip()],
                workers=workers,
                progress=progress,
            )
        _report(outcome, folder)
        if outcome.failed:
            raise typer.Exit(FAILED)


@app.command("import", no_args_is_help=True)
def import_(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="MESH...",
            help="Animated .glb or .gltf files, or folders with such files at any depth.",
            readable=False,  # its row in the manifest says what is wrong with a file
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the clips go; made if missing.")],
    seed: Annotated[int, typer.Option("--seed", help=f"With the mesh, decides cameras and light. {HELD_OUT}")] = 0,
    frames: Frames = 16,
    size: Size = 128,
    views: Views = 8,
    resolution: Resolution = 16,
    axes: GridAxes = "camera",
    max_triangles: Annotated[
        int, typer.Option("--max-triangles", min=1, help="A file with more, once textured ones are split, is left out.")
    ] = 2_000_000,
    max_texture: Annotated[
        int, typer.Option("--max-texture", min=1, help="A file with a texture of more pixels is left out.")
    ] = 8192 * 8192,
    max_numbers: Annotated[
        int,
        typer.Option("--max-numbers", min=1, help="A file with an array of more is left out; a vertex has three."),
    ] = 50_000_000,
    animation: Annotated[
        str | None,
        typer.Option(
            "--animation",
            metavar="NAME|INDEX|all",
            help="The animation to show; all: a clip for each that moves. By default those that move different things "
            "play together, and of others the one that moves most.",
        ),
    ] = None,
    begin: Annotated[
        float | None,
        typer.Option(
            "--from", metavar="SECONDS", help="Where in the animation the clip begins; by default, where it moves."
        ),
    ] = None,
    end: Annotated[
        float | None, typer.Option("--to", metavar="SECONDS", help="Where in the animation it ends, and begins again.")
    ] = None,
    root_motion: Annotated[
        Literal["keep", "remove"],
        typer.Option("--root-motion", help="remove: what walks away walks on the spot, and so fills the grid."),
    ] = "keep",
    workers: Workers = None,
    debug: Debug = False,
) -> None:
    """Makes training clips of your own animated objects.

    A file that cannot be used is left out; the manifest says why, and the last line how many. The exit code is 1 only
    if no file could be used.

    For example:

        ss4d data import assets/ fox.glb --out clips
    """
    with explained(debug, KEPT):
        from ss4d.pipelines.training.make_records import Sizes, import_records

        signal.signal(signal.SIGINT, signal.default_int_handler)
        with bar("files") as progress:
            outcome = import_records(
                out,
                sources,
                seed=seed,
                sizes=Sizes(frames=frames, size=size, views=views, resolution=resolution, axes=axes),
                workers=workers,
                progress=progress,
                max_triangles=max_triangles,
                max_texture=max_texture,
                max_numbers=max_numbers,
                animation=animation,
                begin=begin,
                end=end,
                in_place=root_motion == "remove",
            )
        _report(outcome, out)
        if len(outcome.failed) == len(outcome.rows):
            say("None of the files could be used.")
            raise typer.Exit(FAILED)


@app.command("list", no_args_is_help=True)
def list_(folder: Folder, debug: Debug = False) -> None:
    """Prints how many clips of each kind DIR holds, and which files could not be imported.

    For example:

        ss4d data list clips
    """
    with explained(debug, "nothing was changed"):
        from ss4d.pipelines.training.records import families, read_manifest

        signal.signal(signal.SIGINT, signal.default_int_handler)
        rows = read_manifest(folder)
        table = Table("family", "train", "held out", "failed", "still")
        for family, counts in families(rows).items():
            table.add_row(family, *(str(counts[kind]) for kind in ("train", "held_out", "failed", "still")))
        console.print(table)
        held = [row for row in rows if row.error is None]
        if held:
            first = held[0]  # all have the same sizes
            voxels = sum(row.voxels for row in held) / sum(row.frames for row in held)
            say(
                f"{len(held)} clips of {first.frames} frames and {first.views} views at {first.size} pixels, grid "
                f"{first.resolution}, {voxels:,.0f} voxels per frame, made in "
                f"{sum(row.seconds for row in held):,.0f} s of one core."
            )
        for row in rows:
            if row.error is not None:
                say(f"failed: {row.id}: {row.error}")
            elif row.still:
                say(f"still: {row.id}: nothing moves in it (motion {row.motion:.3f})")


@app.command(no_args_is_help=True)
def check(
    folder: Folder,
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete what cannot be used; the command that made it makes it again.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Reads every clip in DIR and prints those that are damaged or missing; exit code 1 if there are any.

    For example:

        ss4d data check clips --remove
    """
    with explained(debug, "nothing was changed", "the argument DIR"):
        from ss4d.pipelines.training.records import check_records, removing_check

        signal.signal(signal.SIGINT, signal.default_int_handler)
        with bar("clips") as progress:
            num_clips, bad = check_records(folder, remove=remove, progress=progress)
        for name, reason in bad.items():
            say(f"bad: {name}: {reason}")
        ending = ""
        if bad:
            ending = " The others are deleted." if remove else f" {removing_check(folder)} deletes the others."
        say(f"{num_clips - len(bad)} of {num_clips} clips are whole.{ending}")
        if bad:
            raise typer.Exit(FAILED)


def _report(outcome: "MadeRecords", folder: Path) -> None:
    """Says how many clips there are now, and how fast they were made."""
    num_good = len(outcome.rows) - len(outcome.failed)
    rate = f", {outcome.num_made / outcome.seconds:.1f} a second" if outcome.num_made else ""
    say(
        f"{num_good} of {len(outcome.rows)} clips are in {folder}: {outcome.num_made} made in {outcome.seconds:.0f} s"
        f"{rate}, {num_good - outcome.num_made} already there, {len(outcome.failed)} failed."
    )
