"""Two ways to do the jobs of a run in order: as tasks of a Prefect flow, or one after the other in this process."""

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ss4d.pipelines.errors import EngineError
from ss4d.pipelines.plan import Job
from ss4d.pipelines.prefect_server import LocalServer, keep_loopback_direct, quiet_prefect

if TYPE_CHECKING:
    from prefect import Task
    from prefect.client.schemas.objects import State, TaskRun

TRANSIENT = {errno.EAGAIN, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ENETUNREACH}


@dataclass(frozen=True)
class Schedule:
    """What an engine has to do."""

    name: str  # of the run
    jobs: Sequence[Job]  # in order
    do: Callable[[Job], None]
    prepare: Callable[[], None]  # slow work that needs no engine: loading networks
    home: Path  # folder for the engine's own files


def direct(schedule: Schedule) -> None:
    """Does the jobs in this process, without Prefect."""
    schedule.prepare()
    for job in schedule.jobs:
        schedule.do(job)


def prefect(schedule: Schedule) -> None:
    """Does the jobs as tasks of a Prefect flow, on the server that PREFECT_API_URL names or else on a private one.

    The private server starts while the networks load, and ends with the run, however the run ends.

    Raises:
        EngineError: the server cannot be started or reached.
    """
    quiet_prefect()
    os.environ.setdefault("PREFECT_HOME", str(schedule.home))
    with ExitStack() as stack:
        server = None if os.environ.get("PREFECT_API_URL") else stack.enter_context(LocalServer(schedule.home))
        schedule.prepare()
        # Imported only here: it takes two seconds that the direct engine need not spend, and reads the settings above.
        import httpx
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL, temporary_settings

        if server is not None:
            keep_loopback_direct()
            private = temporary_settings(
                {PREFECT_API_URL: server.wait()}, restore_defaults={PREFECT_API_AUTH_STRING, PREFECT_API_KEY}
            )
            stack.enter_context(private)
        with get_client(sync_client=True) as client:
            if (problem := client.api_healthcheck()) is not None:
                raise EngineError(
                    f"the Prefect server at {PREFECT_API_URL.value()} cannot be used "
                    f"({problem or type(problem).__name__}); start it, unset PREFECT_API_URL, or use --engine direct"
                )
        try:
            _run_flow(schedule)
        except httpx.HTTPError as error:
            raise EngineError(f"lost the Prefect server at {PREFECT_API_URL.value()}: {error}") from error


def _run_flow(schedule: Schedule) -> None:
    from prefect import flow

    tasks = {job.step.stage: _task(job, schedule.do) for job in schedule.jobs}

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


def _task(job: Job, do: Callable[[Job], None]) -> "Task[[], None]":
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    # The store's own look-up is the only cache.
    @task(
        name=job.step.stage,
        task_run_name=f"{job.step.stage}-{job.step.ref.key[:8]}",
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=2,
        retry_delay_seconds=1,
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
