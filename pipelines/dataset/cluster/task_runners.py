"""A dataset on a Dask or a Ray cluster: its shards as tasks of one Prefect flow, scheduled by that engine.

Both engines notice a lost machine by themselves, and start its tasks again elsewhere.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ss4d.pipelines.dataset.cluster.prefect_pool import connected
from ss4d.pipelines.dataset.cluster.progress import ShardMetrics
from ss4d.pipelines.dataset.cluster.runs import ShardRun, State
from ss4d.pipelines.dataset.cluster.shard import ShardWork
from ss4d.pipelines.dataset.cluster.submission import ClusterWatcher, Submission, Submitted, finish, shards_of
from ss4d.pipelines.dataset.launch import plan_dataset
from ss4d.pipelines.dataset.layout import open_dataset
from ss4d.pipelines.errors import ConfigError, EngineError
from ss4d.stages.extras import how_to_install
from ss4d.stages.processors import num_processors

if TYPE_CHECKING:
    from prefect.task_runners import TaskRunner

SHOW = 2.0  # seconds between two calls of the watcher


@dataclass(frozen=True)
class TaskEngine:
    """The scheduler of a flow's tasks.

    Attributes:
        runner: of the flow.
        context: to run the flow in.
    """

    runner: "TaskRunner[Any]"
    context: AbstractContextManager[Any]


def submit_tasks(submission: Submission, engine: str, address: str | None, watcher: ClusterWatcher) -> Submitted:
    """Runs a dataset's shards on a Dask or a Ray cluster; only those that have something to do.

    Args:
        submission: what to run; the engine decides when to start a shard again.
        engine: "dask" or "ray".
        address: of the cluster; None to start a cluster on this machine.
        watcher: is told of the progress.

    Raises:
        ConfigError, InputError, ModelError, PluginError, StoreError: one sentence each, see `ss4d.pipelines.errors`.
        EngineError: Prefect's server or the engine cannot be used.
    """
    work = submission.work
    if work.workers is None:
        raise ConfigError(f"--engine {engine} needs --workers: how many processes a shard takes")
    plan = plan_dataset(work.options(None))
    shards = shards_of(plan.todo, submission.shards)
    if not shards:
        return Submitted(plan=plan)
    progress = ShardMetrics(open_dataset(work.dataset), shards, len(plan.todo))
    with connected():
        task_engine = ENGINES[engine](work, work.workers, address)
        runs = _run_flow(task_engine, work, shards, lambda runs: watcher.show(progress.view(runs)))
    return Submitted(plan=plan, runs=runs, after=finish(work))


def _run_flow(
    engine: TaskEngine, work: ShardWork, shards: Sequence[str], show: Callable[[Sequence[ShardRun]], None]
) -> list[ShardRun]:
    from ss4d.pipelines.dataset.cluster.shard_flow import dataset_shards

    runs = [_run(work, shard) for shard in shards]
    run_flow = dataset_shards.with_options(task_runner=engine.runner, flow_run_name=work.dataset.name)
    with engine.context, _repeated(lambda: show(runs)):
        ended = run_flow(work, list(shards))
    states: Mapping[bool, State] = {True: "completed", False: "failed"}
    runs = [replace(run, state=states[well], message=said) for run, (well, said) in zip(runs, ended, strict=True)]
    show(runs)
    return runs


def _run(work: ShardWork, shard: str) -> ShardRun:
    title = work.title(shard)
    return ShardRun(id=title, name=title, shard=shard, work={}, state="running", message="", changed="")


@contextmanager
def _repeated(action: Callable[[], None]) -> Iterator[None]:
    """Calls `action` every few seconds in a thread, since the flow itself runs in the engine."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(SHOW):
            action()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _dask(_work: ShardWork, workers: int, address: str | None) -> TaskEngine:
    try:
        import dask
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        raise _missing("dask", error) from error
    if address is not None:
        return TaskEngine(DaskTaskRunner(address=address), nullcontext())
    cluster = {
        "n_workers": max(1, num_processors() // workers),
        "threads_per_worker": 1,  # a worker runs so many shards at a time
        "dashboard_address": None,
    }
    # A daemon process may not start the processes of its shard.
    children = dask.config.set({"distributed.worker.daemon": False})
    return TaskEngine(DaskTaskRunner(cluster_kwargs=cluster), children)


def _ray(work: ShardWork, workers: int, address: str | None) -> TaskEngine:
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
    return TaskEngine(runner, remote_options(num_cpus=workers, num_gpus=gpus))


def _missing(extra: str, error: ImportError) -> EngineError:
    return EngineError(
        f"--engine {extra} needs packages that are not installed ({error.name}): {how_to_install(extra)}, on all "
        "machines"
    )


ENGINES: Mapping[str, Callable[[ShardWork, int, str | None], TaskEngine]] = {"dask": _dask, "ray": _ray}
