"""One clip from its file to its 4D asset: plan, compute what is missing, lay out the results, keep the record."""

import contextlib
import logging
import shlex
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from ss4d.pipelines.engines import ENGINES, Schedule, chosen_engine
from ss4d.pipelines.handover import Handover
from ss4d.pipelines.implementation import Deferred
from ss4d.pipelines.one_writer import only_settings
from ss4d.pipelines.plan import REUSE, RUN, SKIP, StageJob, Step, jobs_of
from ss4d.pipelines.prepare import Preparation, RunOptions, prepare, recorded
from ss4d.pipelines.results import lay_out
from ss4d.pipelines.run_record import Exported, machine, read_record, versions, write_record
from ss4d.pipelines.stage_result import StageResult, stored_result
from ss4d.pipelines.store_notes import note_run
from ss4d.storage.errors import StoreError
from ss4d.storage.files import sweep_temporary_files
from ss4d.storage.refs import artifact_key

LOG = logging.getLogger("ss4d")
run_job = Deferred("ss4d.pipelines.tasks:run_job")
compilation_said = Deferred("ss4d.pipelines.compilation:compilation_said")
shortage = Deferred("ss4d.pipelines.forecast:shortage")
num_threads = Deferred("torch:get_num_threads")
STATES = {RUN: "to do", REUSE: "to reuse", SKIP: "not needed"}  # before the run reaches them


class Reporter(Protocol):
    """Hears how a run goes on."""

    def message(self, text: str) -> None:
        """One line a person can read."""

    def stage_started(self, step: Step) -> None:
        """The stage begins, or is found done."""

    def stage_progress(self, done: int, total: int) -> None:
        """How far the stage is."""

    def stage_finished(self, result: StageResult) -> None:
        """The stage's artifact is in the store."""


class LogReporter:
    """Tells the log "ss4d" at level INFO, which is quiet unless someone listens."""

    def message(self, text: str) -> None:
        """One line."""
        LOG.info("%s", text)

    def stage_started(self, step: Step) -> None:
        """Whether the stage runs or is reused, and why."""
        LOG.info("%s: %s, %s", step.stage, step.action, step.reason)

    def stage_progress(self, done: int, total: int) -> None:
        """Too much for a log."""

    def stage_finished(self, result: StageResult) -> None:
        """What the stage cost."""
        if not result.reused:
            LOG.info("done in %.1f s", result.seconds)


@dataclass
class _Record:
    """The run's record, rewritten whenever something changes."""

    folder: Path
    content: dict[str, Any] = field(default_factory=dict)

    def update(self, **changes: Any) -> None:
        self.content.update(changes)
        write_record(self.folder, self.content)

    def stage_done(self, step: Step, result: StageResult) -> None:
        self.content["stages"][step.stage] |= {
            "state": "reused" if result.reused else "computed",
            "seconds": round(result.seconds, 3),
            "peak_memory_mib": round(result.peak_memory / 2**20),
            "peak_device_memory_mib": round(result.peak_device_memory / 2**20),
        }
        write_record(self.folder, self.content)


def run_clip(options: RunOptions, reporter: Reporter) -> Path:
    """Makes the 4D asset of one clip and gives the folder with the results.

    Everything that is stored already is reused; a run that was stopped goes on where it stopped.

    Raises:
        ConfigError, InputError, ModelError, PluginError, StoreError, EngineError: one sentence each, see
            `ss4d.pipelines.errors`.
        OSError: the output folder cannot be written.
    """
    started = time.monotonic()
    run = prepare(options)
    # What can be wrong is found before a folder is made, or the record of an earlier run is replaced.
    run.check_input()
    stages = run.config.stages()
    roles = list(dict.fromkeys(role for s in run.steps if s.action == RUN for role in stages[s.stage].roles))
    reporter.message(_said(run))
    run.model.fetch(roles)
    if run.computes:
        run.store.check_writable()
    run.folder.mkdir(parents=True, exist_ok=True)
    with only_settings(run.folder, _settings_of(run)):
        if read_record(run.folder) != run.before:  # a run of this name has ended meanwhile
            run = prepare(options)
        sweep_temporary_files(run.folder)
        if run.notice:
            reporter.message(f"Note: {run.notice}")
        _make(options, run, reporter, started)
    return run.folder


def _settings_of(run: Preparation) -> str:
    """The same for two runs that make the same files."""
    return artifact_key({"goals": list(run.config.goals), "keys": [step.ref.key for step in run.steps]})


