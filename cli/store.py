"""`ss4d verify`, `ss4d gc` and `ss4d pack`: check a store, free its space, and take a run out of it."""

import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from ss4d.cli.console import bar, output, say
from ss4d.cli.exits import FAILED
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug, RunStore

StoreArgument = Annotated[
    str, typer.Argument(metavar="STORE", help="A folder such as output/store, or a URL such as s3://bucket/prefix.")
]


def verify(
    store: StoreArgument,
    repair: Annotated[
        bool, typer.Option("--repair", help="Delete what is damaged; the next run makes it again.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Checks every artifact in a store, to the byte, and prints those that are damaged; exit code 1 if there are any.

    Each one must have its completion mark and exactly the files it was committed with; every file is read and compared
    with its checksum, every chunk is decoded. Also checks a `.zip` file that **ss4d pack** wrote.

    For example:

        ss4d verify output/store
        ss4d verify s3://bucket/prefix --repair
    """
    with explained(debug, "nothing was changed", "the argument STORE"):
        from ss4d.pipelines.store.housekeeping import verify_store

        signal.signal(signal.SIGINT, signal.default_int_handler)
        with bar("artifacts") as progress:
            findings = verify_store(store, repair=repair, progress=progress)
        for ref, problems in findings.damaged.items():
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            say(f"damaged: {ref}: {problems[0]}{more}")
        for ref, origin in findings.suspect.items():
            say(f"damaged: {ref}: it may have been made from the damaged content of {origin}")
        for sentence in findings.unreadable.values():
            say(f"not checked: {sentence}")
        for name in findings.unexpected:
            say(f"unexpected: {name} is no artifact; it is left alone")
        num_bad = len(findings.damaged) + len(findings.suspect) + len(findings.unreadable)
        ending = " The damaged ones are deleted." if repair and findings.damaged else ""
        say(
            f"{findings.num_artifacts - num_bad} of {findings.num_artifacts} artifacts are whole, "
            f"{decimal(findings.num_bytes)} read.{ending}"
        )
        if num_bad:
            raise typer.Exit(FAILED)


def gc(
    store: StoreArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would go, and delete nothing.")] = False,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            "--drop",
            metavar="STAGE",
            help="Free this stage's artifacts even if runs refer to them; **tokens** are the image tokens of "
            "conditioning. Repeatable.",
        ),
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--runs",
            metavar="DIR",
            help="A further folder of runs, or a dataset, that uses this store; those beside the store, the "
            "dataset that it lies in, and those noted in it are read anyway. Repeatable.",
        ),
    ] = None,
    forget: Annotated[
        list[str] | None,
        typer.Option(
            "--forget",
            metavar="DIR",
            help="A folder of runs, or a dataset, that is noted in the store and is gone, as DIR or HOST:DIR; or a "
            "pattern in quotes. Repeatable.",
        ),
    ] = None,
    min_age: Annotated[
        float,
        typer.Option(
            "--min-age",
            metavar="HOURS",
            min=0,
            help="Keep what was made within so many hours, in use or not.",
        ),
    ] = 24,
    debug: Debug = False,
) -> None:
    """Deletes the artifacts that no run refers to.

    A run refers to the artifacts that its `run.json` lists, from its start until another run takes its name; delete a
    run's folder to let its artifacts go. A dataset refers to the results of its last launch, and to those of launches
    still in progress. Both note in the store what they need, so that what other machines need stays, too, until
    **--forget** names it. If a record that left no note cannot be read, nothing is deleted. Unfinished artifacts of
    processes that died go after a week without a change. A run in progress loses nothing, not even with --drop.

    For example:

        ss4d gc output/store --dry-run
        ss4d gc output/store --drop tokens
        ss4d gc s3://bucket/prefix --runs output/runs
    """
    with explained(debug, "what is deleted stays deleted, everything else is whole", "the argument STORE"):
        from ss4d.pipelines.store.housekeeping import collect

        signal.signal(signal.SIGINT, signal.default_int_handler)
        with bar("artifacts") as progress:
            sorting = collect(
                store,
                runs=runs or (),
                forget=forget or (),
                drop=drop or (),
                min_age=min_age * 3600,
                dry_run=dry_run,
                progress=progress,
            )
        for sentence in sorting.doubts:
            say(f"Note: {sentence}.")
        for unused in sorting.unused:
            output(f"{decimal(unused.size):>10}  {unused.ref}  {unused.reason}")
        for name, size in sorting.abandoned.items():
            output(f"{decimal(size):>10}  {name}  unfinished, and abandoned")
        freed = sum(unused.size for unused in sorting.unused) + sum(sorting.abandoned.values())
        say(f"{'Would free' if dry_run else 'Freed'} {decimal(freed)} of {len(sorting.unused)} artifacts.")
        say(f"Kept: {decimal(sum(sorting.kept.values()))} of {len(sorting.kept)} artifacts in use.")
        if sorting.recent:
            total = decimal(sum(sorting.recent.values()))
            say(f"Kept: {total} of {len(sorting.recent)} artifacts made within {min_age:g} hours (--min-age).")


def pack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, such as output/runs/bird.")],
    target: Annotated[Path, typer.Argument(metavar="FILE.zip", help="Where to write; replaced if it is there.")],
    store: RunStore = None,
    debug: Debug = False,
) -> None:
    """Packs a run into one zip file: its record, and the artifacts of all its stages that are stored.

    The file can be read as it is: by **ss4d inspect**, **report**, **diff** and **verify**, and from Python. Unpacked,
    it is an output folder like any other: the files of the asset lie in `store/export/`, and **ss4d run** continues
    from there.

    For example:

        ss4d pack output/runs/bird bird.zip
    """
    with explained(debug, "nothing was written", "the argument FILE.zip"):
        from ss4d.pipelines.store.housekeeping import pack_run

        signal.signal(signal.SIGINT, signal.default_int_handler)
        with bar("stages") as progress:
            packed = pack_run(run, target, progress, store)
        for stage, size in packed.sizes.items():
            say(f"{decimal(size):>10}  {stage}")
        if packed.left_out:
            say(f"Left out, as they are not stored: {', '.join(packed.left_out)}.")
        say(f"Packed {run} into {target}: {decimal(target.stat().st_size)}.")
