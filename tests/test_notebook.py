"""`import ss4d`: quick, small, and what it offers does what the command does."""

import inspect
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import ss4d
from ss4d.cli import main
from ss4d.pipelines.dataset.contents import DatasetContents
from ss4d.pipelines.dataset.keys import Settings
from ss4d.pipelines.dataset.layout import create_dataset
from ss4d.pipelines.dataset.manifest import Row
from ss4d.pipelines.errors import ConfigError
from ss4d.stages.input_files import input_digest
from ss4d.storage.manifest import write_rows
from tests.conftest import FAST
from tests.helpers.dataset_history import row


def test_the_import_is_quick_and_says_what_there_is() -> None:
    code = (
        "import sys; before = set(sys.modules); import ss4d\n"
        "assert {'run', 'open_run', 'open_dataset'} <= set(dir(ss4d))\n"
        "print(*(name for name in set(sys.modules) - before if name.startswith(('ss4d', 'torch', 'pydantic'))))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == ["ss4d"]


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(AttributeError, match="'ss4d' has no attribute 'walk'"):
        ss4d.walk  # type: ignore[attr-defined]  # noqa: B018


def test_run_takes_what_the_command_takes() -> None:
    command, function = inspect.signature(main.run).parameters, inspect.signature(ss4d.run).parameters
    assert [name for name in function if name != "reporter"] == [name for name in command if name != "debug"]
    same = ("config", "seed", "device", "engine")
    assert [function[name].default for name in same] == [command[name].default for name in same]


@pytest.mark.parametrize("argument", ["overrides", "goals", "force"])
def test_one_string_is_not_taken_for_its_letters(argument: str, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=rf"{argument} is a list of strings, such as \['slat'\]"):
        ss4d.run(clip, tmp_path, **{argument: "slat"})  # type: ignore[arg-type]


def test_a_run_is_made_opened_and_found_again(
    model_folder: Path, clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ss4d")
    sets = (f"model={model_folder}", *FAST)
    run = ss4d.run(str(clip), tmp_path, overrides=sets, device="cpu", engine="direct")
    assert run.record.state == "complete"
    assert run["slat"]["feats"][:2].shape[0] == 2
    assert "slat: run, " in caplog.text
    assert ss4d.open_run(run.path)["slat"].record.key == run["slat"].record.key


def test_of_a_dataset_one_sees_clips_catalog_and_arrays(finished_run: Path, model_folder: Path, tmp_path: Path) -> None:
    made = ss4d.open_run(finished_run)
    dataset = create_dataset(tmp_path / "set", made["slat"].store.location)
    rows = [
        row("disc", sha256=input_digest(Path(made.record.input.path))),
        row("other"),
        row("bad", sha256=None, error="bad.mp4 is damaged"),
    ]
    write_rows(dataset.manifest, Row, rows)
    assert ss4d.open_dataset(dataset.folder).settings == Settings()
    contents = DatasetContents(dataset, Settings(overrides=[f"model={model_folder}", *FAST]))
    assert (list(contents), len(contents)) == (["disc", "other", "bad"], 3)
    assert contents.catalog().column("state").to_pylist()[-1] == "unreadable"
    assert contents.catalog().num_rows == 2 * len(made.stages) + 1
    disc = contents["disc"]
    assert {stage: disc[stage].ref for stage in disc} == {stage: made[stage].ref for stage in made}
    assert (disc["slat"]["feats"][:] == made["slat"]["feats"][:]).all()
    assert "disc, from" in repr(disc)
    assert "3 clips" in repr(contents)
    assert not contents["other"]["slat"].stored
    with pytest.raises(ConfigError, match="no clip 'swan'"):
        contents["swan"]
    with pytest.raises(ConfigError, match="bad cannot be read"):
        contents["bad"]
    with pytest.raises(ConfigError, match="no stage 'mesh'"):
        disc["mesh"]
