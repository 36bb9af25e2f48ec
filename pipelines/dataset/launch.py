"""A run of a dataset from options to result: plans it, runs the coordinator, keeps the records."""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from ss4d.pipelines.dataset.catalog import is_current, write_catalog
from ss4d.pipelines.dataset.checks import check_at_least
from ss4d.pipelines.dataset.events import EventWriter, worker_name
from ss4d.pipelines.dataset.hours import Work, expected_work
from ss4d.pipelines.dataset.keys import Settings, StageKeys, last_settings, open_keys, pinned
from ss4d.pipelines.dataset.launches import Launch, last_recipes, only_launch
from ss4d.pipelines.dataset.layout import Dataset, open_dataset
from ss4d.pipelines.dataset.opened import open_for
from ss4d.pipelines.dataset.plan import DatasetPlan, plan_clips
from ss4d.pipelines.dataset.references import known_digests
from ss4d.pipelines.dataset.select import Choice
from ss4d.pipelines.dataset.workers.coordinator import Coordinator, Ending
from ss4d.pipelines.dataset.workers.limits import Limits, resident_bytes
from ss4d.pipelines.dataset.workers.metrics import Metrics
from ss4d.pipelines.dataset.workers.policy import Policy
from ss4d.pipelines.dataset.workers.progress import Snapshot, Tally, Watcher
from ss4d.pipelines.dataset.workers.worker import Setup
from ss4d.pipelines.devices import gpu_names
from ss4d.pipelines.run_record import versions
from ss4d.pipelines.store_notes import note_launch
from ss4d.stages.ops.device import resolve_device
from ss4d.stages.processors import num_processors
from ss4d.stages.sampler_params import SamplerParams
from ss4d.storage.store import open_store


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """What a user asks for.

    Attributes:
        folder: of the dataset.
        settings: configuration, overrides and seed.
        choice: which clips.
        device: "auto", "cpu" or "cuda".
        workers: processes; None for one per GPU, or one per CPU core.
        lanes: clips that each worker runs at the same time.
        policy: what follows from failures.
        limits: what a clip may take.
        command: that continues the run if it is interrupted.
        patience: seconds to wait for another run of these clips that is about to end.
        store: where the dataset's artifacts are kept; must be told where its description names an address.
    """

    folder: Path
    settings: Settings
    choice: Choice
    device: str = "auto"
    workers: int | None = None
    lanes: int = 2
    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)
    command: str = ""
    patience: float = 0.0
    store: str | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a run.

    Attributes:
        plan: what it had to do.
        ending: how it ended; None if there was nothing to do.
        events: the file of its events; None if there was nothing to do.
    """

    plan: DatasetPlan
    ending: Ending | None = None
    events: Path | None = None


def plan_dataset(options: DatasetOptions) -> DatasetPlan:
    """What `run_dataset` would do; computes and changes nothing.

    Raises:
        ConfigError, InputError, ModelError, PluginError, StoreError: one sentence each, see `ss4d.pipelines.errors`.
    """
    keys, _ = open_keys(options.settings)
    return plan_clips(_open(options), keys, options.choice, options.policy)


def planned_work(options: DatasetOptions, plan: DatasetPlan) -> Work:
    """How long what `plan_dataset` planned will compute.

    Raises:
        ConfigError, InputError, ModelError, PluginError, StoreError: one sentence each, see `ss4d.pipelines.errors`.
    """
    keys, model = open_keys(options.settings)
    return expected_work(_open(options), keys, model.folder, plan)


def run_dataset(options: DatasetOptions, watcher: Watcher) -> Result:
    """Runs the chosen clips that are not finished; a clip that fails is recorded, and the run continues.

    Raises:
        ConfigError, InputError, ModelError, PluginError, StoreError, WorkerError: one sentence each, see
            `ss4d.pipelines.errors`.
        OSError: the dataset's folder cannot be written.
        KeyboardInterrupt: at the second Ctrl-C; stages that were running then are abandoned.
    """
    dataset = _open(options)
    device = resolve_device(options.device)
    places = _places(device, options.workers, options.lanes)
    keys, model = open_keys(options.settings, device)
    with only_launch(dataset, options.choice.shard, options.patience):
        plan = plan_clips(dataset, keys, options.choice, options.policy)
        if plan.todo:
            keys.config.check(stage.stage for stage in plan.stages if stage.run)
            if model.notice and any(implementation.roles for implementation in keys.stages.values()):
                watcher.message(f"Note: {model.notice}")
            model.check_precision(_uses(keys, plan), None)
            model.fetch(_uses(keys, plan))  # once, and not by each worker
            result = _compute(options, dataset, keys, plan, device, places[: len(plan.todo)], watcher)
        else:
            _remember(options, dataset, keys, plan, device)
            result = Result(plan=plan)
        # Each shard would write the whole catalog: the submission does, when all shards have ended.
        if not dataset.shared and not is_current(dataset):
            with open_for(dataset, options.settings) as opened:
                write_catalog(opened)
    return result


def _open(options: DatasetOptions) -> Dataset:
    """Opens the dataset; as shared for a shard, since other machines may run the others."""
    return open_dataset(options.folder, options.store, shared=options.choice.shard is not None)


def _remember(options: DatasetOptions, dataset: Dataset, keys: StageKeys, plan: DatasetPlan, device: str) -> None:
    """Records a run with nothing to do, if its configuration differs from that of the launch before.

    Commands without a configuration, and `ss4d gc`, go by the last launch.
    """
    last = last_settings(dataset)
    known = last is not None and last.recorded() == pinned(options.settings, keys).recorded()
    if not (known and last_recipes(dataset) == plan.recipes):
        nothing = Tally(0, list(keys.stages)).snapshot("finished", [], resident_bytes(os.getpid()))
        _end(_launch(options, dataset, keys, plan, device, 0), nothing, None)


def _compute(
    options: DatasetOptions,
    dataset: Dataset,
    keys: StageKeys,
    plan: DatasetPlan,
    device: str,
    gpus: Sequence[str | None],
    watcher: Watcher,
) -> Result:
    store = open_store(dataset.location())
    store.check_writable()
    setup = Setup(
        config=keys.config,
        seed=keys.seed,
        device=device,
        fingerprints=keys.fingerprints,
        store=dataset.store,
        logs=dataset.logs,
        roles=list(_uses(keys, plan)),
        lanes=options.lanes,
        threads=max(1, num_processors() // len(gpus)),
        memory_share=_memory_share(gpus, device, options.limits),
    )
    launch = _launch(options, dataset, keys, plan, device, len(gpus))
    metrics = Metrics(dataset.metrics_of(options.choice.shard), {"coordinator": worker_name()})
    with EventWriter(dataset.events, versions()) as events:
        coordinator = Coordinator(
            setup=setup,
            stages=list(keys.stages),
            todo=plan.todo,
            history=plan.history,
            gpus=gpus,
            policy=options.policy,
            limits=options.limits,
            events=events,
            metrics=metrics,
            watcher=watcher,
        )
        try:
            ending = coordinator.run()
        except BaseException as error:
            with suppress(OSError):  # such as a full disk: the error itself matters more than its record
                snapshot = coordinator.snapshot("abandoned")
                _end(launch, snapshot, f"{type(error).__name__}: {error}")
                metrics.write(snapshot)
            raise
    _end(launch, ending.snapshot, ending.reason)
    return Result(plan=plan, ending=ending, events=events.path)


def _launch(
    options: DatasetOptions, dataset: Dataset, keys: StageKeys, plan: DatasetPlan, device: str, workers: int
) -> Launch:
    details = {
        "config": keys.config.described(),
        "device": device,
        "workers": workers,
        "lanes": options.lanes,
        "shard": options.choice.shard,
        "command": options.command,
        "todo": len(plan.todo),
    }
    launch = Launch(dataset, pinned(options.settings, keys), plan.recipes, details)
    note_launch(open_store(dataset.location()), dataset.folder, plan.recipes, known_digests(dataset))
    return launch


def _end(launch: Launch, snapshot: Snapshot, reason: str | None) -> None:
    launch.end(
        state=snapshot.state,
        reason=reason,
        clips=snapshot.clips,
        done=snapshot.done,
        failed=snapshot.failed,
        seconds=snapshot.seconds,
    )


def _places(device: str, workers: int | None, lanes: int) -> list[str | None]:
    """For each worker the GPU that it uses, as CUDA_VISIBLE_DEVICES names it; None on a CPU.

    Raises:
        ConfigError: a number is out of range.
    """
    if workers is not None:
        check_at_least("--workers", workers, 1)
    check_at_least("--lanes", lanes, 1)
    if device != "cuda":
        return [None] * (workers or num_processors())
    names = gpu_names()
    return [names[number % len(names)] for number in range(workers or len(names))]


def _memory_share(gpus: Sequence[str | None], device: str, limits: Limits) -> float:
    """What each worker may use of the memory of its device: the machine's, or its GPU's."""
    share = 1 / max(Counter(gpus).values())
    if device != "cpu" or limits.worker_bytes is None:
        return share
    return min(share, limits.worker_bytes / psutil.virtual_memory().total)


def _uses(keys: StageKeys, plan: DatasetPlan) -> dict[str, SamplerParams | None]:
    """The roles of the networks that the stages to run use; see `RunConfig.uses`."""
    needed = {stage for todo in plan.todo for stage in todo.stages}
    return keys.config.uses(stage for stage in keys.stages if stage in needed)
