"""`ss4d dataset submit`: a dataset on many machines."""

import json
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from ss4d.cli.console import say, to_copy
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
from ss4d.cli.dataset_view import LiveView, duration, summary
from ss4d.cli.exits import FAILED
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug, Device, Goals, Overrides

if TYPE_CHECKING:
    from ss4d.pipelines.dataset.cluster.progress import ClusterView
    from ss4d.pipelines.dataset.cluster.submission import Submission, Submitted

LATER = "the shards continue without this command; given again, it watches them"


def submit(
    dataset: DatasetFolder,
    shards: Annotated[int, typer.Option("--shards", metavar="N", help="Number of parts; each clip is in one.")],
    pool: Annotated[
        str | None, typer.Option("--pool", metavar="NAME", help="The Prefect work pool whose workers run the shards.")
    ] = None,
    engine: Annotated[
        Literal["prefect", "dask", "ray"],
        typer.Option("--engine", help="**prefect** uses a work pool; **dask** and **ray** their own schedulers."),
    ] = "prefect",
    address: Annotated[
        str | None,
        typer.Option(
            "--address", metavar="URL", help="The Dask scheduler or Ray cluster; by default one is started here."
        ),
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    goals: Goals = None,
    seed: Seed = None,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Processes of one shard; by default one per GPU, or one per CPU core."),
    ] = None,
    lanes: Lanes = 2,
    where: Where = None,
    clip_timeout: ClipTimeout = None,
    memory: Memory = None,
    retries: Retries = 3,
    max_failure_ratio: Annotated[
        float,
        typer.Option("--max-failure-ratio", metavar="R", help="Stop a shard if more of its clips fail, of 20 or more."),
    ] = 0.5,
    image: Annotated[
        str | None,
        typer.Option("--image", metavar="NAME:TAG", help="The image to run, of Docker and Kubernetes pools."),
    ] = None,
    job_variables: Annotated[
        list[str] | None,
        typer.Option(
            "--job-variable", metavar="KEY=VALUE", help="Sets a variable of the pool's jobs; JSON. Repeatable."
        ),
    ] = None,
    silence: Annotated[
        float,
        typer.Option(
            "--silence", metavar="SECONDS", help="Give a shard to another worker after so long without a heartbeat."
        ),
    ] = 120.0,
    restarts: Annotated[int, typer.Option("--restarts", help="How often to do so with one shard.")] = 3,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Stay until all shards have ended, and restart those that crash.")
    ] = True,
    store: DatasetStore = None,
    debug: Debug = False,
) -> None:
    """Makes the 4D assets of the clips that have none yet, on many machines.

    Each shard is a flow run on a Prefect server, and the workers of a pool take one after the other. All machines need
    this program, the dataset's folder and the clips under the same paths; the store may be elsewhere. Given again, the
    command runs what is missing and watches shards in progress. **docs/cluster.md** has the details.

    A worker that dies is noticed by missing heartbeats, and another one continues its shard.

    Exit codes: 0 done, even if clips failed; 1 something you can repair, such as a shard that stopped; otherwise as
    **ss4d run**.

    For example:

        ss4d dataset submit birds --shards 16 --pool gpus --config ss4d
        ss4d dataset submit birds --shards 16 --pool gpus --no-wait
        ss4d dataset submit birds --shards 4 --engine dask --workers 2
    """
    command = shlex.join(["ss4d", *sys.argv[1:]])
    with explained(debug, LATER if engine == "prefect" else "what is finished is kept", "`ss4d dataset init --store`"):
        # Not at the top: torch takes seconds to import, and --help should not.
        from ss4d.pipelines.dataset.cluster.shard import ShardWork
        from ss4d.pipelines.dataset.cluster.submission import Submission
        from ss4d.pipelines.dataset.keys import portable
        from ss4d.pipelines.dataset.workers.limits import Limits, parse_size
        from ss4d.pipelines.dataset.workers.policy import Policy

        signal.signal(signal.SIGINT, signal.default_int_handler)
        settings = settings_for(dataset, config, overrides, goals, seed)
        work = ShardWork(
            dataset=dataset.absolute(),
            settings=portable(settings),
            where=where,
            device=device,
            workers=workers,
            lanes=lanes,
            policy=Policy(retries=retries, max_failure_ratio=max_failure_ratio),
            limits=Limits(clip_seconds=clip_timeout, worker_bytes=parse_size(memory) if memory else None),
            command=command,
            store=store,
        )
        submission = Submission(work=work, shards=shards, silence=silence, restarts=restarts)
        _check(engine, {"--pool": pool, "--image": image, "--job-variable": job_variables}, address, wait)
        with cluster_view() as view:
            if engine == "prefect":
                submitted = _on_pool(submission, pool or "", _variables(job_variables, image), view, wait)
            else:
                from ss4d.pipelines.dataset.cluster.task_runners import submit_tasks

                submitted = submit_tasks(submission, engine, address, view)
        _tell(submitted, dataset)


