"""The `ss4d` command: parses, calls one function of the pipelines, and prints."""

import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ss4d import __version__
from ss4d.cli import data, dataset
from ss4d.cli.bench import bench
from ss4d.cli.console import ConsoleReporter
from ss4d.cli.diff import diff
from ss4d.cli.doctor import doctor
from ss4d.cli.download import download
from ss4d.cli.evaluate import evaluate
from ss4d.cli.export import export
from ss4d.cli.failures import explained
from ss4d.cli.inspect import inspect, report
from ss4d.cli.options import (
    Debug,
    Device,
    End,
    Force,
    Fps,
    FromStage,
    Goals,
    Mask,
    Memory,
    Name,
    Only,
    Out,
    Overrides,
    Start,
    Store,
)
from ss4d.cli.plan import plan
from ss4d.cli.render import render
from ss4d.cli.serve import serve
from ss4d.cli.stages import stages
from ss4d.cli.store import gc, pack, verify
from ss4d.cli.train import train
from ss4d.cli.view import view
from ss4d.pipelines.seed import DEFAULT_SEED

app = typer.Typer(
    name="ss4d",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Turns a video of an object into a 4D asset: one set of 3D Gaussians per frame, seen from any side.

Start with **ss4d run CLIP.mp4**; **ss4d run --help** is its manual.""",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ss4d {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """What is said before the name of a command."""


def run(
    source: Annotated[
        str,  # not a path, in which ./- is the same as -
        typer.Argument(
            metavar="INPUT",
            help="A video file, an animated image, or a folder or archive of images, with or without alpha; - is a "
            "file that comes through standard input.",
            allow_dash=True,
            readable=False,  # the run itself says in one sentence what is wrong with it
        ),
    ],
    out: Out = Path("output"),
    config: Annotated[
        str,
        typer.Option(
            "--config",
            metavar="tiny|ss4d|FILE.yaml",
            help="**tiny**: the small bundled model, for a CPU. **ss4d**: the published weights, for a GPU. Or a file.",
        ),
    ] = "tiny",
    overrides: Overrides = None,
    goals: Goals = None,
    start: Start = None,
    end: End = None,
    fps: Fps = None,
    mask: Mask = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Where the random numbers start; same seed, same asset.")
    ] = DEFAULT_SEED,
    device: Device = "auto",
    memory: Memory = None,
    name: Name = None,
    engine: Annotated[
        Literal["auto", "prefect", "direct"],
        typer.Option(
            "--engine",
            help="**prefect** runs the stages as tasks of a flow, **direct** calls them one after the other. **auto** "
            "is prefect where PREFECT_API_URL or the active Prefect profile names a server, whose UI shows the run.",
        ),
    ] = "auto",
    store: Store = None,
    from_stage: FromStage = None,
    only: Only = None,
    force: Force = None,
    debug: Debug = False,
) -> None:
    """Makes the 4D asset of one clip.

    The clip goes through six stages: **segmentation** cuts the object out, **conditioning** turns each frame into image
    tokens, **sparse_structure** finds the occupied voxels, **slat** gives each voxel a structured latent, **decoding**
    turns them into Gaussians, **export** writes the files. Each leaves its result in DIR/store; what is there
    already is not computed again, so the same command goes on after an interruption and is instant when all is done.

    Packages can add stages; **--goal** asks for their results, and for those of any stage.

    Results, in DIR/runs/NAME: `frames/frame0001.ply` and so on (one per frame, standard 3DGS layout), `turntable.mp4`,
    `cameras.json`, and `run.json`, the record of configuration, seed, versions, and what each stage cost.

    Exit codes: 0 done, 1 something you can mend (one sentence says what), 2 wrong usage, 70 a defect of the program,
    130 interrupted, 143 terminated.

    For example:

        ss4d run clip.mp4
        ss4d run frames/ --out results --seed 7
        ss4d run clip.mp4 --set slat.sampler.steps=25
        ss4d run film.mp4 --start 12s --end 14.5s --fps 12
        ss4d run clip.mp4 --from slat
        ss4d run clip.mp4 --force slat --store s3://bucket/prefix
        ss4d run clip.mp4 --config ss4d --device cuda
    """
    with explained(debug, "finished stages are kept, and the same command goes on where it stopped"):
        # Not at the top: torch takes seconds to import, and --help should not.
        from ss4d.pipelines.config import as_overrides, with_frames
        from ss4d.pipelines.plan import Wish
        from ss4d.pipelines.prepare import RunOptions
        from ss4d.pipelines.run import run_clip
        from ss4d.pipelines.standard_input import NAME as STDIN
        from ss4d.pipelines.standard_input import keep_standard_input

        signal.signal(signal.SIGINT, signal.default_int_handler)
        path = Path(source)
        if source == "-":
            path, name = keep_standard_input(sys.stdin.buffer, out), name or STDIN
        options = RunOptions(
            source=path,
            out=out,
            config=config,
            overrides=with_frames(as_overrides(overrides, goals, memory), start, end, fps, mask),
            seed=seed,
            device=device,
            name=name,
            engine=engine,
            store=store,
            wish=Wish(from_stage=from_stage, only=only, force=force or ()),
        )
        with ConsoleReporter() as reporter:
            folder = run_clip(options, reporter)
        if only:
            reporter.message(f"\nDone: the result of {only} is stored. Without --only the run goes on from there.")
        else:
            reporter.results(folder)


def config(
    name: Annotated[str, typer.Argument(metavar="tiny|ss4d", help="Which of the bundled configurations.")] = "tiny",
) -> None:
    """Prints a bundled configuration: every key there is, its value, and what it means.

    Redirect it to a file to start one of your own: **ss4d config tiny > mine.yaml**, then **--config mine.yaml**.
    """
    with explained(False, "nothing was changed"):
        from ss4d.pipelines.config import config_text

        signal.signal(signal.SIGINT, signal.default_int_handler)
        typer.echo(config_text(name), nl=False)


# In the order in which `ss4d --help` lists them.
app.command(no_args_is_help=True)(run)
app.command(no_args_is_help=True)(plan)
app.command(no_args_is_help=True)(inspect)
app.command(no_args_is_help=True)(report)
app.command(no_args_is_help=True)(diff)
app.command(no_args_is_help=True)(view)
app.command(no_args_is_help=True)(export)
app.command(no_args_is_help=True)(render)
app.command()(serve)
app.command()(stages)
app.command()(config)
app.command(no_args_is_help=True)(download)
app.command(no_args_is_help=True)(verify)
app.command(no_args_is_help=True)(gc)
app.command(no_args_is_help=True)(pack)
app.command(no_args_is_help=True)(train)
app.command("eval", no_args_is_help=True)(evaluate)
app.command()(doctor)
app.command()(bench)
app.add_typer(dataset.app)
app.add_typer(data.app)
