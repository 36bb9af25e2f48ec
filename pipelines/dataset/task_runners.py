"""A dataset on a Dask or a Ray cluster: its shards as tasks of one Prefect flow, handed out by that engine.

Both engines notice a machine that is gone by themselves, and begin its tasks again elsewhere.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines.dataset.cluster import ClusterWatcher, Run, Submission, Submitted, shards_of
from pipelines.dataset.cluster_progress import Progress
from pipelines.dataset.cluster_server import connected
from pipelines.dataset.launch import plan_dataset
from pipelines.dataset.layout import open_dataset
from pipelines.dataset.shard import Work
from pipelines.errors import ConfigError, EngineError
from pipelines.workers import num_processors

if TYPE_CHECKING:
    from prefect.task_runners import TaskRunner

POLL = 2.0  # seconds between two looks at the tasks


@dataclass(frozen=True)
class Engine:
    """What hands out the tasks of a flow.

    Attributes:
        runner: of the flow.
        flow: a context to run the flow in.
        tasks: a context to submit its tasks in.
    """

    runner: "TaskRunner[Any]"
    flow: AbstractContextManager[Any]
    tasks: AbstractContextManager[Any]


def submit_tasks(submission: Submission, engine: str, address: str | None, watcher: ClusterWatcher) -> Submitted:
    """Has a dataset's shards done by a Dask or a Ray cluster; only those that have something to do.

    Args:
        submission: what is to be done; when to begin a shard again is for the engine to decide.
        engine: "dask" or "ray".
        address: of the cluster; None to start one on this machine.
        watcher: hears how it goes on.

    Raises:
        ConfigError, InputError, ModelError, PluginError, StoreError: one sentence each, see `pipelines.errors`.
        EngineError: Prefect's server or the engine cannot be used.
    """
    work = submission.work
    if work.workers is None:
        raise ConfigError(f"--engine {engine} needs --workers: how many processes a shard takes")
    outlook = plan_dataset(work.options(None))
    shards = shards_of(outlook.todo, submission.shards)
    if not shards:
        return Submitted(outlook=outlook)
    progress = Progress(open_dataset(work.dataset), shards, len(outlook.todo))
    with connected():
        runs = _run_flow(ENGINES[engine](work, work.workers, address), work, shards, progress, watcher)
    return Submitted(outlook=outlook, runs=runs, after=plan_dataset(work.options(None)))


def _run_flow(
    engine: Engine, work: Work, shards: Sequence[str], progress: Progress, watcher: ClusterWatcher
) -> list[Run]:
    from prefect import flow

    from pipelines.dataset.shard_flow import dataset_shard_task

    runs = {shard: _run(work, shard) for shard in shards}

    @flow(name="dataset-shards", flow_run_name=work.dataset.name, task_runner=engine.runner, persist_result=False)
    def dataset_shards(dataset: str, shards: list[str]) -> None:  # noqa: ARG001  shown as the run's parameters
        with engine.tasks:
            futures = {shard: dataset_shard_task.submit(work, shard, work.title(shard)) for shard in shards}
        for shard, future in futures.items():
            while runs[shard].state == "running":
                runs[shard] = _waited(runs[shard], lambda: future.result(timeout=POLL))  # noqa: B023  called at once
                watcher.show(progress.view(runs.values()))

    with engine.flow:
        dataset_shards(str(work.dataset), list(shards))
    return list(runs.values())


def _run(work: Work, shard: str) -> Run:
    title = work.title(shard)
    return Run(id=title, name=title, shard=shard, work={}, state="running", message="", changed="")


def _waited(run: Run, wait: Callable[[], str]) -> Run:
    """A run after a little while."""
    try:
        return replace(run, state="completed", message=wait())
    except TimeoutError:
        return run
    except Exception as error:  # of the task, or of an engine that has given it up
        return replace(run, state="failed", message=str(error) or type(error).__name__)


def _dask(_work: Work, workers: int, address: str | None) -> Engine:
    try:
        import dask
        from prefect_dask import DaskTaskRunner
    except ImportError as error:
        raise _missing("dask", error) from error
    if address is not None:
        return Engine(DaskTaskRunner(address=address), nullcontext(), nullcontext())
    cluster = {
        "n_workers": max(1, num_processors() // workers),
        "threads_per_worker": 1,  # a worker does as many shards at a time
        "dashboard_address": None,
    }
    # A daemon could not start the processes of its shard.
    children = dask.config.set({"distributed.worker.daemon": False})
    return Engine(DaskTaskRunner(cluster_kwargs=cluster), children, nullcontext())


def _ray(work: Work, workers: int, address: str | None) -> Engine:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        from prefect_ray import RayTaskRunner
        from prefect_ray.context import remote_options
    except ImportError as error:
        raise _missing("ray", error) from error
    if work.device == "auto":
        raise ConfigError("--engine ray needs --device cpu or --device cuda: Ray gives a shard what it asks for")
    here: Mapping[str, Any] = {"include_dashboard": False, "num_cpus": max(num_processors(), workers)}
    runner = RayTaskRunner(address=address, init_kwargs=None if address else dict(here))
    gpus = workers if work.device == "cuda" else 0
    return Engine(runner, nullcontext(), remote_options(num_cpus=workers, num_gpus=gpus))


def _missing(extra: str, error: ImportError) -> EngineError:
    return EngineError(
        f"--engine {extra} needs packages that are not installed ({error.name}): pip install 'ss4d-pipeline[{extra}]', "
        "on all machines"
    )


ENGINES: Mapping[str, Callable[[Work, int, str | None], Engine]] = {"dask": _dask, "ray": _ray}