def _check(engine: str, of_pools: dict[str, object], address: str | None, wait: bool) -> None:
    """Refuses options that the engine does not use."""
    from ss4d.pipelines.errors import ConfigError

    if engine == "prefect":
        if not of_pools["--pool"]:
            raise ConfigError(
                "--pool says which work pool runs the shards; `prefect work-pool ls` lists those there are"
            )
        if address is not None:
            raise ConfigError("--address is for --engine dask or ray; PREFECT_API_URL says where Prefect's server is")
    elif given := [name for name, value in of_pools.items() if value]:
        raise ConfigError(f"--engine {engine} has no work pools: leave {', '.join(given)} out")
    elif not wait:
        raise ConfigError(f"--engine {engine} needs this command until all is done: leave --no-wait out")


def _on_pool(
    submission: "Submission", pool: str, job_variables: dict[str, Any], view: LiveView["ClusterView"], wait: bool
) -> "Submitted":
    from ss4d.pipelines.dataset.cluster.prefect_pool import prefect_server
    from ss4d.pipelines.dataset.cluster.submission import submit as submit_to

    with prefect_server(pool, job_variables) as server:
        return submit_to(submission, server, view, wait=wait)


def _variables(words: list[str] | None, image: str | None) -> dict[str, Any]:
    """The job variables; values are JSON, or else texts."""
    from ss4d.pipelines.errors import ConfigError

    found: dict[str, Any] = {} if image is None else {"image": image}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--job-variable takes KEY=VALUE; got {word!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _tell(submitted: "Submitted", dataset: Path) -> None:
    """Prints the result of a submission; ends the command as it ended."""
    if not submitted.runs:
        for text in summary(submitted.plan, None):
            say(text)
        say("Nothing is left to do.")
        return
    if submitted.after is None:
        say(f"{len(submitted.runs)} shards are submitted. The same command without --no-wait watches them.")
        return
    for text in summary(submitted.after, None):
        say(text)
    if left := len(submitted.after.todo):
        say(f"{left} are left to do: the same command runs them.")
    if submitted.after.given_up or submitted.after.todo:
        say(f"Why: ss4d dataset failures {to_copy(dataset)}")
    if submitted.unfinished:
        for run in submitted.unfinished:
            say(f"ss4d: {run.name} {run.state}: {run.message}")
        raise typer.Exit(FAILED)


def cluster_view() -> LiveView["ClusterView"]:
    """Shows the progress of a submission."""
    return LiveView(lambda view: Text(line(view)), line)


def line(view: "ClusterView") -> str:
    """The progress in one line."""
    shards = ", ".join(f"{count} {state}" for state, count in view.shards.items())
    left = view.remaining_seconds
    words = [
        f"shards: {shards}",
        f"{view.done} of {view.clips} clips done",
        f"{view.failed} failed",
        f"{view.per_second:.2f} clips/s",
        "" if left is None else f"{duration(left)} left",
    ]
    return "; ".join((words[0], ", ".join(word for word in words[1:] if word)))
