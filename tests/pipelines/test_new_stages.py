"""Stages that a package adds go through runs and datasets as those of the program do."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import parquet
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.dataset.export import export_assets
from ss4d.pipelines.dataset.keys import Settings
from ss4d.pipelines.dataset.launch import DatasetOptions, run_dataset
from ss4d.pipelines.dataset.opened import open_for
from ss4d.pipelines.dataset.select import Choice
from ss4d.pipelines.inspect.opened import OpenedRun, open_run
from ss4d.pipelines.prepare import RunOptions
from ss4d.pipelines.registry import installed
from ss4d.pipelines.run import run_clip
from ss4d.stages.types import silent
from tests.conftest import FAST, Silent, draw_frames, record, save_frames
from tests.helpers.dataset_history import read_catalog
from tests.helpers.poisoned import make_dataset
from tests.helpers.third_party import Heights
from tests.helpers.unfitted import OFF

pytest_plugins = ["tests.helpers.third_party"]
pytestmark = pytest.mark.usefixtures("third_party")

QUICK = (word for word in FAST if word.startswith(("segmentation", "export")))
INFLATED = ("decoding.method=inflation", "decoding.resolution=16", *QUICK, *OFF)


def run(clip: Path, out: Path, *overrides: str) -> OpenedRun:
    options = RunOptions(
        source=clip, out=out, overrides=(*INFLATED, *overrides), device="cpu", engine="direct", name="disc"
    )
    return open_run(run_clip(options, Silent()))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def states(out: Path) -> dict[str, str]:
    return {stage: entry["state"] for stage, entry in record(out, "disc")["stages"].items()}


def test_several_ends_lie_in_one_run(clip: Path, tmp_path: Path) -> None:
    opened = run(clip, tmp_path, "goals=[notes, export, heights]")
    assert list(opened) == ["segmentation", "decoding", "export", "heights", "motion", "notes"]
    there = files(opened.path)
    assert {"notes/deep/notes.txt", "turntable.mp4", "frames/frame0001.ply", "run.json"} <= there
    assert not [name for name in there if name.startswith("motion")]  # needed on the way, and nobody's goal
    assert set(opened.record.results) == there - {"run.json"}
    assert (opened.path / "notes/deep/notes.txt").read_text() == "['motion.parquet', 'motion.png'] (4, 64)"
    value = opened["heights"].value()
    assert isinstance(value, Heights)
    assert value.noise == 0
    assert torch.equal(value.share, torch.from_numpy(opened["heights"]["share"][:]))


def test_another_goal_leaves_what_is_there(clip: Path, tmp_path: Path) -> None:
    before = files(run(clip, tmp_path).path)
    assert record(tmp_path, "disc")["config"]["goals"] == ["export"]
    opened = run(clip, tmp_path, "goals=[motion]")
    assert files(opened.path) == before | {"motion/motion.parquet", "motion/motion.png"}
    assert states(tmp_path)["export"] == "reused"
    # What would come out otherwise now is of no goal of this run.
    opened = run(clip, tmp_path, "goals=[motion]", "decoding.depth=0.4")
    assert files(opened.path) == {"run.json", "motion/motion.parquet", "motion/motion.png"}
    assert not (opened.path / "frames").exists()


def test_files_of_a_package_that_is_gone_stay(
    clip: Path, tmp_path: Path, third_party_site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = files(run(clip, tmp_path, "goals=[motion, export]").path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(third_party_site)])
    installed.cache_clear()
    for _ in range(2):  # the second run knows of it from the record of the first
        assert files(run(clip, tmp_path).path) == there
    assert record(tmp_path, "disc")["unavailable"] == ["motion"]
    monkeypatch.syspath_prepend(third_party_site)
    installed.cache_clear()
    run(clip, tmp_path, "goals=[motion, export]")
    assert record(tmp_path, "disc")["unavailable"] == []


def test_a_folder_of_results_that_its_owner_moved_stays_a_link(clip: Path, tmp_path: Path) -> None:
    folder = run(clip, tmp_path, "goals=[motion]").path
    elsewhere = (folder / "motion").rename(tmp_path / "elsewhere")
    (folder / "motion").symlink_to(elsewhere)
    run(clip, tmp_path, "goals=[heights]", "decoding.depth=0.4")
    assert record(tmp_path, "disc")["state"] == "complete"
    assert (folder / "motion").is_symlink()
    assert elsewhere.is_dir()


def test_what_is_asked_again(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(clip, tmp_path, "goals=[notes, export]")

    def plan(*words: str) -> dict[str, str]:
        done = CliRunner().invoke(app, ["plan", str(tmp_path / "runs" / "disc"), *words])
        assert done.exit_code == 0, done.output
        return {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()[1:-1]}

    again = plan("--from", "heights")
    assert [stage for stage, action in again.items() if action == "run"] == ["heights", "notes"]
    again = plan("--force", "motion")
    assert [stage for stage, action in again.items() if action == "run"] == ["motion"]
    again = plan("--set", "heights.noise=0.5")
    assert [stage for stage, action in again.items() if action == "run"] == ["heights", "notes"]
    assert list(plan("--goal", "heights")) == ["segmentation", "decoding", "export", "heights", "motion", "notes"]
    assert plan("--only", "notes", "--force", "notes")["notes"] == "run"


def test_the_commands_know_it(clip: Path, tmp_path: Path) -> None:
    opened = run(clip, tmp_path, "goals=[notes]")
    table = parquet.read_table(opened["motion"].files()["motion.parquet"])
    assert table.num_rows == 4
    assert table.column_names[:3] == ["frame", "seconds", "center_x"]

    def says(*words: str) -> str:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == 0, done.output
        return done.output

    assert "share of the row" not in says("stages")
    assert "heights.noise" in says("stages", "heights")
    assert "share float32 (4, 64)" in says("inspect", str(opened.path))
    says("report", str(opened.path))
    page = (opened.path / "report.html").read_text()
    assert all(word in page for word in ("heights", "notes", "motion"))
    assert "identical" in says("diff", str(opened.path), str(opened.path))
    assert "5 of 5 artifacts are whole" in says("verify", str(tmp_path / "store"))
    assert "heights" in says("pack", str(opened.path), str(tmp_path / "disc.zip"))
    assert torch.equal(open_run(tmp_path / "disc.zip")["heights"].value().share, opened["heights"].value().share)
    (opened.path / "run.json").unlink()
    assert "5 artifacts" in says("gc", str(tmp_path / "store"), "--min-age", "0", "--dry-run")


class Listener(Silent):
    def show(self, snapshot: object) -> None: ...


def test_a_dataset_goes_to_the_same_goals(clip: Path, tmp_path: Path) -> None:
    clips = [clip, save_frames(tmp_path / "clips" / "small", draw_frames(2))]
    dataset = make_dataset(tmp_path / "dataset", clips)

    def settings(*overrides: str) -> Settings:
        return Settings(overrides=[*INFLATED, "goals=[export, notes, heights]", *overrides])

    def launch(*overrides: str) -> Any:
        options = DatasetOptions(
            folder=dataset.folder, settings=settings(*overrides), choice=Choice(), device="cpu", workers=1
        )
        return run_dataset(options, Listener())

    assert launch().ending.snapshot.done == 2
    rows = read_catalog(dataset)
    assert Counter(row.stage for row in rows) == dict.fromkeys(
        ("segmentation", "decoding", "export", "heights", "motion", "notes"), 2
    )
    assert {row.state for row in rows} == {"done"}
    assert launch().ending is None
    with open_for(dataset, settings()) as opened:
        exported = export_assets(opened, tmp_path / "assets", where=None, copies=False, progress=silent)
    assert exported.made == 2
    names = files(tmp_path / "assets" / "small")
    assert {"notes/deep/notes.txt", "turntable.mp4", "asset.json"} <= names
    about = json.loads((tmp_path / "assets" / "small" / "asset.json").read_text())
    assert set(about["artifacts"]) == {"export", "notes", "heights"}
    assert set(about["files"]) == names - {"asset.json"}

    assert launch("notes.fail=true").ending.snapshot.failed == {"program": 2}
    failed = [row for row in read_catalog(dataset) if row.state == "failed"]
    assert {row.stage for row in failed} == {"notes"}
    assert all("these notes fail" in (row.message or "") for row in failed)
    assert all("the package third-party 0.1" in (row.message or "") for row in failed)
