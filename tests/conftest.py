"""A model folder small enough for tests of whole runs, clips to feed it, and a way to run the command."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from ss4d.stages.training.recipe import MICRO
from tests.helpers.unfitted import OFF
from tests.helpers.untrained import write_model

settings.register_profile("untimed", deadline=None)  # machines are busy at times
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=1, metavar="TIMES", help="kill so many times as often as usual")
    parser.addoption(
        "--blender", default=shutil.which("blender"), metavar="COMMAND", help="a Blender, or a Python that has bpy"
    )
    parser.addoption(
        "--kill-seed", type=int, default=random.SystemRandom().randrange(10**6), help="decides where to kill"
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Says how to kill at the same places again."""
    return f"kills: --kill-seed {config.getoption('--kill-seed')}"


@pytest.fixture(scope="session")
def times(pytestconfig: pytest.Config) -> int:
    """How many times as often as usual a test of crashes kills."""
    return int(pytestconfig.getoption("--kills"))


@pytest.fixture
def chance(pytestconfig: pytest.Config) -> random.Random:
    """Decides where to kill: elsewhere each time, so that many runs of the tests come everywhere."""
    seed = pytestconfig.getoption("--kill-seed")
    print(f"to kill at the same places: pytest --kill-seed {seed}")  # shown if the test fails
    return random.Random(seed)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of the bundled model's classes, a few hundred thousand parameters."""
    folder = tmp_path_factory.mktemp("model")
    write_model(folder, seed=0, changes=MICRO)
    return folder


def draw_frames(num_frames: int, size: int = 48) -> np.ndarray:
    """RGBA frames (t, size, size, 4) of a colored disc that moves and grows."""
    y, x = np.mgrid[:size, :size]
    frames = np.zeros((num_frames, size, size, 4), np.uint8)
    for t, frame in enumerate(frames):
        inside = (x - size * 0.5 - t) ** 2 + (y - size * 0.5) ** 2 < (size * 0.3 + t % 3) ** 2
        frame[inside] = (200, 80 + 5 * t % 100, 40, 255)
    return frames


def save_frames(folder: Path, frames: np.ndarray) -> Path:
    """The frames as PNG files 0.png, 1.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{t}.png")
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four RGBA frames."""
    return save_frames(tmp_path_factory.mktemp("input") / "disc", draw_frames(4))


FAST = (
    *OFF,
    "slat.sampler.steps=2",
    "sparse_structure.sampler.steps=2",
    "segmentation.size=64",
    "export.size=64",
    "export.frames=6",
)


@pytest.fixture(scope="session")
def command(model_folder: Path) -> Callable[..., list[str]]:
    """The words of `ss4d run` on the small model, for a process of its own."""

    def words(source: Path, out: Path, *more: str) -> list[str]:
        sets = [word for value in (f"model={model_folder}", *FAST) for word in ("--set", value)]
        return [sys.executable, "-m", "ss4d.cli.entry", "run", str(source), "--out", str(out), *sets, *more]

    return words


@pytest.fixture(scope="session")
def ss4d(command: Callable[..., list[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `ss4d run` in a process of its own; by default without Prefect."""

    def run(source: Path, out: Path, *more: str, engine: str = "direct") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(source, out, "--engine", engine, *more), capture_output=True, text=True, timeout=240, check=False
        )

    return run


class Silent:
    """Hears how a run goes on, and tells nobody."""

    def message(self, text: str) -> None: ...

    def stage_started(self, step: object) -> None: ...

    def stage_progress(self, done: int, total: int) -> None: ...

    def stage_finished(self, outcome: object) -> None: ...


@pytest.fixture(scope="session")
def finished_run(model_folder: Path, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the small model on `clip`, made in this process; not to be changed."""
    from ss4d.pipelines.run import RunOptions, run_clip  # only here: tests of one layer do not depend on the others

    options = RunOptions(
        source=clip,
        out=tmp_path_factory.mktemp("finished"),
        overrides=(f"model={model_folder}", *FAST),
        device="cpu",
        engine="direct",
    )
    return run_clip(options, Silent())


@pytest.fixture(scope="session")
def inflated_run(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on `clip` that knows where its input was seen from, and needs no model; not to be changed."""
    from ss4d.pipelines.run import RunOptions, run_clip

    overrides = (*OFF, "decoding.method=inflation", "camera.method=front", "segmentation.size=64", "export.size=48")
    options = RunOptions(
        source=clip,
        out=tmp_path_factory.mktemp("inflated"),
        overrides=(*overrides, "export.frames=6"),
        device="cpu",
        engine="direct",
    )
    return run_clip(options, Silent())


def record(out: Path, name: str) -> dict:
    """The record of a run."""
    return json.loads((out / "runs" / name / "run.json").read_text())
