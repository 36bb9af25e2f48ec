"""A format whose package is missing is told before anything is computed, and only where something would be."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.dataset.keys import Settings
from ss4d.pipelines.dataset.launch import DatasetOptions, run_dataset
from ss4d.pipelines.dataset.select import Choice
from ss4d.pipelines.inspect.rerun import Changes, options_of_run
from ss4d.pipelines.run import LogReporter, run_clip
from ss4d.stages.errors import InputError
from ss4d.stages.export import packages
from tests.conftest import FAST
from tests.helpers.poisoned import make_dataset

WITH_USD = "export.formats=[ply, usd]"
SENTENCE = (
    r"the format usd needs the package usd-core: pip install '\.\[usd\]' in the checkout, "
    r"or leave usd out of the formats"
)


@pytest.fixture
def without_usd(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Takes usd-core away."""
    return lambda: monkeypatch.setattr(packages, "find_spec", lambda _: None)


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished_run.parents[1], tmp_path / "out")
    return tmp_path / "out" / "runs" / finished_run.name


def test_a_run_says_so_first_and_what_is_stored_needs_no_package(run: Path, without_usd: Callable[[], None]) -> None:
    options = options_of_run(run, Changes(overrides=[WITH_USD]))
    run_clip(options, LogReporter())
    assert (run / "points.usdc").is_file()
    without_usd()
    before = (run / "run.json").read_bytes()
    with pytest.raises(InputError, match=SENTENCE):
        run_clip(replace(options, seed=5), LogReporter())
    assert (run / "run.json").read_bytes() == before
    (run / "points.usdc").unlink()
    run_clip(options, LogReporter())
    assert (run / "points.usdc").is_file(), "the export is stored, so nothing of it has to be computed"


def test_a_dataset_says_so_before_a_worker_starts(
    clip: Path, model_folder: Path, tmp_path: Path, without_usd: Callable[[], None]
) -> None:
    dataset = make_dataset(tmp_path / "set", [clip])
    without_usd()
    settings = Settings(overrides=[f"model={model_folder}", *FAST, WITH_USD])
    with pytest.raises(InputError, match=SENTENCE):
        run_dataset(DatasetOptions(folder=tmp_path / "set", settings=settings, choice=Choice()), LogWatcher())
    assert list(dataset.events.glob("*")) == []


class LogWatcher:
    """Hears how a dataset goes on; must hear nothing here."""

    def message(self, text: str) -> None:
        raise AssertionError(text)

    def show(self, snapshot: object) -> None:
        raise AssertionError(snapshot)


def test_commands_that_add_formats_say_so(run: Path, tmp_path: Path, without_usd: Callable[[], None]) -> None:
    without_usd()
    told = CliRunner().invoke(app, ["export", str(run), "--formats", "ply,usd", "--out", str(tmp_path / "files")])
    assert told.exit_code == 1
    assert "usd is not made: the format usd needs the package usd-core: pip install '.[usd]' in the" in told.output
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["frames"]
