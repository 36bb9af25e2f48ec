"""One clip from its file to its 4D asset: plan, compute what is missing, lay out the results, keep the record."""

import contextlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from pipelines.config import RunConfig, load_config
from pipelines.engines import ENGINES, Schedule
from pipelines.errors import ConfigError
from pipelines.networks import Model, open_model, resolve_device
from pipelines.plan import REUSE, RUN, SKIP, Job, Recipes, Step, jobs_of, make_plan
from pipelines.record import EarlierRun, machine, read_record, versions, write_record
from pipelines.stages import stages_of
from pipelines.tasks import Outcome, run_job
from stages.video_io import input_digest
from storage.files import link_or_copy
from storage.store import ArtifactStore

STATES = {RUN: "to do", REUSE: "to reuse", SKIP: "not needed"}  # before the run reaches them


class Reporter(Protocol):
    """Hears how a run goes on."""

    def message(self, text: str) -> None:
        """One line a person can read."""

    def stage_started(self, step: Step) -> None:
        """The stage begins, or is found done."""

    def stage_progress(self, done: int, total: int) -> None:
        """How far the stage is."""

    def stage_finished(self, outcome: Outcome) -> None:
        """The stage's artifact is in the store."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a user asks for."""

    source: Path
    out: Path
    config: str = "tiny"
    overrides: Sequence[str] = ()
    seed: int = 42
    device: str = "auto"
    name: str | None = None
    engine: str = "prefect"
    from_stage: str | None = None


@dataclass
class _Record:
    """The run's record, rewritten whenever something changes."""

    folder: Path
    content: dict[str, Any] = field(default_factory=dict)

    def update(self, **changes: Any) -> None:
        self.content.update(changes)
        write_record(self.folder, self.content)

    def stage_done(self, step: Step, outcome: Outcome) -> None:
        self.content["stages"][step.stage] |= {
            "state": "reused" if outcome.reused else "computed",
            "seconds": round(outcome.seconds, 3),
            "peak_memory_mib": round(outcome.peak_memory / 2**20),
            "peak_device_memory_mib": round(outcome.peak_device_memory / 2**20),
        }
        write_record(self.folder, self.content)


def run_clip(options: RunOptions, reporter: Reporter) -> Path:
    """Makes the 4D asset of one clip and gives the folder with the results.

    Everything that is stored already is reused; a run that was stopped goes on where it stopped.

    Raises:
        ConfigError, InputError, ModelError, StoreError, EngineError: one sentence each, see `pipelines.errors`.
        OSError: the output folder cannot be written.
    """
    started = time.monotonic()
    config = load_config(options.config, options.overrides)
    name = _run_name(options)
    if options.seed < 0 or options.seed >= 2**63:
        raise ConfigError(f"--seed must lie between 0 and 2^63 - 1; got {options.seed}")
    device = resolve_device(options.device)
    source_digest = input_digest(options.source)
    model = open_model(config, device)
    config = model.resolve(config)

    folder = options.out / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    before = read_record(folder)
    _refuse_clash(options, folder, before, source_digest)
    store = ArtifactStore(options.out / "store")
    fingerprints = {role: model.fingerprint(role) for stage in stages_of(config).values() for role in stage.roles}
    recipes = Recipes(config, source_digest, options.seed, fingerprints)
    previous = {stage: known.recipe for stage, known in before.stages.items()} if before else {}
    steps = make_plan(recipes, store, from_stage=options.from_stage, previous=previous)

    if model.notice:
        reporter.message(f"Note: {model.notice}")
    record = _start_record(folder, options, config, model, source_digest, device, steps)
    earlier = before.results if before else []
    record.update(results=earlier)
    try:
        _compute(options, config, device, model, steps, record, reporter)
        files = _lay_out_results(store, steps[-1], folder, earlier)
    except BaseException as error:
        with contextlib.suppress(OSError):  # a full disk, say: the error itself matters more than its record
            record.update(state="failed", error=f"{type(error).__name__}: {error}", finished=_now())
        raise
    record.update(state="complete", results=files, finished=_now(), wall_seconds=round(time.monotonic() - started, 3))
    return folder


def _compute(
    options: RunOptions,
    config: RunConfig,
    device: str,
    model: Model,
    steps: Sequence[Step],
    record: _Record,
    reporter: Reporter,
) -> None:
    jobs = jobs_of(
        list(steps), config, options.source.absolute(), options.seed, device, (options.out / "store").absolute()
    )

    def do(job: Job) -> None:
        reporter.stage_started(job.step)
        outcome = run_job(job, reporter.stage_progress)
        record.stage_done(job.step, outcome)
        reporter.stage_finished(outcome)

    def prepare() -> None:
        stages = stages_of(config)
        roles = [role for job in jobs if job.step.action == RUN for role in stages[job.step.stage].roles]
        for role in roles:
            model.network(role)

    # With nothing to compute no engine has anything to orchestrate, and a rerun takes seconds.
    engine = options.engine if any(job.step.action == RUN for job in jobs) else "direct"
    ENGINES[engine](Schedule(record.folder.name, jobs, do, prepare, options.out.absolute() / ".prefect"))


def _run_name(options: RunOptions) -> str:
    if options.name is None:
        return re.sub(r"[^\w.-]+", "_", options.source.absolute().stem).strip("._-") or "clip"
    if not re.fullmatch(r"[\w-][\w.-]*", options.name):
        raise ConfigError(f"--name may hold letters, digits, '.', '_' and '-'; got {options.name!r}")
    return options.name


def _refuse_clash(options: RunOptions, folder: Path, before: EarlierRun | None, source_digest: str) -> None:
    """Two inputs may have one name; the results of the first must not be lost to the second."""
    if before and before.input.path != str(options.source.absolute()) and before.input.sha256 != source_digest:
        raise ConfigError(
            f"{folder} holds the results of another input, {before.input.path}: "
            "give this run a name of its own with --name"
        )


def _start_record(
    folder: Path,
    options: RunOptions,
    config: RunConfig,
    model: Model,
    source_digest: str,
    device: str,
    steps: Sequence[Step],
) -> _Record:
    record = _Record(folder)
    record.update(
        name=folder.name,
        state="running",
        input={"path": str(options.source.absolute()), "sha256": source_digest},
        seed=options.seed,
        device=device,
        engine=options.engine,
        model=model.describe(),
        config=config.model_dump(mode="json"),
        versions=versions(),
        machine=machine(),
        started=_now(),
        overrides=list(options.overrides),
        stages={
            s.stage: {"key": s.ref.key, "state": STATES[s.action], "reason": s.reason, "recipe": s.recipe}
            for s in steps
        },
    )
    return record


def _lay_out_results(store: ArtifactStore, export: Step, folder: Path, earlier: Sequence[str]) -> list[str]:
    """The files of the export artifact under their names in the run's folder; those of an earlier export go."""
    files: Mapping[str, Path] = store.open(export.ref).files()
    for name in set(earlier) - set(files):
        if not Path(name).is_absolute() and ".." not in Path(name).parts:  # a record is a file: it is not trusted
            (folder / name).unlink(missing_ok=True)
    for name, path in files.items():
        target = folder / name
        if not (target.exists() and os.path.samefile(target, path)):
            link_or_copy(path, target)
    return sorted(files)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
