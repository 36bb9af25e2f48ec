"""Two ways to do the jobs of a run in order: as tasks of a Prefect flow, or one after the other in this process."""

import errno
import logging
import os
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ss4d.pipelines.errors import EngineError
from ss4d.pipelines.plan import StageJob
from ss4d.pipelines.prefect_server import LocalServer, keep_loopback_direct, quiet_prefect

if TYPE_CHECKING:
    from prefect import Task
    from prefect.client.schemas.objects import State, TaskRun

LOG = logging.getLogger("ss4d")
TRANSIENT = {errno.EAGAIN, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ENETUNREACH}
RETRIES, RETRY_DELAY = 2, 1.0  # of a stage after an error that can pass; seconds


@dataclass(frozen=True)
class Schedule:
    """What an engine has to do."""

    name: str  # of the run
    jobs: Sequence[StageJob]  # in order
    do: Callable[[StageJob], None]
    prepare: Callable[[], None]  # slow work that needs no engine: loading networks
    home: Path  # folder for the engine's own files


class _Profiles(BaseModel):
    """What a file of Prefect's profiles holds."""

    active: str = ""
    profiles: dict[str, dict[str, str]] = {}


def chosen_engine(word: str) -> str:
    """The engine that a user's word means: "auto" is Prefect where it has a server to show runs, else direct."""
    return word if word != "auto" else "prefect" if _configured_server() else "direct"


def _configured_server() -> str | None:
    """The address of the user's own Prefect server, as the environment or the active profile has it."""
    return os.environ.get("PREFECT_API_URL") or _server_of_profile()


def _server_of_profile() -> str | None:
    """What the active Prefect profile says, read without Prefect, whose import takes two seconds."""
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    try:
        found = _Profiles.model_validate(tomllib.loads(path.read_text()))
    except (OSError, ValueError):  # there are none, or none that Prefect could read
        return None
    return found.profiles.get(os.environ.get("PREFECT_PROFILE") or found.active, {}).get("PREFECT_API_URL")


def direct(schedule: Schedule) -> None:
    """Does the jobs in this process, without Prefect."""
    schedule.prepare()
    for job in schedule.jobs:
        _patiently(schedule.do, job)


def _patiently(do: Callable[[StageJob], None], job: StageJob, retries: int = RETRIES) -> None:
    """Does a job, again after an error that can pass, as Prefect does it."""
    try:
        do(job)
    except OSError as error:
        if error.errno not in TRANSIENT or not retries:
            raise
        LOG.warning("%s is tried again: %s", job.step.stage, error)
        time.sleep(RETRY_DELAY)
        _patiently(do, job, retries - 1)


def prefect(schedule: Schedule) -> None:
    """Does the jobs as tasks of a Prefect flow, on the user's server if one is configured, or else on a private one.

    The private server starts while the networks load, and ends with the run, however the run ends. If it ends before,
    the run goes on without it.

    Raises:
        EngineError: the server cannot be started or reached.
    """
    quiet_prefect()
    configured = _configured_server()
    if _server_of_profile() is None:  # else the profile has to be found where it lies
        os.environ.setdefault("PREFECT_HOME", str(schedule.home))
    with ExitStack() as stack:
        server = None if configured else stack.enter_context(LocalServer(schedule.home))
        schedule.prepare()
        # Imported only here: it takes two seconds that the direct engine need not spend, and reads the settings above.
        import httpx
        from prefect.client.orchestration import get_client
        from prefect.settings import (
            PREFECT_API_AUTH_STRING,
            PREFECT_API_KEY,
            PREFECT_API_URL,
            PREFECT_CLIENT_MAX_RETRIES,
            temporary_settings,
        )

        if server is not None:
            keep_loopback_direct()
            private = temporary_settings(
                # On this very machine: who does not answer twice is gone.
                {
                    PREFECT_API_URL: server.wait(),
                    PREFECT_API_AUTH_STRING: server.password,
                    PREFECT_CLIENT_MAX_RETRIES: 1,
                },
                restore_defaults={PREFECT_API_KEY},
            )
            stack.enter_context(private)
        with get_client(sync_client=True) as client:
            if (problem := client.api_healthcheck()) is not None:
                raise EngineError(
                    f"the Prefect server at {PREFECT_API_URL.value()} cannot be used "
                    f"({problem or type(problem).__name__}); start it, or use --engine direct"
                )
        jobs = _Jobs(schedule)
        try:
            _run_flow(jobs)
        except Exception as error:
            if jobs.failed is not None:
                raise
            if server is not None and not server.lives():
                LOG.warning("the private Prefect server has ended; the run goes on without it")
            elif isinstance(error, httpx.HTTPError):
                raise EngineError(f"lost the Prefect server at {PREFECT_API_URL.value()}: {error}") from error
            else:
                raise
    for job in jobs.left():
        _patiently(schedule.do, job)


class _Jobs:
    """The jobs of a run, and what has become of them: what an engine says of them may be about itself.

    Attributes:
        schedule: that they are of.
        failed: how the last job ended, if it failed.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.failed: BaseException | None = None
        self._done: set[str] = set()

    def do(self, job: StageJob) -> None:
        """Does a job."""
        self.failed = None
        try:
            self.schedule.do(job)
        except BaseException as error:
            self.failed = error
            raise
        self._done.add(job.step.stage)

    def left(self) -> list[StageJob]:
        """The jobs that are not done, in order."""
        return [job for job in self.schedule.jobs if job.step.stage not in self._done]


def _run_flow(jobs: _Jobs) -> None:
    from prefect import flow

    schedule = jobs.schedule
    tasks = {job.step.stage: _task(job, jobs.do) for job in schedule.jobs}

    @flow(name="video-to-4d", flow_run_name=schedule.name, persist_result=False)
    def video_to_4d(stages: list[str]) -> None:  # noqa: ARG001  shown as the run's parameters
        states: dict[str, State[Any]] = {}
        for job in schedule.jobs:
            # Called, not submitted: a task in the main thread can be interrupted with Ctrl-C.
            upstream = [states[name] for name in job.inputs if name in states]
            state: State[Any] = tasks[job.step.stage](wait_for=upstream, return_state=True)
            states[job.step.stage] = state
            state.result()

    video_to_4d(list(tasks))


def _task(job: StageJob, do: Callable[[StageJob], None]) -> "Task[[], None]":
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    # The store's own look-up is the only cache.
    @task(
        name=job.step.stage,
        task_run_name=f"{job.step.stage}-{job.step.ref.key[:8]}",
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=RETRIES,
        retry_delay_seconds=RETRY_DELAY,
        retry_condition_fn=_is_transient,
    )
    def run_stage() -> None:
        do(job)

    return run_stage


def _is_transient(_task: "Task[..., Any]", _run: "TaskRun", state: "State[Any]") -> bool:
    """Only errors that can pass are tried again; bad input never."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, OSError) and error.errno in TRANSIENT


ENGINES: dict[str, Callable[[Schedule], None]] = {"prefect": prefect, "direct": direct}
