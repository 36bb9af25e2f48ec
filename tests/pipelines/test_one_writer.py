"""Two runs of one name: together if they make the same files, else the second is refused and the first is untouched."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.inspect.opened import open_run
from ss4d.pipelines.one_writer import only_settings
from ss4d.pipelines.run import RunOptions, run_clip
from ss4d.stages.errors import InputError
from tests.conftest import FAST, Silent

HOLD = """
import sys, pathlib
from ss4d.pipelines.one_writer import only_settings
with only_settings(pathlib.Path(sys.argv[1]), "first"):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_other_settings_wait_their_turn(tmp_path: Path) -> None:
    refused = pytest.raises(ConfigError, match=r"another run of the name .*--name")
    with only_settings(tmp_path, "first"), only_settings(tmp_path, "first"), refused, only_settings(tmp_path, "second"):
        pass
    with only_settings(tmp_path, "second"), pytest.raises(ConfigError), only_settings(tmp_path, "first"):
        pass


def test_a_killed_run_is_none(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "in\n"
    with pytest.raises(ConfigError), only_settings(tmp_path, "second"):
        pass
    holder.kill()
    holder.communicate()
    with only_settings(tmp_path, "second"):
        pass


@pytest.mark.parametrize("linked", [".locks", ".locks/clip"])
def test_a_link_in_the_place_of_a_lock_is_not_written_to(tmp_path: Path, linked: str) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "clip").write_text("mine")
    runs = tmp_path / "runs"
    (runs / linked).parent.mkdir(parents=True)
    (runs / linked).symlink_to(tmp_path / "precious" / linked.removeprefix(".locks").lstrip("/"))
    with pytest.raises(ConfigError, match="remove that link"), only_settings(runs / "clip", "first"):
        pass
    assert (tmp_path / "precious" / "clip").read_text() == "mine"


def test_a_second_run_with_other_settings_changes_nothing(finished_run: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished_run.parents[1], out)
    folder = out / "runs" / finished_run.name
    sets = (f"model={open_run(finished_run).record.model.location}", *FAST)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = RunOptions(source=clip, out=out, overrides=(*sets, "export.frames=4"), device="cpu", engine="direct")
    with only_settings(folder, "those of a run that goes on"), pytest.raises(ConfigError, match="is in progress"):
        run_clip(other, Silent())
    assert {path: path.read_bytes() for path in before} == before
    assert run_clip(other, Silent()) == folder
    assert (folder / "turntable.mp4").read_bytes() != before[folder / "turntable.mp4"]


def test_a_run_whose_input_cannot_be_used_leaves_an_earlier_one_as_it_is(
    finished_run: Path, clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished_run.parents[1], out)
    folder = out / "runs" / finished_run.name
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    sets = (f"model={open_run(finished_run).record.model.location}", *FAST, "input.start=500")
    wrong = RunOptions(source=clip, out=out, overrides=sets, device="cpu", engine="direct")
    with pytest.raises(InputError, match="start cannot be 500"):
        run_clip(wrong, Silent())
    assert {path: path.read_bytes() for path in before} == before
    assert open_run(folder).record.state == "complete"


def test_an_input_that_is_none_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (folder := tmp_path / "docs").mkdir()
    (folder / "page.txt").write_text("no picture")
    (text := tmp_path / "page.md").write_text("no video")
    for path in (folder, text):
        ran, planned = (
            CliRunner().invoke(app, [word, str(path), "--out", str(tmp_path / "out")]) for word in ("run", "plan")
        )
        assert (ran.exit_code, planned.exit_code) == (1, 1)
        assert planned.stderr.endswith(ran.stderr.removeprefix("ss4d: ")), "both say it in one sentence"
        assert not (tmp_path / "out").exists()
