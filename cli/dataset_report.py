"""`ss4d dataset report`: the results of a dataset as one page for a browser."""

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from ss4d.cli.console import bar, say
from ss4d.cli.dataset_data import opened_for
from ss4d.cli.dataset_options import Config, DatasetFolder, DatasetStore, Seed
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug, Goals, Overrides


def report(
    dataset: DatasetFolder,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.html", help="The page; by default DATASET/report.html."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="SQL", help="Only clips for which this holds, as for **ss4d dataset run**."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes that draw; by default one per CPU core.")
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    goals: Goals = None,
    seed: Seed = None,
    store: DatasetStore = None,
    debug: Debug = False,
) -> None:
    """Makes an HTML page of a dataset's results, with a card for each clip.

    Cards show the asset from several sides, or else the segmented object of the input. They can be searched, filtered
    by state, cause and tag, and sorted by costs and measures; failures are listed by cause. A card opens to the clip's
    numbers, its log, the keys of its artifacts, and commands to inspect it.

    The page needs no network. If there are many pictures, they are in a folder beside the page, to be kept with it.
    They are drawn once; a later report draws new ones only.

    For example:

        ss4d dataset report birds
        ss4d dataset report birds --where "state = 'failed'" --out failed.html
    """
    kept = "pictures that were drawn are kept, and the same command resumes"
    with explained(debug, kept), opened_for(dataset, config, overrides, goals, seed, store) as opened:
        from ss4d.pipelines.dataset.report.report import write_report

        path = out or opened.dataset.folder / "report.html"
        with bar("pictures") as progress:
            made = write_report(opened, path, where=where, workers=workers, progress=progress)
        if made.problems:
            say(f"{made.problems} pictures could not be drawn; their cards say why.")
        if made.folder is not None:
            size = decimal(made.folder_bytes)
            say(f"Pictures: {made.folder} ({made.pictures} files, {size}); keep them with the page.")
        say(f"Page: {made.path} ({made.clips} clips, {decimal(made.bytes)})")
