"""`ss4d dataset init`, `catalog`, `failures` and `retry`: the clips of a dataset and their state."""

import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ss4d.cli.console import bar, say, to_copy
from ss4d.cli.dataset_options import Config, DatasetFolder, DatasetStore, Seed, settings_for
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug, Goals, Overrides, Store
from ss4d.cli.tables import print_table

if TYPE_CHECKING:
    from collections import Counter

    from ss4d.pipelines.dataset.opened import OpenedDataset

UNCHANGED = "nothing was changed"
LISTED = 5  # examples printed


def init(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder, searched at any depth for video files and folders of images; a pattern in quotes; or a "
            "Parquet table with a column **source** or **path**, and perhaps **id** and **tags**.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DATASET", help="The dataset's folder; made if missing.")],
    store: Store = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes; by default one per CPU core.")] = None,
    clip_timeout: Annotated[
        float,
        typer.Option("--clip-timeout", metavar="SECONDS", help="List a clip as unreadable that takes longer to read."),
    ] = 300.0,
    debug: Debug = False,
) -> None:
    """Lists clips in a dataset's manifest: id, source, SHA-256, frames, size, rate, tags.

    A file that cannot be read is listed with the reason. Given again, the command adds new clips and reads changed
    ones; clips keep their ids. The result is a Parquet table, DATASET/manifest.parquet.

    In a folder, a clip is a video file, or a folder of images that has no videos. To make each still image a clip of
    its own, give a pattern.

    For example:

        ss4d dataset init videos/ --out birds
        ss4d dataset init "videos/**/*.png" --out stills
        ss4d dataset init clips.parquet --out birds --store s3://bucket/birds
    """
    with explained(debug, "what was read is kept, and the same command resumes"):
        from ss4d.pipelines.dataset.manifest import init_dataset

        signal.signal(signal.SIGINT, signal.default_int_handler)
        with bar("clips") as progress:
            scan = init_dataset(out, source, store=store, workers=workers, progress=progress, clip_seconds=clip_timeout)
        for row in scan.unreadable[:LISTED]:
            say(f"cannot be read: {row.id}: {row.error}")
        if len(scan.unreadable) > LISTED:
            say(f"... and {len(scan.unreadable) - LISTED} more, see the column `error`")
        if scan.skipped:
            kinds = ", ".join(f"{number} {kind}" for kind, number in scan.skipped.items())
            say(f"Skipped files that are not videos: {kinds}.")
        say(
            f"{len(scan.rows)} clips are in {out}: {len(scan.added)} added, {len(scan.changed)} changed, "
            f"{len(scan.vanished)} vanished, {len(scan.unreadable)} that cannot be read."
        )
        say(f"Next: {_command('run', out, scan.dataset.words())}")


