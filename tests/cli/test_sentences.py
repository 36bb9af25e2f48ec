"""What commands on runs and stores answer to what they cannot use: one sentence that names it, and exit code 1."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ss4d.cli.main import app


def refused(*words: object) -> str:
    """The sentence that the command ends with."""
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 1, done.output
    sentences = [line for line in done.stderr.splitlines() if line.startswith("ss4d: ")]
    assert len(sentences) == 1, done.stderr
    return " ".join(done.stderr.split())


@pytest.mark.parametrize("command", ["inspect", "report", "pack"])
def test_what_is_no_run(command: str, tmp_path: Path) -> None:
    more = [tmp_path / "packed.zip"] if command == "pack" else []
    sentence = refused(command, tmp_path, *more)
    assert f"{tmp_path} is not a run: it has no run.json; give the folder of a run" in sentence
    assert not list(tmp_path.iterdir())


def test_a_run_and_what_is_none(finished_run: Path, tmp_path: Path) -> None:
    assert f"{tmp_path} is not a run" in refused("diff", finished_run, tmp_path)
    assert f"{tmp_path} is no run, as it has no run.json, and no input" in refused("plan", tmp_path)


def test_a_stage_that_a_run_has_not(finished_run: Path) -> None:
    sentence = refused("inspect", finished_run, "mesh")
    assert "has no stage 'mesh'; it has segmentation, conditioning" in sentence
    assert "--only: there is no stage 'mesh' in this run" in refused("plan", finished_run, "--only", "mesh")
    assert "there is no stage 'skeleton'; choose one of segmentation" in refused("stages", "skeleton")


def test_a_record_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"schema": 1, "name": 3}')
    assert f"{tmp_path / 'run.json'} is not a run's record that this version reads" in refused("inspect", tmp_path)


def test_a_record_with_a_number_beyond_all_floats(finished_run: Path, tmp_path: Path) -> None:
    record = (finished_run / "run.json").read_text()
    (tmp_path / "run.json").write_text(record.replace('"fps": 24.0', '"fps": 1e999'))
    assert "run.json is not a run's record" in refused("diff", finished_run, tmp_path, "--json")


@pytest.mark.parametrize("command", ["verify", "gc"])
def test_what_is_no_store(command: str, tmp_path: Path) -> None:
    assert f"there is no store at {tmp_path / 'none'}" in refused(command, tmp_path / "none")


def test_what_is_no_folder_of_clips(tmp_path: Path) -> None:
    for command in ("list", "check"):
        assert f"{tmp_path} has no manifest.parquet; fill it with" in refused("data", command, tmp_path)


def test_a_file_where_a_folder_is_needed(finished_run: Path, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    (clip := tmp_path / "clip.mp4").write_bytes(b"no video")
    for out in (clip, pipe, Path("/dev/null")):
        sentence = f"ss4d: {out} is no folder, so nothing can be in it: choose another with --out"
        assert sentence in refused("plan", clip, "--out", out)
        assert sentence in refused("run", clip, "--out", out)
        assert f"{out} is no folder: give --out a new" in refused("dataset", "init", tmp_path, "--out", out)
    assert f"ss4d: {pipe} is no folder" in refused("export", finished_run, "--formats", "ply", "--out", pipe)
    assert f"{pipe} is neither a file nor a folder" in refused("dataset", "init", pipe, "--out", tmp_path / "new")


def test_a_file_whose_name_is_that_of_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-").write_bytes(b"no video")
    assert "- is not a video or an image that can be read" in refused("run", "./-", "--out", "out")
    assert "standard input, which gave nothing" in refused("run", "-", "--out", "out")


REFUSED = """
import sys
from typer.testing import CliRunner
from ss4d.cli.main import app

text = sys.argv[1]
for words in (
    ["run", text, "--out", "out"], ["plan", text], ["run", text, "--set", "no.key=1"],
    ["export", "none", "--formats", "spz"], ["export", "none", "--formats", "obj"],
    ["render", "none"], ["view", "none"], ["report", "none"], ["diff", "none", "none"], ["pack", "none", "none.zip"],
    ["verify", "none"], ["gc", "none"], ["serve", "--set", "no.key=1"],
    ["dataset", "run", "none"], ["dataset", "plan", "none"],
):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1 and done.stderr.startswith("ss4d: "), (words, done.output)
    assert "torch" not in sys.modules, words
"""


def test_a_refusal_does_not_wait_for_torch(tmp_path: Path) -> None:
    (text := tmp_path / "page.md").write_text("no video")
    subprocess.run([sys.executable, "-c", REFUSED, str(text)], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == [text], "and leaves nothing"
