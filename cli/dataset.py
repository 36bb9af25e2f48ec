"""`ss4d dataset`: many clips at once, from a manifest to a catalog."""

import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ss4d.cli.console import output, say, to_copy
from ss4d.cli.dataset_data import catalog_app, failures, init, retry
from ss4d.cli.dataset_export import export
from ss4d.cli.dataset_options import (
    ClipTimeout,
    Config,
    DatasetFolder,
    DatasetStore,
    Lanes,
    Memory,
    Retries,
    Seed,
    Where,
    settings_for,
)
from ss4d.cli.dataset_report import report
from ss4d.cli.dataset_submit import submit
from ss4d.cli.dataset_view import dataset_view, summary
from ss4d.cli.exits import FAILED
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug, Device, Goals, Overrides
from ss4d.cli.tables import print_table

if TYPE_CHECKING:
    from ss4d.pipelines.dataset.hours import Work
    from ss4d.pipelines.dataset.keys import Settings
    from ss4d.pipelines.dataset.launch import Result
    from ss4d.pipelines.dataset.plan import DatasetPlan

app = typer.Typer(
    name="dataset",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Makes the 4D assets of many clips: plans, runs, resumes, lists failures.",
)

ELSEWHERE = "`ss4d dataset init --store`"

Shard = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Only the I-th of N parts; new clips do not move others between parts."
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="K", min=1, help="Only the first K of those clips.")]


def run(
    dataset: DatasetFolder,
    config: Config = None,
    overrides: Overrides = None,
    goals: Goals = None,
    seed: Seed = None,
    device: Device = "auto",
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes; by default one per GPU, or one per CPU core.")
    ] = None,
    lanes: Lanes = 2,
    where: Where = None,
    shard: Shard = None,
    limit: Limit = None,
    clip_timeout: ClipTimeout = None,
    memory: Memory = None,
    retries: Retries = 3,
    max_failure_ratio: Annotated[
        float,
        typer.Option(
            "--max-failure-ratio", metavar="R", help="Stop if more than this share of 20 clips or more fails."
        ),
    ] = 0.5,
    store: DatasetStore = None,
    debug: Debug = False,
) -> None:
    """Makes the 4D assets of the clips that have none yet.

    Workers load the networks once, where there is room, and then run clip after clip. Stored artifacts are reused,
    so the same command resumes an interrupted run, and is instant when all is done. A clip that fails is recorded
    with its reason, and the run continues: bad input is not tried again, transient errors are, and a clip that
    twice took too long, took too much memory or ended its worker is given up. **ss4d dataset failures** lists them,
    **retry** has them run again.

    Ctrl-C lets clips in progress finish their current stage; a second one abandons them.

    Exit codes: 0 done, even if clips failed; 1 something you can repair, such as too many failures; otherwise as
    **ss4d run**.

    For example:

        ss4d dataset run birds --config ss4d --device cuda
        ss4d dataset run birds --workers 2 --clip-timeout 600 --memory 6G
        ss4d dataset run birds --shard 2/8
        ss4d dataset run birds --where "tags like '%owl%'" --limit 100
    """
    command = shlex.join(["ss4d", *sys.argv[1:]])
    with explained(debug, f"what is finished is kept, and the same command resumes it: {command}", ELSEWHERE):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        settings = settings_for(dataset, config, overrides, goals, seed)
        # Not at the top: torch takes seconds to import, and neither --help nor a wrong setting should.
        from ss4d.pipelines.dataset.launch import DatasetOptions, run_dataset
        from ss4d.pipelines.dataset.select import Choice
        from ss4d.pipelines.dataset.workers.limits import Limits, parse_size
        from ss4d.pipelines.dataset.workers.policy import Policy

        options = DatasetOptions(
            folder=dataset,
            settings=settings,
            choice=Choice(where=where, shard=shard, limit=limit),
            device=device,
            workers=workers,
            lanes=lanes,
            policy=Policy(retries=retries, max_failure_ratio=max_failure_ratio),
            limits=Limits(clip_seconds=clip_timeout, worker_bytes=parse_size(memory) if memory else None),
            command=command,
            store=store,
        )
        say(_meant(options.settings))
        with dataset_view() as view:
            result = run_dataset(options, view)
        _tell(result, dataset)


def plan(
    dataset: DatasetFolder,
    config: Config = None,
    overrides: Overrides = None,
    goals: Goals = None,
    seed: Seed = None,
    where: Where = None,
    shard: Shard = None,
    limit: Limit = None,
    store: DatasetStore = None,
    debug: Debug = False,
) -> None:
    """Shows for how many clips **ss4d dataset run** would compute which stages, and why; computes nothing.

    For example:

        ss4d dataset plan birds --set slat.sampler.steps=25
    """
    with explained(debug, "nothing was changed"):
        settings = settings_for(dataset, config, overrides, goals, seed)
        from ss4d.pipelines.dataset.launch import DatasetOptions, plan_dataset, planned_work
        from ss4d.pipelines.dataset.select import Choice

        signal.signal(signal.SIGINT, signal.default_int_handler)
        options = DatasetOptions(
            folder=dataset,
            settings=settings,
            choice=Choice(where=where, shard=shard, limit=limit),
            store=store,
        )
        output(_meant(options.settings))
        plan = plan_dataset(options)
        _print_plan(plan)
        if plan.todo:
            _print_work(planned_work(options, plan))


def _meant(settings: "Settings") -> str:
    return f"Configuration: {', '.join([settings.configuration, *settings.overrides])}; seed {settings.seed}."


def _tell(result: "Result", dataset: Path) -> None:
    """Prints the result of a run; ends the command as the run ended."""
    ending = result.ending
    for text in summary(result.plan, ending.snapshot if ending else None):
        say(text)
    if ending is None:
        say("Nothing is left to do.")
        return
    if ending.snapshot.failed:
        say(f"Why: ss4d dataset failures {to_copy(dataset)}")
    if ending.snapshot.state == "interrupted":
        raise KeyboardInterrupt
    if ending.reason:
        say(f"ss4d: {ending.reason}")
        raise typer.Exit(FAILED)


def _print_plan(plan: "DatasetPlan") -> None:
    rows = [(stage.stage, str(stage.run), str(stage.reuse), str(stage.skip), stage.why) for stage in plan.stages]
    print_table(("stage", "run", "reuse", "not needed", "why"), rows)
    for text in summary(plan, None):
        output(text)
    total = sum(stage.run for stage in plan.stages)
    output(f"{len(plan.todo)} clips have something to do: {total} stages in all.")


def _print_work(work: "Work") -> None:
    """Hours, and where they are from."""
    from ss4d.pipelines.durations import said_duration

    sources = (
        ("from what finished clips took", work.measured),
        ("estimated from their arithmetic on this machine", work.estimated),
        ("not known", work.unknown),
        ("refused by a machine without a card, for float16", work.refused),
    )
    told = "; ".join(f"{', '.join(stages)} {words}" for words, stages in sources if stages)
    if work.measured or work.estimated:
        output(f"They take {said_duration(work.seconds)} of computing, one after the other ({told}).")
    else:
        output("How long they take is not known: no finished clip tells, nor arithmetic on this machine.")
    if work.refused:
        output(
            f"This machine has no card, and would refuse {', '.join(work.refused)}, which compute in float16: run the "
            "dataset where there is one, or with --set precision=bfloat16."
        )


# In the order in which `ss4d dataset --help` lists them.
for command in (init, plan, run, submit, failures, retry, report, export):
    app.command(no_args_is_help=True)(command)
app.add_typer(catalog_app)
