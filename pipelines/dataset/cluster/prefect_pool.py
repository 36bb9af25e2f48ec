"""The runs of shards on a Prefect server: a deployment for each work pool, a flow run for each shard."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ss4d.pipelines.dataset.cluster.runs import AwayError, ShardRun, State
from ss4d.pipelines.dataset.cluster.shard import ShardWork
from ss4d.pipelines.errors import ConfigError, EngineError
from ss4d.pipelines.prefect_server import quiet_prefect

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

PAGE = 100  # runs per query; a server gives at most 200
STATES: dict[str, State] = {
    "SCHEDULED": "waiting",
    "PENDING": "starting",
    "RUNNING": "running",
    "PAUSED": "running",
    "CANCELLING": "stopping",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CRASHED": "crashed",
    "CANCELLED": "cancelled",
}


class PrefectServer:
    """A `Server` of runs over Prefect's API; `prefect_server` gives one.

    Args:
        client: of the Prefect server.
        deployment: id of the flow's deployment for a work pool.
        job_variables: of each run, in addition to the pool's.
    """

    def __init__(self, client: "SyncPrefectClient", deployment: UUID, job_variables: Mapping[str, Any]) -> None:
        self._client = client
        self._deployment = deployment
        self._job_variables = dict(job_variables)

    def runs_of(self, work: ShardWork) -> list[ShardRun]:
        """All runs of the dataset's shards that there have been, the oldest first."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[_tag(work)]))
        found: dict[UUID, FlowRun] = {}
        while True:
            with answering():
                page = self._client.read_flow_runs(flow_run_filter=tagged, limit=PAGE, offset=len(found))
            new = {run.id: run for run in page if run.id not in found}
            found.update(new)
            if len(page) < PAGE or not new:
                return [_run(run) for run in sorted(found.values(), key=lambda run: (str(run.created), str(run.id)))]

    def read(self, ids: Sequence[str]) -> list[ShardRun]:
        """The runs with these ids that still exist, in any order."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        found: list[ShardRun] = []
        for start in range(0, len(ids), PAGE):
            some = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run_id) for run_id in ids[start : start + PAGE]]))
            with answering():
                found += map(_run, self._client.read_flow_runs(flow_run_filter=some, limit=PAGE))
        return found

    def create(self, work: ShardWork, shard: str, after: ShardRun | None) -> ShardRun:
        """A new run of a shard, to follow the run `after`; if such a run exists already, that one."""
        with answering():
            run = self._client.create_flow_run_from_deployment(
                self._deployment,
                parameters={"work": work.model_dump(mode="json"), "shard": shard},
                name=work.title(shard),
                tags=[_tag(work)],
                # Two submissions at the same time give the same key, and get the same run.
                idempotency_key=f"{_tag(work)} {shard} after {after.id if after else 'nothing'}",
                job_variables=self._job_variables,
            )
        return _run(run)

    def crash(self, run: ShardRun, message: str) -> None:
        """Marks a run as crashed."""
        from prefect.states import Crashed

        with answering():
            self._client.set_flow_run_state(run.id, Crashed(message=message), force=True)


@contextmanager
def prefect_server(pool: str, job_variables: Mapping[str, Any]) -> Iterator[PrefectServer]:
    """The user's Prefect server, with a deployment of the shards' flow for a work pool, created or updated.

    Args:
        pool: the work pool's name.
        job_variables: of each run, in addition to the pool's, such as `image`.

    Raises:
        ConfigError: if the server has no such pool.
        EngineError: if there is no server, or it cannot be used.
    """
    with connected() as client:
        _check_pool(client, pool)
        with answering():
            deployment = _deploy(client, pool)
        yield PrefectServer(client, deployment, job_variables)


@contextmanager
def connected() -> Iterator["SyncPrefectClient"]:
    """A client of the server that PREFECT_API_URL names.

    Raises:
        EngineError: if there is none, or it cannot be used.
    """
    quiet_prefect()
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    if not (url := PREFECT_API_URL.value()):
        raise EngineError(
            "many machines need a Prefect server that all can reach: start one with `prefect server start --host "
            "0.0.0.0`, and say where it is with `export PREFECT_API_URL=http://HOST:4200/api`"
        )
    with get_client(sync_client=True) as client:
        if (problem := client.api_healthcheck()) is not None:
            raise EngineError(
                f"the Prefect server at {url} cannot be used ({problem or type(problem).__name__}); start it with "
                "`prefect server start`, or say with PREFECT_API_URL where it is"
            )
        yield client


@contextmanager
def answering() -> Iterator[None]:
    """Raises AwayError in place of the errors of a server that does not answer."""
    import httpx
    from prefect.settings import PREFECT_API_URL

    try:
        yield
    except httpx.HTTPError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AwayError(f"the Prefect server at {PREFECT_API_URL.value()} does not answer ({reason})") from error


def _check_pool(client: "SyncPrefectClient", pool: str) -> None:
    from prefect.exceptions import ObjectNotFound

    try:
        with answering():
            client.read_work_pool(pool)
    except ObjectNotFound as error:
        raise ConfigError(
            f"the Prefect server has no work pool called {pool!r}; make it with `prefect work-pool create {pool} "
            "--type process`, and start a worker on each machine with `prefect worker start --limit 1 --pool "
            f"{pool}`"
        ) from error


def _deploy(client: "SyncPrefectClient", pool: str) -> UUID:
    """Creates the deployment; it names a module, so every machine with this package installed can run it."""
    from prefect.utilities.callables import parameter_schema

    from ss4d.pipelines.dataset.cluster.shard_flow import dataset_shard

    return client.create_deployment(
        flow_id=client.create_flow(dataset_shard),
        name=pool,
        entrypoint=f"{dataset_shard.__module__}.{dataset_shard.fn.__name__}",
        work_pool_name=pool,
        description="One shard of a dataset; `ss4d dataset submit` makes its runs.",
        parameter_openapi_schema=parameter_schema(dataset_shard).model_dump(),
    )


def _tag(work: ShardWork) -> str:
    return f"dataset:{work.dataset}"


def _run(run: "FlowRun") -> ShardRun:
    assert run.state is not None  # a server gives every run one
    return ShardRun(
        id=str(run.id),
        name=run.name,
        shard=str(run.parameters.get("shard", "")),
        work=run.parameters.get("work", {}),
        state=STATES[run.state.type.value],
        message=run.state.message or run.state.name or "",
        changed=f"{run.updated} {run.state.type.value}",
    )
