"""Runs of a dataset: every clip once, nothing again, exactly what a changed parameter asks for; and its records."""

import json
import logging
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.dataset.events import read_events
from ss4d.pipelines.dataset.keys import Settings, last_settings
from ss4d.pipelines.dataset.launch import DatasetOptions, plan_dataset, planned_work, run_dataset
from ss4d.pipelines.dataset.launches import last_recipes, only_launch
from ss4d.pipelines.dataset.layout import Dataset, open_dataset
from ss4d.pipelines.dataset.opened import open_for
from ss4d.pipelines.dataset.rebuild import rebuild_index
from ss4d.pipelines.dataset.select import Choice
from ss4d.pipelines.dataset.workers.clip_log import ClipLogs
from ss4d.pipelines.dataset.workers.messages import Message, Paused, Resumed
from ss4d.pipelines.dataset.workers.progress import Snapshot
from ss4d.pipelines.dataset.workers.worker import Turn
from ss4d.pipelines.errors import ConfigError
from ss4d.stages.errors import InputError
from ss4d.stages.types import silent
from ss4d.storage.errors import StoreError
from ss4d.storage.store import open_store
from tests.conftest import FAST, draw_frames, save_frames
from tests.helpers.dataset_history import read_catalog
from tests.helpers.poisoned import make_dataset


