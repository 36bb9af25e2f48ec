"""`ss4d view`: a run's asset in a browser, to turn and to play."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from ss4d.cli.console import console, say
from ss4d.cli.failures import explained
from ss4d.cli.inspect import Run
from ss4d.cli.options import Debug, RunStore


def view(
    run: Run,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="NUMBER", help="By default one that is free.")
    ] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Only print the address; open no browser.")] = False,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="What each stage made instead, also while the run goes on; needs the package viser."
        ),
    ] = False,
    store: RunStore = None,
    debug: Debug = False,
) -> None:
    """Shows the asset of a run in a browser, beside its input: to turn, to zoom, to play.

    The page is served on this machine alone, of what is stored, until Ctrl-C; frames are made when they are looked at.
    **ss4d export RUN --formats html** writes the same page as one file, to hand on.

    With **--live** voxels, latents in colors, Gaussians and meshes are layers of one scene over time; of a run that
    goes on they appear as they are stored.

    For example:

        ss4d view output/runs/bird
        ss4d view output/runs/bird --port 8080 --no-open
        ss4d view output/runs/bird --live
    """
    with explained(debug, "nothing was changed"):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        (_show_layers if live else _show_asset)(run, store, port, not no_open)


def _show_asset(run: Path, store: str | None, port: int, opens: bool) -> None:
    with console.status("opening the run"):
        from ss4d.pipelines.inspect.opened import open_run
        from ss4d.pipelines.view.local_server import address_of, listen, serve

        opened, listener = open_run(run, store), listen(port)
        from ss4d.pipelines.view.run_view import view_app, viewed_scene  # torch, for which refusals need not wait

        app = view_app(viewed_scene(opened))
    _tell(run, address_of(listener), opens)
    serve(app, listener)


def _show_layers(run: Path, store: str | None, port: int, opens: bool) -> None:
    with console.status("opening the run"):
        from ss4d.pipelines.view.viser_package import live_view

        shown = live_view(run, store, port, say)
    _tell(run, shown.address, opens)
    shown.serve()


def _tell(run: Path, address: str, opens: bool) -> None:
    from ss4d.pipelines.view.local_server import open_browser

    say(f"{run} is shown at {address} until Ctrl-C")
    if opens:
        open_browser(address)
