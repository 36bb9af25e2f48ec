"""`ss4d dataset export`: the finished assets as plain files."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ss4d.cli.console import bar, say, to_copy
from ss4d.cli.dataset_data import LISTED, opened_for
from ss4d.cli.dataset_options import Config, DatasetFolder, DatasetStore, Seed
from ss4d.cli.exits import FAILED
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug, Goals, MaxGaussians, MoreFormats, Overrides


def export(
    dataset: DatasetFolder,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the assets; made if missing.")],
    config: Config = None,
    overrides: Overrides = None,
    goals: Goals = None,
    seed: Seed = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="SQL", help="Only clips for which this holds, as for **ss4d dataset run**."),
    ] = None,
    copies: Annotated[
        bool, typer.Option("--copy", help="Copy the files, to edit them or move them elsewhere.")
    ] = False,
    store: DatasetStore = None,
    formats: MoreFormats = None,
    max_gaussians: MaxGaussians = None,
    debug: Debug = False,
) -> None:
    """Puts the asset of each finished clip into DIR/ID: its PLY files, turntable and cameras.

    DIR/ID/asset.json says what it was made from. The files are hard links into the store where that is a folder on the
    same disk, so they take no space and must not be written into; otherwise, and with --copy, they are copies, checked.

    **--formats** writes the assets in more formats, too, of what is stored: nothing is computed again. Those are plain
    files; docs/assets.md tells what opens them.

    The same command again adds clips finished since, and replaces assets made with other parameters.

    For example:

        ss4d dataset export birds assets
        ss4d dataset export birds owls --where "tags like '%owl%'"
        ss4d dataset export birds pages --formats html,spz
    """
    kept = "what is exported is complete, and the same command resumes"
    with (
        explained(debug, kept, "the argument DIR"),
        opened_for(dataset, config, overrides, goals, seed, store) as opened,
    ):
        from ss4d.pipelines.chosen_formats import chosen_formats
        from ss4d.pipelines.dataset.export import More, export_assets

        more = More(chosen_formats(formats) if formats else (), max_gaussians)
        with bar("clips") as progress:
            done = export_assets(opened, folder, where=where, copies=copies, progress=progress, more=more)
        for clip, reason in list(done.damaged.items())[:LISTED]:
            say(f"cannot be exported: {clip}: {reason}")
        if len(done.damaged) > LISTED:
            say(f"... and {len(done.damaged) - LISTED} more")
        say(f"{done.made + done.kept} assets are in {folder}: {done.made} exported, {done.kept} were there.")
        if done.unfinished:
            say(f"{done.unfinished} of the chosen clips {'has' if done.unfinished == 1 else 'have'} none yet.")
        if done.damaged:
            kept_at, words = to_copy(opened.dataset.store), shlex.join(opened.dataset.words())
            say(
                f"{len(done.damaged)} are damaged or gone: `ss4d verify {kept_at} --repair`, then `"
                f"{' '.join(filter(None, ('ss4d dataset catalog rebuild', to_copy(dataset), words)))}`, and the next "
                "run makes them again."
            )
            raise typer.Exit(FAILED)