class _WriteByDefault(TyperGroup):
    """A group for which `catalog DATASET` means `catalog write DATASET`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *self.get_help_option_names(ctx)):
            args = ["write", *args]
        return super().parse_args(ctx, args)


catalog_app = typer.Typer(
    name="catalog",
    cls=_WriteByDefault,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Writes the state of each clip at each stage as a table, **catalog DATASET**; or makes it anew from the "
    "store, **catalog rebuild DATASET**.",
)


@catalog_app.command(no_args_is_help=True)
def write(
    dataset: DatasetFolder,
    config: Config = None,
    overrides: Overrides = None,
    goals: Goals = None,
    seed: Seed = None,
    debug: Debug = False,
) -> None:
    """Writes DATASET/catalog.parquet, a row for each clip and stage, and prints how many are in which state.

    Columns: id, stage, state, key of the artifact, seconds, peak_memory in bytes, attempts, error, message, cause,
    worker, one for each measure, versions, seed; **docs/datasets.md** lists them. It is about one configuration.
    **ss4d dataset run** writes it as well, at its end, but not with **--shard**.

    For example:

        ss4d dataset catalog birds
        ss4d dataset catalog birds --set slat.sampler.steps=12
    """
    with (
        explained(debug, UNCHANGED, "the argument DATASET"),
        opened_for(dataset, config, overrides, goals, seed) as opened,
    ):
        from ss4d.pipelines.dataset.catalog import write_catalog

        _print_states(write_catalog(opened))
        say(f"Wrote {opened.dataset.catalog}.")


@catalog_app.command(no_args_is_help=True)
def rebuild(
    dataset: DatasetFolder,
    config: Config = None,
    overrides: Overrides = None,
    goals: Goals = None,
    seed: Seed = None,
    store: DatasetStore = None,
    debug: Debug = False,
) -> None:
    """Makes index and catalog anew from the store, and from the events if there are any.

    Needed after artifacts were deleted by hand, or when index.sqlite is lost or damaged.
    """
    with (
        explained(debug, UNCHANGED, "the argument DATASET"),
        opened_for(dataset, config, overrides, goals, seed, store) as opened,
    ):
        from ss4d.pipelines.dataset.catalog import write_catalog
        from ss4d.pipelines.dataset.rebuild import rebuild_index

        with bar("artifacts") as progress:
            found = rebuild_index(opened, progress)
        _print_states(write_catalog(opened))
        say(f"{found.artifacts.total()} artifacts of {found.clips} clips are in {opened.dataset.store}.")
        if found.unlisted:
            say(f"{found.unlisted} artifacts belong to inputs that are not in the manifest.")
        if found.damaged:
            say(f"{found.damaged.total()} are damaged: ss4d verify {to_copy(opened.dataset.store)} --repair")
        say(f"Wrote {opened.dataset.catalog}.")


def failures(
    dataset: DatasetFolder,
    config: Config = None,
    overrides: Overrides = None,
    goals: Goals = None,
    seed: Seed = None,
    debug: Debug = False,
) -> None:
    """Prints what failed, by cause and error, with the number of clips and a few of them.

    Causes: **input** is bad and is never tried again; **transient** is tried again by itself; **killed** took too long,
    took too much memory or ended its worker; **numbers** gave what is not a number, of damaged weights or an overflow;
    **program** is a defect of this program or of a package. The log of a clip is DATASET/logs/ID.log.
    """
    with (
        explained(debug, UNCHANGED, "the argument DATASET"),
        opened_for(dataset, config, overrides, goals, seed) as opened,
    ):
        from ss4d.pipelines.dataset.failures import groups, open_failures

        failed = open_failures(opened)
        found = groups(opened.rows, failed)
        if not found:
            say("Nothing failed.")
            return
        print_table(
            ("cause", "error", "stage", "clips", "examples", "message"),
            [
                (
                    group.cause,
                    group.error,
                    group.stage or "-",
                    str(len(group.clips)),
                    group.examples,
                    group.message.splitlines()[0],
                )
                for group in found
            ],
        )
        if failed:
            say(f"To run them again: {_command('retry', dataset)}")


def retry(
    dataset: DatasetFolder,
    clips: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Only these clips.")] = None,
    cause: Annotated[
        str | None,
        typer.Option("--cause", metavar="input|transient|killed|program", help="Only what failed for this cause."),
    ] = None,
    error: Annotated[
        str | None, typer.Option("--error", metavar="NAME", help="Only what failed with this error.")
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    goals: Goals = None,
    seed: Seed = None,
    debug: Debug = False,
) -> None:
    """Clears failures, so that the next run tries those clips again.

    The number of attempts stays in the catalog. Without an ID or another choice, all failures are cleared.

    For example:

        ss4d dataset retry birds --cause killed
        ss4d dataset retry birds crow owl
    """
    with (
        explained(debug, UNCHANGED, "the argument DATASET"),
        opened_for(dataset, config, overrides, goals, seed) as opened,
    ):
        from ss4d.pipelines.dataset.failures import clear_failures, open_failures

        num_failed = len(open_failures(opened))
        cleared = clear_failures(opened, clips=clips or (), cause=cause, error=error)
        num_clips = len({failure.clip for failure in cleared})
        say(f"Cleared {len(cleared)} of {num_failed} failures, of {num_clips} clips.")
        if cleared:
            say(f"Next: {_command('run', dataset, [*opened.settings.words(), *opened.dataset.words()])}")


@contextmanager
def opened_for(
    folder: Path,
    config: str | None,
    overrides: list[str] | None,
    goals: list[str] | None,
    seed: int | None,
    store: str | None = None,
) -> "Iterator[OpenedDataset]":
    """Opens a dataset for the configuration that a command means."""
    from ss4d.pipelines.dataset.layout import open_dataset
    from ss4d.pipelines.dataset.opened import open_for

    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open_for(open_dataset(folder, store), settings_for(folder, config, overrides, goals, seed)) as opened:
        yield opened


def _print_states(counts: "Counter[tuple[str, str]]") -> None:
    """A line for each stage: how many clips are in which state."""
    stages, states = (list(dict.fromkeys(name[place] for name in counts)) for place in (0, 1))
    rows = [(stage or "-", *(str(counts[stage, state]) for state in states)) for stage in stages]
    print_table(("stage", *states), rows)


def _command(name: str, dataset: Path, words: Sequence[str] = ()) -> str:
    """A command for the user to copy."""
    return " ".join(["ss4d", "dataset", name, to_copy(dataset), *map(shlex.quote, words)])
