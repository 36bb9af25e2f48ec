"""Commands that compute nothing answer at once: what computes, and Prefect, is not even imported."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.conftest import record

SLOW = {"torch", "prefect", "cv2", "av", "numba", "pyarrow", "huggingface_hub"}
Words = Callable[..., list[str]]


def imported(words: Sequence[str]) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """How a command of the program ended, and the packages that it imported."""
    assert words[0] == sys.executable
    line = [sys.executable, "-X", "importtime", *words[1:]]
    finished = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    names = re.findall(r"^import time:.*\| +([\w.]+)$", finished.stderr, re.MULTILINE)
    assert "typer" in names
    return finished, {name.partition(".")[0] for name in names}


def ss4d(*words: str) -> list[str]:
    return [sys.executable, "-m", "ss4d.cli.entry", *words]


@pytest.fixture(scope="module")
def run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that may be run again."""
    out = tmp_path_factory.mktemp("again") / "out"
    shutil.copytree(finished_run.parents[1], out)
    return out / "runs" / finished_run.name


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["config", "tiny"], ["stages"], ["stages", "slat"]])
def test_what_there_is(words: list[str]) -> None:
    finished, packages = imported(ss4d(*words))
    assert finished.returncode == 0, finished.stderr
    assert packages & SLOW == set()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"source": "nowhere.mp4"}, "nowhere.mp4 does not exist"),
        ({"--config": "nowhere.yaml"}, "cannot read the configuration file nowhere.yaml"),
        ({"--set": "slat.color=red"}, "unknown configuration key 'slat.color'"),
        ({"--set": "slat.sampler.steps=0"}, "'slat.sampler.steps'"),
        ({"--seed": "-1"}, "--seed"),
        ({"--from": "slats"}, "there is no stage 'slats'"),
        ({"--device": "tpu"}, "--device"),
        ({"--set": "model=nowhere"}, "there is no model folder"),
    ],
)
def test_a_mistake(clip: Path, tmp_path: Path, changes: dict[str, str], sentence: str) -> None:
    source = changes.pop("source", str(clip))
    more = [word for pair in changes.items() for word in pair]
    finished, packages = imported(ss4d("run", source, "--out", str(tmp_path), *more))
    assert finished.returncode != 0
    assert sentence in finished.stderr
    assert packages & SLOW == set()


@pytest.mark.parametrize("target", ["input", "run"])
def test_a_plan(run: Path, clip: Path, model_folder: Path, target: str) -> None:
    words = ["plan", str(clip if target == "input" else run), "--set", f"model={model_folder}"]
    finished, packages = imported(ss4d(*words))
    assert finished.returncode == 0, finished.stderr
    assert "segmentation" in finished.stdout
    assert packages & SLOW <= ({"av"} if target == "input" else set()), "an input is opened, to see that it is one"


def test_a_look_into_a_run(run: Path) -> None:
    finished, packages = imported(ss4d("inspect", str(run)))
    assert finished.returncode == 0, finished.stderr
    assert packages & SLOW == set()


def test_a_finished_run(run: Path, clip: Path, command: Words) -> None:
    before = record(run.parents[1], run.name)
    finished, packages = imported(command(clip, run.parents[1]))
    assert finished.returncode == 0, finished.stderr
    after = record(run.parents[1], run.name)
    assert {stage: entry["state"] for stage, entry in after["stages"].items()} == dict.fromkeys(
        before["stages"], "reused"
    )
    assert after["device"] == before["device"]
    assert after["kernels"] == before["kernels"] != {}
    assert after["engine"] == "none"
    assert packages & SLOW == set()


def test_a_run_says_what_it_will_do_before_it_imports_what_computes(clip: Path, command: Words, tmp_path: Path) -> None:
    words = command(clip, tmp_path)
    line = [sys.executable, "-X", "importtime", *words[1:]]
    errors = subprocess.run(line, capture_output=True, text=True, check=True, timeout=240).stderr
    told = errors.index("computes segmentation, conditioning, sparse_structure, slat, decoding, export")
    assert told < re.search(r"\| +torch$", errors, re.MULTILINE).start()
