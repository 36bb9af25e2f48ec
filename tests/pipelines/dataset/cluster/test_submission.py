"""Shards on many machines: who is given up and begun again, and what is told."""

import base64
import io
import logging
import math
import re
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import torch
from PIL import Image
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed, Running
from typer.testing import CliRunner

from ss4d.cli.dataset import app
from ss4d.cli.dataset_submit import line
from ss4d.pipelines.dataset.cluster import shard_flow
from ss4d.pipelines.dataset.cluster import submission as cluster
from ss4d.pipelines.dataset.cluster.progress import ClusterView, ShardMetrics
from ss4d.pipelines.dataset.cluster.runs import AwayError, ShardRun, State
from ss4d.pipelines.dataset.cluster.shard import ShardEnd, ShardWork
from ss4d.pipelines.dataset.cluster.shard_flow import Heartbeat, artifact_key
from ss4d.pipelines.dataset.cluster.shard_page import preview, summary
from ss4d.pipelines.dataset.cluster.submission import RunMonitor, Submission, begin, shards_of
from ss4d.pipelines.dataset.cluster.task_runners import submit_tasks
from ss4d.pipelines.dataset.events import Attempt
from ss4d.pipelines.dataset.layout import Dataset, create_dataset
from ss4d.pipelines.dataset.workers.todo import Source, Todo
from ss4d.pipelines.errors import ConfigError
from ss4d.stages.video_io import write_video
from ss4d.storage.files import write_json
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import open_store

KEY = "a" * 64


@dataclass
class FakeServer:
    """Runs that change as a test says: each step of the clock plays the next word of a run's script."""

    runs: dict[str, ShardRun] = field(default_factory=dict)
    scripts: dict[str, list[str]] = field(default_factory=dict)  # by shard, one word a look; the last one stays
    away: set[int] = field(default_factory=set)  # looks that are not answered
    looks: int = 0

    def runs_of(self, work: ShardWork) -> list[ShardRun]:
        return list(self.runs.values())

    def read(self, ids: Sequence[str]) -> list[ShardRun]:
        self.looks += 1
        if self.looks in self.away:
            raise AwayError("the server does not answer")
        return [self._next(self.runs[run_id]) for run_id in ids if run_id in self.runs]

    def create(self, work: ShardWork, shard: str, after: ShardRun | None) -> ShardRun:
        made = run(shard, work, id_=f"{shard}#{sum(run.shard == shard for run in self.runs.values()) + 1}")
        self.runs[made.id] = made
        return made

    def crash(self, given: ShardRun, message: str) -> None:
        self.runs[given.id] = replace(given, state="crashed", message=message)

    def _next(self, before: ShardRun) -> ShardRun:
        """A word is a state, or "beat": it runs, and gave a heartbeat."""
        script = self.scripts.get(before.id, self.scripts.get(before.shard, ["completed"]))
        word = script.pop(0) if len(script) > 1 else script[0]
        state: Any = "running" if word == "beat" else word
        changed = str(self.looks) if word == "beat" or state != before.state else before.changed
        self.runs[before.id] = replace(before, state=state, changed=changed, message=word)
        return self.runs[before.id]


def run(shard: str, work: ShardWork, state: State = "waiting", id_: str = "old") -> ShardRun:
    said = work.model_dump(mode="json")
    return ShardRun(id=id_, name=work.title(shard), shard=shard, work=said, state=state, message="", changed="")


