"""A dataset with poisoned clips: each failure is recorded with its reason, and every other clip is done, once.

With the real command, its processes and its signals; the stages are those of `tests.helpers.poisoned`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from ss4d.pipelines.dataset.events import read_events
from ss4d.pipelines.dataset.layout import Dataset
from tests.helpers import poisoned
from tests.helpers.places import ROOT
from tests.helpers.poisoned import BAD, DEFECT, GREEDY, HANGING, KILLER, METHODS, PASSING, SLOW, make_dataset, save_clip

STAGES = ("segmentation", "decoding", "export")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the poisoned stages installed."""
    folder = tmp_path_factory.mktemp("site")
    poisoned.install(folder)
    return folder


@pytest.fixture(autouse=True)
def environment(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))


def poisoned_dataset(tmp_path: Path, poisons: dict[str, int]) -> Dataset:
    clips = [tmp_path / "clips" / name for name in poisons]
    for number, (clip, poison) in enumerate(zip(clips, poisons.values(), strict=True)):
        save_clip(clip, poison, number)
    return make_dataset(tmp_path / "dataset", clips)


def words(dataset: Dataset, *more: str) -> list[str]:
    sets = [word for value in METHODS for word in ("--set", value)]
    return [sys.executable, "-m", "ss4d.cli.entry", "dataset", "run", str(dataset.folder), *sets, *more]


def run(dataset: Dataset, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words(dataset, *more), capture_output=True, text=True, check=False)


def events(dataset: Dataset) -> Counter[tuple[str, str, str]]:
    """How often what became of which clip in which stage.

    What was found there counts as done: a worker that is killed may have stored what it had no time to tell of.
    """
    return Counter(
        (attempt.clip, attempt.stage, attempt.error or "done")
        for batch in read_events(dataset.events, {})
        for attempt in batch.attempts
    )


def done(*clips: str) -> Counter[tuple[str, str, str]]:
    return Counter({(clip, stage, "done"): 1 for clip in clips for stage in STAGES})


def launches(dataset: Dataset) -> list[dict[str, Any]]:
    return [json.loads(line) for line in dataset.launches.read_text().splitlines()]


def test_every_failure_is_recorded_and_the_others_are_done(tmp_path: Path) -> None:
    poisons = {"bad": BAD, "defect": DEFECT, "hanging": HANGING, "killer": KILLER, "passing": PASSING}
    good = [f"good{number}" for number in range(6)]
    dataset = poisoned_dataset(tmp_path, {"good0": 0, **poisons, **dict.fromkeys(good[1:], 0)})
    limits = ("--clip-timeout", "15")
    notes = ("--set", f"segmentation.notes={tmp_path}", "--max-failure-ratio", "1")
    ended = run(dataset, "--workers", "2", "--lanes", "2", *limits, *notes)
    assert ended.returncode == 0, ended.stderr
    assert "7 of 11 clips are finished, 7 of them by this run" in ended.stderr
    assert "4 failed: " in ended.stderr

    failed = {
        ("bad", "segmentation", "InputError"): 1,
        ("defect", "segmentation", "PluginError"): 1,
        ("hanging", "segmentation", "TimeLimit"): 2,
        ("killer", "segmentation", "WorkerDied"): 2,
    }
    passed = Counter({("passing", "segmentation", "OSError"): 1})
    expected = done(*good, "passing") + Counter(failed)
    found = events(dataset)
    assert found in (expected + passed, expected)  # another clip may end its worker before that has told of it
    attempts = [attempt for batch in read_events(dataset.events, {}) for attempt in batch.attempts]
    causes = {attempt.clip: attempt.cause for attempt in attempts if attempt.state == "failed"}
    assert causes.pop("passing", "transient") == "transient"
    assert causes == {"bad": "input", "defect": "program", "hanging": "killed", "killer": "killed"}
    assert [attempt.number for attempt in attempts if attempt.clip == "killer"] == [1, 2]
    assert "signal SIGKILL" in next(attempt.message or "" for attempt in attempts if attempt.clip == "killer")

    assert "ZeroDivisionError" in dataset.log("defect").read_text()  # with the traceback, of which the event says less
    assert "TimeLimit: it took longer than the 15 s" in dataset.log("hanging").read_text()
    assert "export done in" in dataset.log("good0").read_text()
    metrics = json.loads(dataset.metrics.read_text())
    assert (metrics["state"], metrics["done"], metrics["clips"]) == ("finished", 7, 11)
    assert metrics["stages"]["export"]["done"] == 7
    begun, over = launches(dataset)
    assert over["failed"] == {"input": 1, "program": 1, "killed": 2}
    assert begun["launch"] == over["launch"]

    again = run(dataset, "--workers", "2", *limits, *notes)  # nothing of that would end otherwise
    assert again.returncode == 0, again.stderr
    assert "7 of 11 clips are finished.\n" in again.stderr
    assert "Nothing is left to do." in again.stderr
    assert "4 failed in earlier runs and are not run again" in again.stderr
    assert events(dataset) == found