def _make(options: RunOptions, run: Preparation, reporter: Reporter, started: float) -> None:
    """Computes what is missing, lays the results out, and keeps the record."""
    record = _start_record(options, run)
    earlier = run.before.results if run.before else []
    record.update(results=earlier)
    try:
        _note(run)
        if any(step.action == REUSE and not run.store.contains(step.ref) for step in run.steps):
            # Deleted as what nobody needed, between the plan and the note.
            run = prepare(options)
            record = _start_record(options, run)
            record.update(results=earlier)
        _go_through(options, run, record, reporter)
        whole = all(run.store.contains(goal) for goal in run.goals)
        # With --only, a goal may not be there; the files of an earlier one stay.
        foreign = tuple(f"{goal}/" for goal in run.unavailable)
        exported = run.before.exported if run.before else None
        outdated = exported is not None and whole and exported.key not in {step.ref.key for step in run.steps}
        added = set(exported.files) if exported and not outdated else set()
        kept = [name for name in earlier if not whole or name.startswith(foreign) or name in added]
        files = lay_out(
            run.store,
            run.goals,
            run.folder,
            earlier=earlier,
            kept=kept,
            note=lambda names: record.update(results=names),
        )
    except BaseException as error:
        with contextlib.suppress(OSError):  # a full disk, say: the error itself matters more than its record
            record.update(state="failed", error=_reason(error), finished=_now())
        raise
    if exported and outdated:
        del record.content["exported"]
        if gone := set(exported.files) - set(files):
            reporter.message(_removed(run.folder, exported, gone))
    seconds = round(time.monotonic() - started, 3)
    record.update(state="complete" if whole else "partial", results=files, finished=_now(), wall_seconds=seconds)


def _note(run: Preparation) -> None:
    """Tells the store, which others may use too, what this run needs."""
    try:
        keys = {step.stage: step.ref.key for step in run.steps}
        note_run(run.store, run.folder, keys, anew=run.computes)
    except (OSError, StoreError):
        if run.computes:  # else nothing is to be written, and it may be an archive
            raise


def _go_through(options: RunOptions, run: Preparation, record: _Record, reporter: Reporter) -> None:
    """Has each stage that is not skipped found in the store or computed."""
    source = options.source.absolute()
    jobs = jobs_of(run.steps, run.config, source, options.seed, options.device, run.location)
    handover = Handover(jobs)

    def do(job: StageJob) -> None:
        reporter.stage_started(job.step)
        known = stored_result(run.store, job.step.ref) if job.step.action == REUSE else None
        result = known or run_job(job, reporter.stage_progress, handover)
        record.stage_done(job.step, result)
        reporter.stage_finished(result)

    def prepare_networks() -> None:
        stages = run.config.stages()
        running = [stages[job.step.stage] for job in jobs if job.step.action == RUN]
        roles = [role for stage in running for role in stage.roles]
        # To count the frames of a video is to look through it: not where no network is to run.
        if roles and (told := shortage(run, run.count_frames())):
            reporter.message(told)
        run.model.prepare(
            roles, draws=any(stage.draws for stage in running), triangles=any(stage.triangles for stage in running)
        )
        record.update(
            device=run.model.device,
            kernels=run.model.kernels,
            machine={**machine(), "threads": num_threads()},
            model=_model_of(run),
        )

    if not run.computes:  # so no engine has anything to orchestrate, and nothing needs torch
        for job in jobs:
            do(job)
        return
    with compilation_said():
        engine = ENGINES[record.content["engine"]]
        engine(Schedule(record.folder.name, jobs, do, prepare_networks, options.out.absolute() / ".prefect"))


def _said(run: Preparation) -> str:
    """What is about to be done, in a line."""
    to_do = [step.stage for step in run.steps if step.action == RUN]
    return f"{run.folder}: {'computes ' + ', '.join(to_do) if to_do else 'nothing is left to compute'}"


def _start_record(options: RunOptions, run: Preparation) -> _Record:
    record = _Record(run.folder)
    record.update(
        name=run.folder.name,
        state="running",
        input={"path": str(options.source.absolute()), "sha256": run.source_digest},
        seed=options.seed,
        device=_of_results(run, "device", options.device),
        kernels=_of_results(run, "kernels", {}),
        engine=chosen_engine(options.engine) if run.computes else "none",
        model=_model_of(run),
        config=run.config.described(),
        unavailable=run.unavailable,
        versions=versions(),
        machine=machine(),
        started=_now(),
        overrides=list(options.overrides),
        **({"exported": run.before.exported.model_dump()} if run.before and run.before.exported else {}),
        **recorded(options),
        stages={
            s.stage: {"key": s.ref.key, "state": STATES[s.action], "reason": s.reason, "recipe": s.recipe}
            for s in run.steps
        },
    )
    return record


def _removed(folder: Path, exported: Exported, files: Collection[str]) -> str:
    """What a user is told of files that `ss4d export` had added and that showed another asset."""
    names = sorted({file.partition("/")[0] + ("/" if "/" in file else "") for file in files})
    commands = []
    for most in dict.fromkeys(exported.formats.values()):
        formats = ",".join(name for name, value in exported.formats.items() if value == most)
        words = ["ss4d", "export", str(folder), "--formats", formats]
        commands.append(shlex.join([*words, *([] if most is None else ["--max-gaussians", str(most)])]))
    again = f"; to make them anew: {' && '.join(commands)}" if commands else ""
    return f"Removed, since the asset is another one: {', '.join(names)}{again}"


def _model_of(run: Preparation) -> dict[str, Any]:
    return {**run.model.describe(), "notice": run.notice}


def _of_results(run: Preparation, name: str, default: Any) -> Any:
    """What a goal that is stored was computed with, its device for example; a run that computes says its own later."""
    for goal in run.goals:
        if run.store.contains(goal):
            return run.store.open(goal).attributes.get(name, default)
    return default


def _reason(error: BaseException) -> str:
    """What ended a run, in words for its record."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, SystemExit):
        return "terminated"
    return f"{type(error).__name__}: {error}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
