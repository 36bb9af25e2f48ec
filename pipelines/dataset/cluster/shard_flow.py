"""The Prefect flow that runs one shard on the machine where a worker starts it; `ss4d dataset submit` deploys it.

To `ss4d.pipelines.dataset.cluster.shard` it adds what a server is told: that the run is alive, its progress, and how
it ended.
"""

import contextvars
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from uuid import UUID

import httpx
from prefect import flow, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from ss4d.pipelines.dataset.cluster.shard import ShardEnd, ShardWatcher, ShardWork, do_shard
from ss4d.pipelines.dataset.cluster.shard_page import attempts_of, preview, summary
from ss4d.pipelines.dataset.layout import open_dataset
from ss4d.pipelines.dataset.workers.progress import Snapshot
from ss4d.pipelines.errors import EngineError

FLOW = "dataset-shard"
BEAT = 5.0  # seconds between two heartbeats
LOG_EVERY = 60.0  # seconds between two lines in the run's log
AWAY = (httpx.HTTPError, PrefectException)  # errors while a server does not answer


@flow(name=FLOW, persist_result=False)
def dataset_shard(work: ShardWork, shard: str) -> State[None]:
    """Runs what is not finished of one shard of a dataset; the state's message says how it ended.

    Args:
        work: what all shards share.
        shard: such as "2/8".
    """
    context = FlowRunContext.get()
    assert context is not None  # this runs as a flow
    assert context.flow_run is not None
    with Heartbeat(context.flow_run.id, artifact_key(work, shard, "progress")) as beats:
        ended = do_shard(work, shard, logging_watcher(beats.take))
    return publish(work, shard, ended)


@task(name=FLOW, task_run_name="{title}", cache_policy=NO_CACHE, persist_result=False)
def dataset_shard_task(work: ShardWork, shard: str, title: str) -> str:  # noqa: ARG001  the title names the task's run
    """The same as a task, for engines that notice a lost machine by themselves; gives a sentence.

    Raises:
        EngineError: with a sentence, if not all clips have ended.
    """
    ended = do_shard(work, shard, logging_watcher(lambda _: None))
    publish(work, shard, ended)
    if not ended.completed:
        raise EngineError(ended.message)
    return ended.message


@flow(name=f"{FLOW}s", persist_result=False)
def dataset_shards(work: ShardWork, shards: list[str]) -> list[tuple[bool, str]]:
    """Runs shards as tasks; gives for each whether it completed, and a sentence on how it ended."""
    futures = [dataset_shard_task.submit(work, shard, work.title(shard)) for shard in shards]
    ended = []
    for future in futures:
        try:
            ended.append((True, future.result()))
        except Exception as error:  # of the task, or of an engine that gave it up
            ended.append((False, str(error) or type(error).__name__))
    return ended


def logging_watcher(take: Callable[[Snapshot], None]) -> ShardWatcher:
    """Writes the progress into the run's log now and then, and passes every snapshot to `take`."""
    log = get_run_logger()
    said = time.monotonic()

    def watch(snapshot: Snapshot) -> None:
        nonlocal said
        take(snapshot)
        if time.monotonic() - said > LOG_EVERY:
            said = time.monotonic()
            log.info("%d of %d clips done, %d failed", snapshot.done, snapshot.clips, snapshot.num_failed)

    return ShardWatcher(say=log.info, take=watch)


def publish(work: ShardWork, shard: str, ended: ShardEnd) -> State[None]:
    """Puts a summary and a picture of the shard on the server; gives the final state of its run."""
    dataset = open_dataset(work.dataset, work.store)
    attempts = attempts_of(dataset, ended)
    create_markdown_artifact(
        summary(dataset, shard, ended, attempts),
        key=artifact_key(work, shard, "summary"),
        description=f"{work.title(shard)}: {ended.message}",
    )
    if (picture := preview(dataset, attempts)) is not None:
        description = f"{work.title(shard)}: first frames of some results"
        create_image_artifact(picture, key=artifact_key(work, shard, "preview"), description=description)
    return Completed(message=ended.message) if ended.completed else Failed(message=ended.message)


def artifact_key(work: ShardWork, shard: str, what: str) -> str:
    """The key of one of a shard's artifacts on the server: "birds-2of8-summary", in the letters that it allows."""
    return re.sub(r"[^a-z0-9]+", "-", f"{work.title(shard)} {what}".lower()).strip("-")


class Heartbeat:
    """Tells the server every few seconds that a flow run is alive, and its progress, while the context is open.

    Without it a run whose machine is lost looks like a slow one. A run that the server has ended or deleted stops as
    after Ctrl-C, since another run may have its shard.

    Args:
        flow_run: its id.
        key: of the progress that the server shows.
    """

    def __init__(self, flow_run: UUID, key: str) -> None:
        self._flow_run = flow_run
        self._key = key
        self._percent = 0.0
        self._over = threading.Event()

    def take(self, snapshot: Snapshot) -> None:
        """Takes the current progress."""
        self._percent = 100 * (snapshot.done + snapshot.num_failed) / max(snapshot.clips, 1)

    def __enter__(self) -> "Heartbeat":
        with get_client(sync_client=True) as client:
            progress = ArtifactCreate(type="progress", key=self._key, data=0.0, flow_run_id=self._flow_run)
            self._progress = client.create_artifact(progress).id
        run = contextvars.copy_context().run  # Prefect keeps its settings in the context
        self._thread = threading.Thread(target=run, args=(self._beat_until_over,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _beat_until_over(self) -> None:
        log, shown, over = get_run_logger(), 0.0, False
        with get_client(sync_client=True) as client:
            while not over:
                over = self._over.wait(BEAT)  # then one more beat, which reports the end
                try:
                    if self._given_up(client) and not over:
                        log.warning("The server has given this run up, so it stops.")
                        os.kill(os.getpid(), signal.SIGINT)
                        return
                    if self._percent != shown:
                        client.update_artifact(self._progress, ArtifactUpdate(data=self._percent))
                        shown = self._percent
                except AWAY as error:
                    log.warning("The server does not answer, and is tried again: %s", error)

    def _given_up(self, client: SyncPrefectClient) -> bool:
        """Whether the server has ended or deleted the run; sets its name again, which renews its last change."""
        try:
            run = client.read_flow_run(self._flow_run)
        except ObjectNotFound:
            return True
        client.update_flow_run(self._flow_run, name=run.name)
        return run.state is not None and run.state.is_final()