class Listener:
    """Hears how a run goes on, and keeps it."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.last: Snapshot | None = None

    def message(self, text: str) -> None:
        self.messages.append(text)

    def show(self, snapshot: Snapshot) -> None:
        self.last = snapshot


def events(dataset: Dataset) -> Counter[tuple[str, str, str]]:
    """How often what became of which clip in which stage."""
    return Counter(
        (attempt.clip, attempt.stage, attempt.state)
        for batch in read_events(dataset.events, {})
        for attempt in batch.attempts
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips, and a file that is none."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(3):
        frames = draw_frames(2)
        frames[:, :3, :3] = (number, 10, 10, 255)
        save_frames(folder / f"c{number}", frames)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture
def options(clips: Path, tmp_path: Path, model_folder: Path) -> DatasetOptions:
    make_dataset(tmp_path / "dataset", sorted(clips.iterdir()))
    return DatasetOptions(
        folder=tmp_path / "dataset",
        settings=Settings(configuration="tiny", overrides=[f"model={model_folder}", *FAST], seed=7),
        choice=Choice(),
        device="cpu",
        workers=1,
        lanes=2,
        command="ss4d dataset run dataset",
    )


def changed(options: DatasetOptions, *overrides: str) -> DatasetOptions:
    settings = options.settings.model_copy(update={"overrides": [*options.settings.overrides, *overrides]})
    return replace(options, settings=settings)


def test_half_precision_on_a_cpu_is_refused_before_a_worker_starts(options: DatasetOptions) -> None:
    with pytest.raises(ConfigError, match=r"computes in float16 here, .* for a clip of 32 frames and this model"):
        run_dataset(half := changed(options, "precision=float16"), Listener())
    assert not open_dataset(options.folder).launches.exists()
    work = planned_work(half, plan_dataset(half))
    assert work.estimated == ()
    assert work.refused == ("conditioning", "sparse_structure", "slat", "decoding")
    told = CliRunner().invoke(app, ["dataset", "plan", str(options.folder), "--set", "precision=float16"])
    refused = "conditioning, sparse_structure, camera, slat, decoding"  # a camera is found by the image encoder
    assert f"would refuse {refused}, which compute in float16" in told.output


def test_every_clip_once_and_then_what_a_change_asks_for(options: DatasetOptions) -> None:
    names = ["c0", "c1", "c2"]
    plan = plan_dataset(options)
    stages = [stage.stage for stage in plan.stages]
    assert (plan.clips, plan.unreadable, plan.finished, len(plan.todo)) == (4, 1, 0, 3)
    assert [(stage.run, stage.reuse, stage.skip, stage.why) for stage in plan.stages] == [(3, 0, 0, "not made yet")] * 6
    work = planned_work(options, plan)
    assert (work.measured, work.estimated) == ((), ("conditioning", "sparse_structure", "slat", "decoding"))
    assert work.unknown == ("segmentation", "export")
    assert work.seconds > 0

    listener = Listener()
    result = run_dataset(options, listener)
    dataset = Dataset(options.folder.absolute(), str(options.folder.absolute() / "store"))
    assert result.ending is not None
    assert (result.ending.snapshot.state, result.ending.snapshot.done) == ("finished", 3)
    first = Counter({(name, stage, "done"): 1 for name in names for stage in stages})
    assert events(dataset) == first
    assert listener.last is not None
    assert [listener.last.stages[stage].done for stage in stages] == [3] * 6
    assert len(list(open_store(dataset.store).refs())) == 18
    log = dataset.log("c1").read_text()
    assert all(f"{stage} begins" in log and f"{stage} done in" in log for stage in stages)
    begun, over = (json.loads(line) for line in dataset.launches.read_text().splitlines())
    assert (begun["event"], begun["seed"], begun["command"]) == ("begun", 7, "ss4d dataset run dataset")
    assert begun["versions"]["python"]
    assert (over["event"], over["state"], over["done"], over["launch"]) == ("ended", "finished", 3, begun["launch"])

    rows = read_catalog(dataset)
    assert Counter(row.state for row in rows) == {"done": 18, "unreadable": 1}

    again = run_dataset(options, listener)
    assert again.ending is None
    assert again.plan.finished == 3
    assert events(dataset) == first

    other = changed(options, "export.frames=4")
    plan = plan_dataset(other)
    assert [(stage.run, stage.reuse) for stage in plan.stages] == [(0, 3)] * 5 + [(3, 0)]
    assert plan.stages[-1].why == "export.frames changed from 6 to 4"
    assert planned_work(other, plan).unknown == ("export",)
    run_dataset(other, listener)
    assert events(dataset) - first == Counter({(name, "export", "done"): 1 for name in names})


def test_what_is_stored_already_is_reused_and_known_from_then_on(options: DatasetOptions) -> None:
    run_dataset(replace(options, choice=Choice(limit=1)), Listener())
    dataset = Dataset(options.folder.absolute(), str(options.folder.absolute() / "store"))
    plan = plan_dataset(options)
    work = planned_work(options, plan)
    assert work.measured == tuple(stage.stage for stage in plan.stages)
    took = sum(row.seconds for row in read_catalog(dataset) if row.seconds is not None)
    assert work.seconds == pytest.approx(2 * took)  # two clips are left
    made = events(dataset)
    assert len(made) == 6
    for path in dataset.events.iterdir():
        path.unlink()
    dataset.index.unlink()  # nobody knows of what was made
    run_dataset(replace(options, choice=Choice(limit=1)), Listener())
    assert events(dataset) == Counter({(clip, stage, "reused"): 1 for clip, stage, _ in made})
    assert run_dataset(replace(options, choice=Choice(limit=1)), Listener()).ending is None


def test_a_run_that_finds_all_there_is_the_last_run_all_the_same(options: DatasetOptions) -> None:
    """What a command means that names no configuration, and what `ss4d gc` keeps, goes by it; and the catalog."""
    first, second = (replace(given, choice=Choice(limit=1)) for given in (options, changed(options, "export.frames=4")))
    for given in (first, second):
        run_dataset(given, Listener())
    dataset = Dataset(options.folder.absolute(), str(options.folder.absolute() / "store"))
    catalog = dataset.catalog.read_bytes()
    assert run_dataset(first, Listener()).ending is None
    assert last_settings(dataset) == first.settings
    assert last_recipes(dataset) == plan_dataset(first).recipes
    assert dataset.catalog.read_bytes() != catalog
    over = json.loads(dataset.launches.read_text().splitlines()[-1])
    assert (over["state"], over["clips"]) == ("finished", 0)

    lines, written = dataset.launches.read_text(), dataset.catalog.stat().st_mtime_ns
    run_dataset(first, Listener())
    assert (dataset.launches.read_text(), dataset.catalog.stat().st_mtime_ns) == (lines, written)
    dataset.catalog.unlink()  # as after a kill before it was written
    run_dataset(first, Listener())
    assert dataset.catalog.exists()


def test_two_runs_at_the_same_time(options: DatasetOptions) -> None:
    dataset = Dataset(options.folder.absolute(), "")
    shard = replace(options, choice=Choice(shard="1/1"))
    with only_launch(dataset, None):
        for given in (options, shard):
            with pytest.raises(
                ConfigError, match=r"another run of .* is in progress: wait for it, or give each its own part"
            ):
                run_dataset(given, Listener())
    with only_launch(dataset, "2/3"):
        with pytest.raises(ConfigError, match=r"another run of .* is in progress"):
            run_dataset(options, Listener())
        with only_launch(dataset, "3/3"):
            pass
        with pytest.raises(ConfigError, match=r"another run of .* is in progress"), only_launch(dataset, "02/3", 0.6):
            pass


def test_parts_of_another_number_would_overlap(options: DatasetOptions) -> None:
    dataset = Dataset(options.folder.absolute(), "")
    other = replace(options, choice=Choice(shard="1/4"))
    with only_launch(dataset, "2/3"), only_launch(dataset, "3/3"):
        with pytest.raises(ConfigError, match=r"one of 3 parts of .* is in progress.* give --shard I/3"):
            run_dataset(other, Listener())
        with pytest.raises(ConfigError, match="parts of 30 would"), only_launch(dataset, "2/30", 0.6):
            pass
        with only_launch(dataset, "1/3"):  # who was refused is in nobody's way
            pass
    with only_launch(dataset, "2/30"), only_launch(dataset, "3/30"):
        pass


def test_a_store_that_is_gone_is_told(options: DatasetOptions) -> None:
    first = replace(options, choice=Choice(limit=1))
    run_dataset(first, Listener())
    shutil.rmtree(options.folder / "store")
    with pytest.raises(StoreError, match=r"the store at .* was deleted .* `ss4d dataset catalog rebuild "):
        plan_dataset(first)
    with open_for(open_dataset(options.folder), options.settings) as opened:
        rebuild_index(opened, silent)
    assert len(plan_dataset(first).todo) == 1


def test_a_file_that_changed_since_is_bad_input(options: DatasetOptions, tmp_path: Path) -> None:
    source = save_frames(tmp_path / "more" / "changing", draw_frames(2))
    dataset = make_dataset(tmp_path / "other", [source])
    save_frames(source, np.flip(draw_frames(2), 1))
    result = run_dataset(replace(options, folder=dataset.folder), Listener())
    assert result.ending is not None
    assert result.ending.snapshot.failed == {"input": 1}
    assert "has changed since it was added to the dataset" in dataset.log("changing").read_text()
    assert not list(open_store(dataset.store).refs())


def test_recipes_of_a_launch_are_those_of_its_clips(options: DatasetOptions) -> None:
    """Apart from the source, so that they tell in the next plan what changed."""
    plan = plan_dataset(options)
    assert list(plan.recipes) == [stage.stage for stage in plan.stages]
    assert plan.recipes["export"]["parameters"]["export"]["frames"] == 6
    assert last_recipes(Dataset(options.folder, "")) is None


@pytest.mark.parametrize(
    ("change", "words"), [({"workers": 0}, "--workers must be at least 1"), ({"lanes": 0}, "--lanes must be at least")]
)
def test_numbers_out_of_range_are_refused(options: DatasetOptions, change: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run_dataset(replace(options, **change), Listener())  # type: ignore[arg-type]


# The parts


def test_who_has_to_wait_for_a_turn_says_so() -> None:
    told: list[Message] = []
    both = threading.Event()

    def tell(message: Message) -> None:
        told.append(message)
        both.set()

    turn = Turn(tell)

    def second() -> None:
        with turn.of("b"):
            pass

    thread = threading.Thread(target=second)
    with turn.of("a"):
        assert told == []
        thread.start()
        assert both.wait(10)
        assert told == [Paused("b")]
    thread.join(10)
    assert told == [Paused("b"), Resumed("b")]


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[ClipLogs]:
    log = logging.getLogger("ss4d")
    before = log.level, log.propagate
    logs = ClipLogs(tmp_path)
    yield logs
    log.removeHandler(logs)
    log.level, log.propagate = before


def test_each_lane_logs_into_its_own_clip(tmp_path: Path, logs: ClipLogs) -> None:
    log = logging.getLogger("ss4d.dataset")
    barrier = threading.Barrier(2)

    def lane(name: str) -> None:
        with logs.of(name):
            barrier.wait(10)
            log.warning("I am %s", name)

    threads = [threading.Thread(target=lane, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    log.warning("nobody's")
    for name in "ab":
        (line,) = (tmp_path / f"{name}.log").read_text().splitlines()
        assert line.endswith(f"WARNING I am {name}")
    with pytest.raises(ZeroDivisionError), logs.of("a"):
        raise ZeroDivisionError
    assert "Traceback" in (tmp_path / "a.log").read_text()
    with pytest.raises(InputError), logs.of("c"):
        raise InputError("It shows nothing.")
    (line,) = (tmp_path / "c.log").read_text().splitlines()
    assert line.endswith("ERROR   failed: It shows nothing.")