class Listener:
    """Hears how a submission goes on, and keeps it."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.views: list[ClusterView] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def show(self, view: ClusterView) -> None:
        self.views.append(view)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What `time.monotonic` says; each sleep between two looks takes ten seconds."""
    now = [1000.0]

    def sleep(_: float) -> None:
        now[0] += 10.0

    monkeypatch.setattr(cluster.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(cluster.time, "sleep", sleep)
    return now


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return create_dataset(tmp_path / "birds")


def followed(server: FakeServer, dataset: Dataset, *shards: str, **more: Any) -> tuple[dict[str, ShardRun], list[str]]:
    """How the shards end, and what was said."""
    work, listener = ShardWork(dataset=dataset.folder), Listener()
    submission = Submission(work=work, shards=len(shards), **more)
    runs = {shard: server.create(work, shard, None) for shard in shards}
    progress = ShardMetrics(dataset, shards, 10)
    ended = RunMonitor(submission, server, runs, progress, listener).follow()
    return {run.shard: run for run in ended}, listener.messages


def test_a_silent_run_is_given_up_and_another_one_goes_on(clock: list[float], dataset: Dataset) -> None:
    server = FakeServer(scripts={"1/2#1": ["starting", "running"], "1/2#2": ["beat"] * 30 + ["completed"]})
    ended, said = followed(server, dataset, "1/2", "2/2", silence=60)
    assert server.runs["1/2#1"].state == "crashed"
    assert ended["1/2"].id == "1/2#2"
    assert {run.state for run in ended.values()} == {"completed"}
    assert "birds 1of2: crashed: no heartbeat for 70 s; another worker continues it" in said


def test_a_run_that_waits_for_a_worker_is_never_given_up(clock: list[float], dataset: Dataset) -> None:
    server = FakeServer(scripts={"1/1": ["waiting"] * 1000 + ["completed"]})
    ended, said = followed(server, dataset, "1/1", silence=60)
    assert ended["1/1"].state == "completed"
    assert said[0] == "No worker of the pool takes the shards: `prefect worker start` starts one."
    assert len(said) == 2


def test_a_run_that_never_begins_is_given_up_later(clock: list[float], dataset: Dataset) -> None:
    server = FakeServer(scripts={"1/1#1": ["starting"]})
    _, said = followed(server, dataset, "1/1", silence=60)
    assert said[0].startswith("birds 1of1: crashed: no heartbeat for 910 s")


def test_what_somebody_stops_is_not_begun_again(clock: list[float], dataset: Dataset) -> None:
    server = FakeServer(scripts={"1/1": ["running", "stopping"]})
    ended, _ = followed(server, dataset, "1/1", silence=60)
    assert (ended["1/1"].state, len(server.runs)) == ("cancelled", 1)


def test_a_shard_is_begun_again_a_few_times(clock: list[float], dataset: Dataset) -> None:
    server = FakeServer(scripts={"1/1": ["running", "crashed"]})
    ended, said = followed(server, dataset, "1/1", restarts=2)
    assert (ended["1/1"].state, len(server.runs)) == ("crashed", 3)
    assert [text.endswith("another worker continues it") for text in said] == [True, True, False]


@pytest.mark.parametrize("state", ["failed", "cancelled", "completed"])
def test_other_ends_are_ends(clock: list[float], dataset: Dataset, state: str) -> None:
    server = FakeServer(scripts={"1/1": ["running", state]})
    ended, said = followed(server, dataset, "1/1")
    assert (ended["1/1"].state, len(server.runs)) == (state, 1)
    assert said == [f"birds 1of1: {state}: {state}"]


def test_a_run_that_was_deleted_is_over(clock: list[float], dataset: Dataset) -> None:
    server = FakeServer(scripts={"1/1": ["running"]})
    work = ShardWork(dataset=dataset.folder)
    made = server.create(work, "1/1", None)
    del server.runs[made.id]
    submission = Submission(work=work, shards=1)
    (ended,) = RunMonitor(submission, server, {"1/1": made}, ShardMetrics(dataset, ["1/1"], 1), Listener()).follow()
    assert (ended.state, ended.message) == ("cancelled", "it was deleted on the server")


def test_while_the_server_is_away_nobody_is_given_up(clock: list[float], dataset: Dataset) -> None:
    server = FakeServer(scripts={"1/1": [*["running"] * 6, *["running"] * 6, "completed"]}, away=set(range(6, 40)))
    ended, said = followed(server, dataset, "1/1", silence=60)
    assert (ended["1/1"].state, ended["1/1"].id) == ("completed", "1/1#1")
    assert [text for text in said if "does not answer" in text] == [
        "the server does not answer; this is tried again until it answers"
    ]


# Beginning


def test_what_is_under_way_is_watched_and_not_begun_again(dataset: Dataset) -> None:
    work = ShardWork(dataset=dataset.folder, command="ss4d dataset submit birds --shards 3")
    again = work.model_copy(update={"command": "ss4d dataset submit birds --shards 3 --no-wait"})
    server = FakeServer(runs={"x": run("1/3", work, "running", "x"), "y": run("2/3", work, "completed", "y")})
    listener = Listener()
    begun = begin(Submission(work=again, shards=3), server, ["1/3", "2/3"], listener)
    assert {shard: run.id for shard, run in begun.items()} == {"1/3": "x", "2/3": "2/3#2"}
    assert listener.messages == ["1 of 2 shards are in progress already, and are watched."]


@pytest.mark.parametrize("change", [{"shards": 4}, {"seed": 8}])
def test_two_submissions_do_not_do_the_same_clips(dataset: Dataset, change: dict[str, int]) -> None:
    work = ShardWork(dataset=dataset.folder)
    server = FakeServer(runs={"x": run("1/3", work, "running", "x")})
    other = ShardWork.model_validate({**work.model_dump(), "settings": {"seed": change.get("seed", 42)}})
    submission = Submission(work=other, shards=change.get("shards", 3))
    with pytest.raises(
        ConfigError, match=r"1 shards of another submission of .* such as 'birds 1of3'.* flow-run delete x"
    ):
        begin(submission, server, ["1/4"], Listener())
    server.runs["x"] = replace(server.runs["x"], state="crashed")
    begin(submission, server, ["1/4"], Listener())


def test_only_shards_with_something_to_do(dataset: Dataset) -> None:
    todo = [Todo(Source(name, "", ""), "", ()) for name in ("a", "b")]
    assert shards_of(todo, 1) == ["1/1"]
    assert shards_of([], 5) == []
    assert len(shards_of(todo, 100)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shards": 0}, "--shards must be"),
        ({"silence": 1}, "--silence must be"),
        ({"silence": math.nan}, "--silence must be"),
        ({"restarts": -1}, "--restarts must be"),
    ],
)
def test_numbers_out_of_range_are_refused(dataset: Dataset, change: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Submission(**{"work": ShardWork(dataset=dataset.folder), "shards": 1, **change})  # type: ignore[arg-type]


def test_work_survives_json(dataset: Dataset) -> None:
    work = ShardWork(dataset=dataset.folder, where="frames > 3", workers=2)
    assert ShardWork.model_validate_json(work.model_dump_json()) == work
    assert work.options("2/8").choice.shard == "2/8"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--pool says which work pool"),
        (("--pool", "p", "--address", "tcp://host"), "--address is for --engine dask or ray"),
        (("--pool", "p", "--job-variable", "image"), "--job-variable takes KEY=VALUE; got 'image'"),
        (("--engine", "dask", "--image", "i"), "--engine dask has no work pools: leave --image out"),
        (("--engine", "ray", "--no-wait"), "leave --no-wait out"),
    ],
)
def test_options_that_would_not_be_heeded_are_refused(dataset: Dataset, options: Sequence[str], words: str) -> None:
    result = CliRunner().invoke(app, ["submit", str(dataset.folder), "--shards", "2", *options])
    assert result.exit_code == 1
    assert words in " ".join(result.stderr.split())


