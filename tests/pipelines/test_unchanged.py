"""A key stands for the bytes that were used: what changes between plan and reading stops the run, and is not stored."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ss4d.pipelines import run as running
from ss4d.pipelines.dataset import launch
from ss4d.pipelines.dataset.keys import Settings
from ss4d.pipelines.dataset.launch import DatasetOptions, run_dataset
from ss4d.pipelines.dataset.select import Choice
from ss4d.pipelines.errors import WorkerError
from ss4d.pipelines.run import RunOptions, run_clip
from ss4d.stages.errors import InputError, ModelError
from ss4d.stages.training.recipe import MICRO
from ss4d.storage.store import open_store
from tests.conftest import FAST, Silent, draw_frames, save_frames
from tests.helpers.poisoned import make_dataset
from tests.helpers.untrained import write_model


class Meddler(Silent):
    """Does something when a stage is about to begin; every plan is older than that."""

    def __init__(self, stage: str, act: Callable[[], None]) -> None:
        self._stage, self._act = stage, act

    def stage_started(self, step: object) -> None:
        if getattr(step, "stage", "") == self._stage:
            self._act()


@pytest.fixture
def model(model_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model_folder, tmp_path / "model")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_frames(tmp_path / "disc", draw_frames(2))


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    write_model(folder, seed=1, changes=MICRO)
    return folder


def run(model: Path, source: Path, out: Path, reporter: Silent, *sets: str, engine: str = "direct") -> Path:
    options = RunOptions(
        source=source, out=out, overrides=(f"model={model}", *FAST, *sets), device="cpu", engine=engine, name="clip"
    )
    return run_clip(options, reporter)


def stored(out: Path) -> set[str]:
    return {ref.stage for ref in open_store(out / "store").refs()}


def replace_weights(model: Path, other: Path) -> None:
    for file in other.rglob("*.safetensors"):
        shutil.copy(file, new := (model / file.relative_to(other)).with_suffix(".new"))
        new.rename(new.with_suffix(".safetensors"))


def test_an_input_that_is_replaced(model: Path, source: Path, tmp_path: Path) -> None:
    meddler = Meddler("segmentation", lambda: save_frames(source, np.flip(draw_frames(2), 1)) and None)
    with pytest.raises(InputError, match=rf"{source} has changed since this was planned"):
        run(model, source, tmp_path / "out", meddler)
    assert stored(tmp_path / "out") == set()


def test_a_file_of_the_configuration_that_is_replaced(model: Path, source: Path, tmp_path: Path) -> None:
    masks = save_frames(tmp_path / "masks", draw_frames(2)[..., 3:].repeat(3, -1))
    meddler = Meddler("segmentation", lambda: save_frames(masks, 255 - draw_frames(2)[..., 3:].repeat(3, -1)) and None)
    with pytest.raises(InputError, match=r"a file that the configuration of segmentation names has changed since"):
        run(model, source, tmp_path / "out", meddler, f"segmentation.mask={masks}")
    assert stored(tmp_path / "out") == set()
    run(model, source, tmp_path / "out", Silent(), f"segmentation.mask={masks}")
    assert "segmentation" in stored(tmp_path / "out")


@pytest.mark.parametrize("engine", ["direct", "prefect"])
def test_weights_that_are_replaced(model: Path, other_model: Path, source: Path, tmp_path: Path, engine: str) -> None:
    """Between the plan and their loading, which Prefect's server starts beside."""
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        real = running.prepare
        patch.setattr(running, "prepare", lambda options: (real(options), replace_weights(model, other_model))[0])
        with pytest.raises(ModelError, match=r"safetensors has changed since the run was planned"):
            run(model, source, out, Silent(), engine=engine)
    assert stored(out) == {"segmentation"}


def test_weights_that_are_replaced_before_a_worker_loads_them(
    model: Path, other_model: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(tmp_path / "set", [source])
    real = launch.plan_clips
    monkeypatch.setattr(launch, "plan_clips", lambda *given: (real(*given), replace_weights(model, other_model))[0])
    options = DatasetOptions(
        folder=dataset.folder,
        settings=Settings(configuration="tiny", overrides=[f"model={model}", *FAST]),
        choice=Choice(),
        device="cpu",
        workers=1,
    )

    class Watcher(Silent):
        def show(self, snapshot: object) -> None: ...

    with pytest.raises(WorkerError, match=r"no worker can start: .*safetensors has changed since the run was planned"):
        run_dataset(options, Watcher())
    assert not list(open_store(dataset.store).refs())
