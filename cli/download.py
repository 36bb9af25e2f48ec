"""`ss4d download`: networks of others, for segmentation."""

import signal
from typing import Annotated, Literal

import typer

from ss4d.cli.console import output
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug


def download(
    name: Annotated[Literal["birefnet", "sam2"], typer.Argument(metavar="birefnet|sam2", help="Which network.")],
    debug: Debug = False,
) -> None:
    """Fetches a network of others for segmentation, which no run ever does by itself.

    Prints what it is, its license, where it comes from and its SHA-256 before anything is fetched; the file must have
    that. It lies in the cache of the Hugging Face hub's package, with whose settings mirrors and tokens are chosen.

    For example:

        ss4d download sam2
        ss4d download birefnet
    """
    with explained(debug, "nothing was changed"):
        from ss4d.pipelines.downloads import download as fetch

        signal.signal(signal.SIGINT, signal.default_int_handler)
        output(f"here     {fetch(name, output)}")