def test_engines_are_told_how_much_a_shard_takes(dataset: Dataset) -> None:
    submission = Submission(work=ShardWork(dataset=dataset.folder), shards=2)
    with pytest.raises(ConfigError, match="--engine dask needs --workers"):
        submit_tasks(submission, "dask", None, Listener())


# ShardMetrics


def test_clips_of_all_machines_are_counted_once(dataset: Dataset) -> None:
    def said(shard: str, coordinator: str, done: int) -> None:
        content = {"coordinator": coordinator, "done": done, "failed": {"input": 1}, "per_second": 0.5}
        write_json(dataset.metrics_of(shard), content)

    work = ShardWork(dataset=dataset.folder)
    said("1/2", "host:1", 7)  # of an earlier submission
    progress = ShardMetrics(dataset, ["1/2", "2/2"], 20)
    runs = [run("1/2", work, "running"), run("2/2", work, "waiting")]
    assert (progress.view(runs).done, progress.view(runs).remaining_seconds) == (0, None)
    said("1/2", "host:2", 3)
    assert progress.view(runs).done == 3
    said("1/2", "host:3", 4)  # after host:2 was lost
    view = progress.view(runs)
    assert (view.done, view.failed, view.per_second, view.remaining_seconds) == (7, 2, 0.5, 22.0)
    assert line(view) == "shards: 1 running, 1 waiting; 7 of 20 clips done, 2 failed, 0.50 clips/s, 22 s left"
    dataset.metrics_of("1/2").write_text("{torn")
    assert progress.view(runs).done == 7


# Signs of life


