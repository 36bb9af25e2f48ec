"""A dataset on several machines, for real: a Prefect server, a work pool, three workers, one of them killed."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings

from ss4d.pipelines.dataset.cluster.prefect_pool import PrefectServer, prefect_server
from ss4d.pipelines.dataset.cluster.runs import AwayError, ShardRun
from ss4d.pipelines.dataset.cluster.shard import ShardWork
from ss4d.pipelines.dataset.events import Attempt, read_events
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.manifest import read_manifest
from ss4d.pipelines.dataset.select import Shard
from ss4d.pipelines.errors import ConfigError
from tests.helpers import poisoned
from tests.helpers.places import ROOT
from tests.helpers.poisoned import METHODS, SLOW, make_dataset, save_clip

STAGES = ("segmentation", "decoding", "export")
PATIENCE = 400  # seconds; a busy machine takes its time

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of all processes: the poisoned stages, and a server on a free port."""
    site = tmp_path_factory.mktemp("site")
    poisoned.install(site)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def server(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server with a database of its own."""
    url = environment["PREFECT_API_URL"]
    port = url.rpartition(":")[2].removesuffix("/api")
    words = ("server", "start", "--host", "127.0.0.1", "--port", port)
    process = start(environment, tmp_path_factory.mktemp("server") / "log", "prefect", *words)
    try:
        until(lambda: answers(url))
        yield url
    finally:
        kill_tree(process)


def start(environment: dict[str, str], log: Path, module: str, *words: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", module, *words],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def asked(url: str, what: str) -> list[dict[str, Any]]:
    """All flow runs, or all artifacts, that the server knows."""
    request = urllib.request.Request(
        f"{url}/{what}/filter", data=b"{}", headers={"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def until(holds: Callable[[], Any]) -> Any:
    """What `holds` gives, once that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)
    return found


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and all that it started, as when a machine loses its power."""
    try:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    process.wait()


def attempts(dataset: Dataset) -> list[Attempt]:
    return [attempt for batch in read_events(dataset.events, {}) for attempt in batch.attempts]


def dataset_of(folder: Path, shards: int, each: int) -> Dataset:
    """A dataset that has so many slow clips in each shard."""
    left = {Shard(number, shards): each for number in range(1, shards + 1)}
    clips = []
    for number in range(1000):
        shard = next(shard for shard in left if shard.has(f"c{number}"))
        if left[shard]:
            left[shard] -= 1
            clips.append(folder / "clips" / f"c{number}")
            save_clip(clips[-1], SLOW, number)
    assert not any(left.values())
    return make_dataset(folder / "birds", clips)


def submission(dataset: Dataset, *more: str) -> tuple[str, ...]:
    sets = [word for value in (*METHODS, "segmentation.seconds=1.5") for word in ("--set", value)]
    given = ("--workers", "1", "--lanes", "1", "--device", "cpu", *sets, *more)
    return ("dataset", "submit", str(dataset.folder), *given)


def test_every_clip_is_done_once_though_a_machine_is_lost(
    server: str, environment: dict[str, str], tmp_path: Path
) -> None:
    dataset = dataset_of(tmp_path, 3, each=4)
    words = ("worker", "start", "--pool", "machines", "--type", "process", "--limit", "1")
    workers = [start(environment, tmp_path / f"worker-{number}.log", "prefect", *words) for number in range(3)]
    started = list(workers)
    log = tmp_path / "submit.log"
    try:
        until(lambda: asked(server, "work_pools"))
        sets = ("--set", "export.turntable=true")
        more = submission(dataset, "--shards", "3", "--pool", "machines", "--silence", "25", *sets)
        started.append(command := start(environment, log, "ss4d.cli.entry", *more))
        lost = until(lambda: at_work(dataset, workers))
        kill_tree(lost)
        assert len({attempt.clip for attempt in attempts(dataset) if attempt.stage == "export"}) < 12, (
            "it was over too soon"
        )
        assert command.wait(PATIENCE) == 0, log.read_text()
    finally:
        for process in started:
            kill_tree(process)
    said = log.read_text()
    assert "crashed: no heartbeat for" in said
    assert "another worker continues it" in said
    assert "12 of 12 clips are finished" in said

    # What was stored when the machine was lost, and not yet told, is found there.
    found = Counter((attempt.clip, attempt.stage) for attempt in attempts(dataset))
    assert set(found) == {(row.id, stage) for row in read_manifest(dataset) for stage in STAGES}
    assert set(found.values()) == {1}
    assert {attempt.state for attempt in attempts(dataset)} <= {"done", "reused"}

    runs = Counter((run["name"], run["state_type"]) for run in asked(server, "flow_runs"))
    crashed = [name for name, state in runs if state == "CRASHED"]
    assert len(crashed) == 1
    assert runs == Counter(
        {(f"birds {number}of3", "COMPLETED"): 1 for number in (1, 2, 3)} | {(crashed[0], "CRASHED"): 1}
    )
    shown = {(artifact["type"], artifact["key"]): artifact["data"] for artifact in asked(server, "artifacts")}
    kinds = {"summary": "markdown", "progress": "progress", "preview": "image"}
    names = [f"birds-{number}of3" for number in (1, 2, 3)]
    assert shown.keys() == {(kinds[kind], f"{name}-{kind}") for name in names for kind in kinds}
    for name in names:  # also of the shard that was begun by a machine that is lost
        for stage in STAGES:
            row = f"| [{stage}]({Path(dataset.store, stage).as_uri()}) | 4 |"
            assert row in shown["markdown", f"{name}-summary"]
        assert picture_size(shown["image", f"{name}-preview"]) == (4 * 128, 128)

    again = tmp_path / "again.log"
    assert start(environment, again, "ss4d.cli.entry", *more).wait(PATIENCE) == 0
    assert "Nothing is left to do." in again.read_text()
    assert len(asked(server, "flow_runs")) == 4


def picture_size(url: str) -> tuple[int, int]:
    """Width and height of a picture in a `data:` URL."""
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size


def at_work(dataset: Dataset, workers: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes] | None:
    """A worker whose shard has one clip finished, and others left."""
    for attempt in attempts(dataset):
        if attempt.stage == "export":
            parents = {parent.pid for parent in psutil.Process(int(attempt.worker.rpartition(":")[2])).parents()}
            return next(worker for worker in workers if worker.pid in parents)
    return None


def test_runs_on_a_real_server(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = ShardWork(dataset=tmp_path / "birds")
    with temporary_settings({PREFECT_API_URL: server}):
        message = "no work pool called 'idle'; make it with `prefect work-pool create idle"
        with pytest.raises(ConfigError, match=message), prefect_server("idle", {}):
            pass
        with get_client(sync_client=True) as client:
            client.create_work_pool(WorkPoolCreate(name="idle", type="process"))
        with prefect_server("idle", {"env": {"A": "b"}}) as runs:
            first = runs.create(work, "1/2", None)
        assert (first.name, first.state) == ("birds 1of2", "waiting")
        with prefect_server("idle", {}) as runs:  # finds the deployment there
            on_server(runs, work, first, monkeypatch)
    nowhere = "http://127.0.0.1:9/api"
    with temporary_settings({PREFECT_API_URL: nowhere}), pytest.raises(AwayError, match=nowhere):
        runs_elsewhere(work)


def on_server(runs: PrefectServer, work: ShardWork, first: ShardRun, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs.create(work, "1/2", None).id == first.id  # who submits at the same time gets the same run
    assert [run.id for run in runs.runs_of(work)] == [first.id]
    runs.crash(first, "it is gone")
    second = runs.create(work, "1/2", first)
    monkeypatch.setattr("ss4d.pipelines.dataset.cluster.prefect_pool.PAGE", 1)
    known = runs.runs_of(work)
    assert [(run.id, run.state) for run in known] == [(first.id, "crashed"), (second.id, "waiting")]
    assert known[0].message == "it is gone"
    assert ShardWork.model_validate(known[1].work) == work
    assert runs.read([str(uuid4()), second.id]) == known[1:]
    assert runs.runs_of(ShardWork(dataset=work.dataset / "other")) == []
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(second.id), name=second.name)  # a heartbeat
    assert runs.read([second.id])[0].changed > known[1].changed


def runs_elsewhere(work: ShardWork) -> None:
    with get_client(sync_client=True) as client:
        PrefectServer(client, uuid4(), {}).runs_of(work)


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_shards_as_tasks_of_another_engine(
    server: str, environment: dict[str, str], tmp_path: Path, engine: str
) -> None:
    pytest.importorskip(f"prefect_{engine}")
    dataset = dataset_of(tmp_path, 2, each=1)
    log = tmp_path / "submit.log"
    command = start(environment, log, "ss4d.cli.entry", *submission(dataset, "--shards", "2", "--engine", engine))
    assert command.wait(PATIENCE) == 0, log.read_text()
    assert "2 of 2 clips are finished" in log.read_text()
    found = Counter((attempt.clip, attempt.stage, attempt.state) for attempt in attempts(dataset))
    assert len(found) == 6
    assert {(state, times) for (_, _, state), times in found.items()} == {("done", 1)}
    tasks = {run["name"] for run in asked(server, "task_runs")}
    assert {"birds 1of2", "birds 2of2"} <= tasks


def test_without_a_server_the_command_says_how_to_start_one(environment: dict[str, str], tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, 1, each=1)
    log = tmp_path / "submit.log"
    nowhere = {name: value for name, value in environment.items() if name != "PREFECT_API_URL"}
    command = start(nowhere, log, "ss4d.cli.entry", *submission(dataset, "--shards", "1", "--pool", "machines"))
    assert command.wait(PATIENCE) == 1
    assert "prefect server start" in log.read_text()
    assert "Traceback" not in log.read_text()
