"""`ss4d serve`: a web page that takes videos and gives assets."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from ss4d.cli.console import console, say
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug, Device, Overrides


def serve(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="For the videos, the runs and their store; made if missing.")
    ] = Path("served"),
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="NUMBER", help="By default one that is free.")
    ] = 0,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="An address of this machine that others reach, 0.0.0.0 for all; by default none. Whoever comes needs "
            "a token, which the address that is printed has.",
        ),
    ] = None,
    config: Annotated[
        str, typer.Option("--config", metavar="tiny|ss4d|FILE.yaml", help="As of **ss4d run**.")
    ] = "tiny",
    overrides: Overrides = None,
    device: Device = "auto",
    most_mb: Annotated[
        float,
        typer.Option("--most-mb", min=0.001, max=1e6, metavar="NUMBER", help="Largest video, in MB of 2^20 bytes."),
    ] = 256,
    most_seconds: Annotated[
        float, typer.Option("--most-seconds", min=0.01, max=1e6, metavar="NUMBER", help="Longest video.")
    ] = 60,
    most_minutes: Annotated[
        float,
        typer.Option("--most-minutes", min=0.01, max=1e5, metavar="NUMBER", help="That making one asset may take."),
    ] = 60,
    most_waiting: Annotated[
        int, typer.Option("--most-waiting", min=1, max=10_000, metavar="NUMBER", help="Videos that may wait at once.")
    ] = 16,
    most_kept: Annotated[
        int, typer.Option("--most-kept", min=1, max=100_000, metavar="NUMBER", help="Videos that are kept.")
    ] = 200,
    no_open: Annotated[bool, typer.Option("--no-open", help="Only print the address; open no browser.")] = False,
    debug: Debug = False,
) -> None:
    """A web page for making assets: drop a video, click on the object, watch the stages, turn the result, download it.

    One asset at a time is made on each device; the others wait. What was handed in lies in DIR, so after Ctrl-C or a
    crash the same command goes on where it stopped.

    For example:

        ss4d serve
        ss4d serve --port 8080 --out assets --most-seconds 20
        ss4d serve --host 0.0.0.0 --port 8080 --no-open
    """
    with explained(debug, "what was handed in is kept, and the same command goes on where it stopped"):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from ss4d.pipelines.config import load_config

        load_config(config, overrides or ())  # a mistake is told before torch is imported, which takes seconds
        with console.status("starting"):
            from ss4d.pipelines.serve.access import with_token
            from ss4d.pipelines.serve.app import Limits
            from ss4d.pipelines.serve.server import Server
            from ss4d.pipelines.view.local_server import open_browser

            server = Server(
                out,
                port=port,
                host=host,
                config=config,
                overrides=overrides or (),
                device=device,
                limits=Limits(most_bytes=int(most_mb * 2**20), most_seconds=most_seconds, most_kept=most_kept),
                most_waiting=most_waiting,
                most_minutes=most_minutes,
            )
        address = with_token(server.address, server.token)
        say(f"Assets are made at {address} until Ctrl-C")
        if not no_open:
            open_browser(address)
        server.serve(lambda: say("Ending. What was handed in is kept, and the same command goes on where it stopped."))