def test_a_clip_that_needs_too_much_memory_is_set_aside(tmp_path: Path) -> None:
    dataset = poisoned_dataset(tmp_path, {"greedy": GREEDY, "good": 0})
    ended = run(dataset, "--workers", "1", "--lanes", "1", "--memory", "1G", "--max-failure-ratio", "1")
    assert ended.returncode == 0, ended.stderr
    assert events(dataset) == done("good") + Counter({("greedy", "segmentation", "MemoryLimit"): 2})
    assert "1 failed: 1 by time, memory or the end of their worker" in ended.stderr


def test_a_run_that_fails_wholesale_stops_and_says_why(tmp_path: Path) -> None:
    dataset = poisoned_dataset(tmp_path, {f"bad{number}": BAD for number in range(40)})
    ended = run(dataset, "--workers", "1", "--max-failure-ratio", "0.3")
    assert ended.returncode == 1
    assert "stopped, since 20 of 20 clips failed (100%, --max-failure-ratio allows 30%)" in ended.stderr
    assert "It shows no object." in ended.stderr
    assert 20 <= events(dataset).total() < 40


def ending(process: "subprocess.Popen[str]") -> str:
    """What a process said, once it is gone."""
    assert process.stderr is not None
    return process.communicate(timeout=60)[1]


@contextmanager
def started(dataset: Dataset, clip: str, *more: str) -> Iterator["subprocess.Popen[str]"]:
    """A run that has come to a slow clip; it does not outlive the block."""
    with subprocess.Popen(words(dataset, *more), stderr=subprocess.PIPE, text=True) as process:
        try:
            log = dataset.log(clip)
            while not (log.exists() and "segmentation begins" in log.read_text()):
                assert process.poll() is None, ending(process)
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


@pytest.fixture
def two_slow_ones(tmp_path: Path) -> Iterator[tuple[Dataset, "subprocess.Popen[str]"]]:
    """A run of one worker that is in the first of two slow clips."""
    dataset = poisoned_dataset(tmp_path, {"a": SLOW, "b": SLOW})
    with started(dataset, "a", "--set", "segmentation.seconds=3", "--workers", "1", "--lanes", "1") as process:
        yield dataset, process


def test_an_interrupted_run_finishes_the_present_stage(two_slow_ones: tuple[Dataset, Any]) -> None:
    dataset, process = two_slow_ones
    process.send_signal(signal.SIGINT)
    said = ending(process)
    assert process.returncode == 130, said
    assert "clips in progress finish their current stage" in said
    assert f"the same command resumes it: ss4d dataset run {dataset.folder}" in said
    assert events(dataset) == Counter({("a", "segmentation", "done"): 1})
    assert launches(dataset)[-1]["state"] == "interrupted"
    assert run(dataset, "--set", "segmentation.seconds=3", "--workers", "1").returncode == 0
    assert events(dataset) == done("a", "b")


@pytest.mark.parametrize(("signals", "code"), [([signal.SIGINT] * 2, 130), ([signal.SIGTERM], 143)])
def test_an_abandoned_run_ends_at_once(two_slow_ones: tuple[Dataset, Any], signals: list[int], code: int) -> None:
    dataset, process = two_slow_ones
    children = psutil.Process(process.pid).children(recursive=True)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.5)
    said = ending(process)
    assert process.returncode == code, said
    assert "the same command resumes it: ss4d dataset run" in said
    assert events(dataset) == Counter()
    assert launches(dataset)[-1]["state"] == json.loads(dataset.metrics.read_text())["state"] == "abandoned"
    assert psutil.wait_procs(children, timeout=60)[1] == []


def test_after_a_kill_the_next_run_does_what_is_missing(tmp_path: Path) -> None:
    clips = [f"c{number}" for number in range(6)]
    dataset = poisoned_dataset(tmp_path, dict.fromkeys(clips[:3], 0) | {"c3": SLOW} | dict.fromkeys(clips[4:], 0))
    more = ("--set", "segmentation.seconds=5", "--workers", "1", "--lanes", "1")
    with started(dataset, "c3", *more) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert psutil.wait_procs(children, timeout=60)[1] == []  # workers do not outlive it
    assert events(dataset) <= done(*clips[:3])  # what it was told last it may not have written down
    assert run(dataset, *more).returncode == 0
    times = Counter((clip, stage) for clip, stage, _ in events(dataset).elements())
    assert times == Counter((clip, stage) for clip in clips for stage in STAGES)
