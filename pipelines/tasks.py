"""The one adapter between a stage and the store: look up, read the inputs, compute, commit."""

from dataclasses import dataclass

from pipelines.meter import Meter
from pipelines.networks import open_model
from pipelines.plan import Job
from pipelines.record import versions
from pipelines.stages import Stage, Work, stages_of
from pipelines.values import read_value, scalars, write_value
from stages.types import Progress, Value
from storage.refs import ArtifactRef
from storage.store import ArtifactStore


@dataclass(frozen=True)
class Outcome:
    """How a job ended: nothing was computed (`reused`), or what it cost."""

    reused: bool
    seconds: float
    peak_memory: int  # bytes, whole process
    peak_device_memory: int  # bytes


def run_job(job: Job, progress: Progress) -> Outcome:
    """Makes the job's artifact, unless it is there. Whatever interrupts it, the store holds all of it or nothing.

    Raises:
        InputError, ModelError, ValueSpecError, StoreError, OSError: see the stages and the store.
    """
    store = ArtifactStore(job.store)
    if store.contains(job.step.ref) and not job.step.replace:
        attributes = store.open(job.step.ref).attributes
        return Outcome(True, attributes["seconds"], attributes["peak_memory"], attributes["peak_device_memory"])
    stages = stages_of(job.config)
    stage = stages[job.step.stage]
    model = open_model(job.config, job.device)
    with store.create(job.step.ref, replace=job.step.replace) as writer, Meter() as meter:
        work = Work(
            config=job.config,
            source=job.source,
            inputs={name: _read(store, ref, stages[name]) for name, ref in job.inputs.items()},
            model=model,
            seed=job.seed,
            folder=writer.folder,
            progress=progress,
        )
        value = stage.run(work)
        if stage.output is not None:
            write_value(writer, value)
        meter.stop()
        writer.commit(
            {
                "recipe": dict(job.step.recipe),
                "inputs": {name: ref.key for name, ref in job.inputs.items()},
                "values": {} if stage.output is None else scalars(value),
                "device": job.device,
                "versions": versions(),
                "seconds": round(meter.seconds, 3),
                "peak_memory": meter.peak_memory,
                "peak_device_memory": meter.peak_device_memory,
            }
        )
    return Outcome(False, meter.seconds, meter.peak_memory, meter.peak_device_memory)


def _read(store: ArtifactStore, ref: ArtifactRef, stage: Stage) -> Value:
    assert stage.output is not None
    return read_value(stage.output, store.open(ref))