class FakeClient:
    """A server that answers with the next of these states of the run, or not at all."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers
        self.beats = 0
        self.progress: list[float] = []

    def __enter__(self) -> "FakeClient":
        return self

    def __exit__(self, *_: object) -> None: ...

    def create_artifact(self, artifact: Any) -> Any:
        return SimpleNamespace(id=artifact.key)

    def read_flow_run(self, flow_run: UUID) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(name="birds 1of2", state=answer)

    def update_flow_run(self, flow_run: UUID, name: str) -> None:
        self.beats += 1

    def update_artifact(self, artifact: str, update: Any) -> None:
        self.progress.append(update.data)


def beaten(monkeypatch: pytest.MonkeyPatch, answers: list[Any], done: int) -> tuple[FakeClient, list[int]]:
    """What a run tells a server while it does that many of ten clips, and the signals it sends itself."""
    client, signals, told = FakeClient(answers), [], threading.Event()
    monkeypatch.setattr(shard_flow, "get_client", lambda sync_client: client)
    monkeypatch.setattr(shard_flow, "get_run_logger", lambda: logging.getLogger("ss4d"))
    monkeypatch.setattr(shard_flow, "BEAT", 0.01)
    monkeypatch.setattr(shard_flow.os, "kill", lambda pid, number: (signals.append(number), told.set()))
    with Heartbeat(uuid4(), "birds-1of2-progress") as beats:
        beats.take(SimpleNamespace(done=done, num_failed=1, clips=10))  # type: ignore[arg-type]
        told.wait(0.3)
    return client, signals


def test_a_run_says_that_it_lives_and_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    client, signals = beaten(monkeypatch, [Running(), httpx.ConnectError("away"), Running()], done=4)
    assert client.beats > 2
    assert client.progress == [50.0]
    assert signals == []


@pytest.mark.parametrize("answer", [Crashed(), ObjectNotFound(http_exc=Exception())])
def test_a_run_that_was_given_up_stops(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    _, signals = beaten(monkeypatch, [Running(), answer], done=4)
    assert signals == [signal.SIGINT]


def test_names_on_the_server_have_letters_that_it_allows() -> None:
    assert artifact_key(ShardWork(dataset=Path("/data/My Birds_2")), "2/8", "summary") == "my-birds-2-2of8-summary"


# Pages


def failed(clip: str, message: str) -> Attempt:
    common: dict[str, Any] = {"stage": "segmentation", "key": KEY, "time": "", "error": "InputError", "cause": "input"}
    return Attempt(clip=clip, state="failed", message=message, **common)


def test_the_summary_of_a_shard_takes_nothing_for_markup(dataset: Dataset) -> None:
    made = [Attempt(clip=f"c{n}", stage="slat", key=KEY, state="done", time="", seconds=n + 0.5) for n in range(7)]
    attempts = [*made, failed("a_b", "no <b>object</b>\n| x |"), failed("c", "another")]
    text = summary(dataset, "2/8", ShardEnd(completed=True, message="7 clips done, 2 failed"), attempts)
    assert text.startswith("# birds, shard 2/8\n\n7 clips done, 2 failed.\n")
    assert f"| [slat]({Path(dataset.store, 'slat').as_uri()}) | 7 | 3.50 | 6.50 |" in text
    assert re.findall(r"\[(c\d)\]", text) == ["c6", "c5", "c4", "c3", "c2"]
    row = f"| input | InputError | segmentation | 2 | [a\\_b]({dataset.log('a_b').as_uri()}): "
    assert row + r"no \<b\>object\</b\> \| x \| |" in text
    assert dataset.catalog.as_uri() in text
    remote = summary(replace(dataset, store="s3://bucket/birds"), "2/8", ShardEnd(completed=True, message=""), made)
    assert "| [slat](s3://bucket/birds/slat) | 7 |" in remote


def test_the_picture_of_a_shard_shows_first_frames(dataset: Dataset) -> None:
    store = open_store(dataset.store)
    with store.create(ArtifactRef("export", KEY)) as writer:
        frames = [torch.full((64, 64, 3), 200, dtype=torch.uint8), torch.zeros(64, 64, 3, dtype=torch.uint8)]
        write_video(writer.folder / "turntable.mp4", frames, 24)
        writer.commit({})
    made = Attempt(clip="a", stage="export", key=KEY, state="done", time="")
    gone = replace(made, clip="b", key="b" * 64)
    url = preview(dataset, [made, gone, replace(made, clip="c", state="reused"), replace(made, stage="slat")])
    assert url is not None
    head, _, data = url.partition(",")
    assert head == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert picture.size == (256, 128)
    assert abs(picture.convert("L").getpixel((64, 64)) - 200) < 8
    assert preview(dataset, [gone]) is None
