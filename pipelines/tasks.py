"""The one adapter between a stage and the store: look up, read the inputs, compute, check, commit."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ss4d.pipelines.contract import check_result
from ss4d.pipelines.errors import USER_ERRORS, PluginError
from ss4d.pipelines.handover import Handover
from ss4d.pipelines.implementation import Implementation
from ss4d.pipelines.measures import measures
from ss4d.pipelines.meter import Meter
from ss4d.pipelines.networks import open_model
from ss4d.pipelines.plan import StageJob, parameters
from ss4d.pipelines.registry import installed
from ss4d.pipelines.run_record import versions
from ss4d.pipelines.stage_inputs import Files, StageInputs
from ss4d.pipelines.stage_result import StageResult, stored_result
from ss4d.pipelines.values import read_value, scalars, write_value
from ss4d.stages.errors import InputError, ValueSpecError
from ss4d.stages.roles import LATENT_FLOW
from ss4d.stages.types import Progress, Value, Voxels
from ss4d.stages.weights import describe
from ss4d.storage.artifact import CHECKED, Artifact
from ss4d.storage.errors import DamageError, StoreError
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore, open_store

R = TypeVar("R")
LOG = logging.getLogger("ss4d")
AT_ONCE: AbstractContextManager[None] = nullcontext()  # a turn that nobody has to wait for


def run_job(
    job: StageJob, progress: Progress, handover: Handover, turn: AbstractContextManager[None] = AT_ONCE
) -> StageResult:
    """Makes the job's artifact, unless it is there. Whatever interrupts it, the store holds all of it or nothing.

    Args:
        job: what to do.
        progress: told after each step of the stage.
        handover: between the jobs of this clip.
        turn: held while the stage's function computes, and not while its inputs are read and its result is written;
            waiting for it does not count among the seconds.

    Raises:
        InputError, ModelError, PluginError, ValueSpecError, StoreError, OSError: see the stages and the store.
    """
    store = _store_at(job.store)
    deletions = store.deletions()
    known = stored_result(store, job.step.ref)
    if known is not None and not job.step.replace:
        return known
    former = store.open(job.step.ref) if known is not None else None
    implementation = job.config.stages()[job.step.stage]
    with store.create(job.step.ref, replace=job.step.replace) as writer, Meter() as meter:
        inputs = _inputs(implementation, job, store, writer.folder, progress, handover)
        with ExitStack() as held:
            with meter.paused():
                held.enter_context(turn)
            try:
                value = _call(implementation, job, inputs)
            finally:
                inputs.model.release(implementation.roles)
        if value is not None:
            write_value(writer, value)
        meter.stop()
        measured = measures(value)
        if former and value is not None and _differs(value, former):
            LOG.warning(
                "%s came out different from what was stored; what follows it was made from that: --from %s renews it",
                implementation.stage,
                implementation.stage,
            )
        writer.commit(
            {
                "recipe": dict(job.step.recipe),
                "inputs": {name: ref.key for name, ref in job.inputs.items()},
                CHECKED: True,
                "values": {} if value is None else scalars(value),
                "measures": measured,
                "device": inputs.model.device,
                "kernels": inputs.model.kernels,
                "versions": versions(),
                "seconds": round(meter.seconds, 3),
                "peak_memory": meter.peak_memory,
                "peak_device_memory": meter.peak_device_memory,
            }
        )
    if value is not None:
        handover.keep(job.step.ref, value)
    return StageResult(False, meter.seconds, meter.peak_memory, meter.peak_device_memory, measured, deletions)


@cache
def _store_at(location: str) -> ArtifactStore:
    """One object for each store, which remembers what it has synced, or its connections."""
    return open_store(location)


def _inputs(
    implementation: Implementation,
    job: StageJob,
    store: ArtifactStore,
    folder: Path,
    progress: Progress,
    handover: Handover,
) -> StageInputs:
    """What the stage's function is given; reads its inputs where they are not at hand."""
    return StageInputs(
        implementation=implementation,
        recipe=job.step.recipe,
        source=job.source,
        input_config=job.config.input,
        results={name: _result(store, ref, handover) for name, ref in job.inputs.items()},
        model=open_model(job.config, job.device),
        seed=job.seed,
        folder=folder,
        progress=progress,
    )


def _call(implementation: Implementation, job: StageJob, inputs: StageInputs) -> Value | None:
    """What the stage's function makes, checked."""
    assert implementation.run is not None, f"{implementation} has nothing to run"
    try:
        value = implementation.run(job.config.section(implementation.stage), inputs)
    except ValueSpecError as error:  # raised where the function builds its result
        raise ValueSpecError(f"{implementation} gave a wrong result: {error}") from error
    except Exception as error:
        # Errors of the system and of memory have sentences of their own, and the engine may try them again.
        if implementation.package is None or isinstance(error, (*USER_ERRORS, OSError, MemoryError)):
            raise
        raise PluginError(f"{implementation} failed: {type(error).__name__}: {error} (--debug shows where)") from error
    if parameters(job.config.section(implementation.stage), leave_out={"method"}) != _told(job):
        raise InputError(
            f"a file that the configuration of {implementation.stage} names has changed since the run was planned, and "
            "nothing is stored of what it makes: run again"
        )
    grid = _grid(job) if isinstance(value, Voxels) else None
    check_result(implementation, installed().stage(implementation.stage), value, inputs.folder, grid)
    return value


def _told(job: StageJob) -> Any:
    """The stage's parameters as its key has them."""
    return job.step.recipe["parameters"][job.step.stage]


def _grid(job: StageJob) -> int | None:
    """The cells along each axis that the run's flow of structured latents works on; None if it has none."""
    slat = job.config.stages().get("slat")
    if slat is None or LATENT_FLOW not in slat.roles:
        return None
    return int(describe(open_model(job.config, job.device).folder.description(LATENT_FLOW)).args.resolution)


def _result(store: ArtifactStore, ref: ArtifactRef, handover: Handover) -> Value | Files:
    """What an earlier stage gave."""
    stage = installed().stage(ref.stage)
    if stage.gives_files:
        return _again_if_replaced(lambda: store.open(ref).files())
    kind = stage.value_type()
    return handover.take(ref, lambda: _again_if_replaced(lambda: read_value(kind, store.open(ref))))


def _again_if_replaced(read: Callable[[], R]) -> R:
    """What `read` gives, tried twice: another run may replace an artifact, and delete the old one, while it is read."""
    try:
        return read()
    except DamageError:
        return read()


def _differs(value: Value, former: Artifact) -> bool:
    """Whether any array is not what was stored, bit for bit; of a damaged one nobody can tell."""
    try:
        stored = {name: former.read(name) for name in former.arrays()}
    except StoreError:
        return False
    given = {name: getattr(value, name).numpy(force=True) for name in stored}
    return any(not np.array_equal(given[name], data, equal_nan=True) for name, data in stored.items())
