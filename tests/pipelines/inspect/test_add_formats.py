"""More formats of a finished run: of what is stored, kept while they are right, its own files untouched."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.chosen_formats import chosen_formats
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.inspect.add_formats import Added, add_formats
from ss4d.pipelines.inspect.asset import read_gaussians
from ss4d.pipelines.inspect.opened import open_run
from ss4d.pipelines.inspect.pictures import Pictures
from ss4d.pipelines.inspect.rerun import Changes, options_of_run
from ss4d.pipelines.plan import RUN, Step
from ss4d.pipelines.run import LogReporter, run_clip
from ss4d.pipelines.store.housekeeping import pack_run
from ss4d.stages.types import silent
from ss4d.storage.errors import StoreError
from tests.helpers.foreign_readers import Glb, read_with_gsply
from tests.stages.export.clips import mesh_psnr, psnr


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished_run.parents[1], tmp_path / "out")
    return tmp_path / "out" / "runs" / finished_run.name


def added(run: Path, formats: str, folder: Path | None = None, most: int | None = None) -> Added:
    return add_formats(open_run(run), chosen_formats([formats]), folder or run, max_gaussians=most, progress=silent)


def add(run: Path, formats: str, folder: Path | None = None, most: int | None = None) -> list[str]:
    done = added(run, formats, folder, most)
    assert not done.refused
    return [file for files in done.files.values() for file in files]


class Listener(LogReporter):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def message(self, text: str) -> None:
        self.told.append(text)


def stored(run: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (run.parents[1] / "store").rglob("*")}


def test_they_hold_the_runs_asset_and_nothing_is_computed(run: Path, tmp_path: Path) -> None:
    before = stored(run)
    files = add(run, "ply, spz,html", tmp_path / "files")
    assert sorted(files) == sorted(str(p.relative_to(tmp_path / "files")) for p in (tmp_path / "files").rglob("*.*"))
    for name in ("frames/frame0001.ply", "frames/frame0004.ply"):
        assert (tmp_path / "files" / name).read_bytes() == (run / name).read_bytes()
    gaussians = read_gaussians(open_run(run))
    assert psnr(read_with_gsply(tmp_path / "files/spz/frame0003.spz"), gaussians.frame(2)) > 40
    assert stored(run) == before
    assert f"<title>{run.name}</title>" in (tmp_path / "files/viewer.html").read_text()


def test_in_the_runs_folder_they_stay_until_the_asset_is_another(run: Path) -> None:
    assert add(run, "html") == ["viewer.html"]
    assert len(add(run, "spz", most=3)) == 4
    assert len(read_with_gsply(run / "spz/frame0001.spz").means) == 3
    page = (run / "viewer.html").read_bytes()
    run_clip(options_of_run(run, Changes()), LogReporter())
    assert (run / "viewer.html").read_bytes() == page
    record = json.loads((run / "run.json").read_text())
    assert {"viewer.html", "spz/frame0001.spz", "turntable.mp4"} <= set(record["results"])
    assert add(run, "html") == ["viewer.html"], "it may be written again"
    run_clip(options_of_run(run, Changes(overrides=["export.size=32"])), LogReporter())
    assert (run / "viewer.html").exists(), "the Gaussians are the same"
    changed, heard = options_of_run(run, Changes(seed=5)), Listener()
    run_clip(changed, heard)
    assert not (run / "viewer.html").exists()
    assert not (run / "spz").exists()
    assert "exported" not in json.loads((run / "run.json").read_text())
    (line,) = [text for text in heard.told if text.startswith("Removed")]
    told, commands = line.split("; to make them anew: ")
    assert told == "Removed, since the asset is another one: spz/, viewer.html"
    for command in commands.split(" && "):
        assert CliRunner().invoke(app, shlex.split(command)[1:]).exit_code == 0
    assert len(read_with_gsply(run / "spz/frame0001.spz").means) == 3, "with as many Gaussians as before"
    assert (run / "viewer.html").read_bytes() != page


def test_a_run_that_stops_early_does_not_forget_what_was_added(run: Path) -> None:
    add(run, "html")
    changed, heard = options_of_run(run, Changes(seed=5)), Listener()
    with pytest.raises(KeyboardInterrupt):
        run_clip(changed, Stopping())
    assert (run / "viewer.html").exists()
    run_clip(changed, heard)
    assert not (run / "viewer.html").exists()
    assert any(text.startswith("Removed") and "viewer.html" in text for text in heard.told)


class Stopping(LogReporter):
    """Ends a run when a stage begins to be computed, as Ctrl-C does."""

    def stage_started(self, step: Step) -> None:
        if step.action == RUN:
            raise KeyboardInterrupt


def test_the_runs_own_files_are_not_replaced(run: Path) -> None:
    before = (run / "frames/frame0001.ply").read_bytes()
    refused = added(run, "ply,spz", most=1)
    assert list(refused.files) == ["spz"]
    assert "file of the run itself" in refused.refused["ply"]
    assert (run / "frames/frame0001.ply").read_bytes() == before
    assert len(add(run, "ply")) == 4, "they are there already"
    assert "frames/frame0001.ply" not in json.loads((run / "run.json").read_text())["exported"]["files"]
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


SOLID = ["decoding.method=inflation", "decoding.resolution=24"]  # what an untrained model makes is hardly visible
MESH = ["mesh.grid=16", "mesh.views=12", "mesh.faces=200", "mesh.texture=64"]


def test_meshes_are_made_first_by_the_command_that_is_told(run: Path, tmp_path: Path) -> None:
    run_clip(options_of_run(run, Changes(overrides=SOLID)), LogReporter())
    done = added(run, "glb,spz", tmp_path / "files")
    assert (list(done.files), list(done.refused)) == (["spz"], ["glb"])
    assert re.search("no meshes, which glb is made of; .*ss4d run .*--goal export --goal mesh", done.refused["glb"])
    words = shlex.split(done.refused["glb"].split("`")[1])
    again = CliRunner().invoke(app, [*words[1:], *(word for value in MESH for word in ("--set", value))])
    assert again.exit_code == 0, again.output
    before = stored(run)
    assert add(run, "glb", tmp_path / "files") == ["mesh.glb"]
    assert stored(run) == before
    assert (run / "turntable.mp4").exists(), "the files of the earlier goal stay"
    meshes, glb = open_run(run)["mesh"].value(), Glb(tmp_path / "files/mesh.glb")
    full = [t for t in range(meshes.num_frames) if len(meshes.frame(t).faces)]
    assert len(full) == meshes.num_frames
    for t in full:
        assert mesh_psnr(glb.mesh(t), meshes.frame(t)) > 35


def test_a_run_that_is_asked_for_meshes_makes_them(run: Path) -> None:
    changed = Changes(overrides=[*SOLID, *MESH, "export.formats=[glb]", "export.turntable=false"])
    run_clip(options_of_run(run, changed), LogReporter())
    opened = open_run(run)
    assert "mesh" in opened["export"].record.recipe.inputs
    assert (run / "mesh.glb").stat().st_size > 1000
    (drawn,) = {len(strip.times) for strip in Pictures(opened, size=32).strips("mesh")}
    assert drawn == opened["mesh"].value().num_frames


def test_a_packed_run_can_be_exported(run: Path, tmp_path: Path) -> None:
    pack_run(run, tmp_path / "packed.zip", silent, None)
    assert add(tmp_path / "packed.zip", "4d.zip", tmp_path / "files") == ["asset.4d.zip"]


def test_without_gaussians_a_sentence_says_so(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run.parents[1] / "store" / "decoding")
    with pytest.raises(StoreError, match="decoding"):
        add(run, "spz", tmp_path / "files")


@pytest.mark.parametrize("words", [["obj"], ["spz,obj"], [""], [","]])
def test_formats_that_are_none_are_told(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="choose from ply, compressed_ply"):
        chosen_formats(words)


def test_formats_are_named_with_commas_or_one_by_one() -> None:
    assert chosen_formats(["spz,ply", "html", "ply"]) == ("ply", "spz", "html")


def test_what_the_command_says(run: Path, tmp_path: Path) -> None:
    def command(*words: object) -> Any:
        return CliRunner().invoke(app, ["export", str(run), *map(str, words)], env={"COLUMNS": "200"})

    done = command("--formats", "spz,html", "--formats", "4d.zip", "--out", tmp_path / "files")
    assert done.exit_code == 0, done.output
    for part in ("spz (", "4 files in SPZ, one per frame", "viewer.html (", "asset.4d.zip ("):
        assert part in done.output
    some = command("--formats", "glb,spz", "--out", tmp_path / "some")
    assert (some.exit_code, "ss4d: glb is not made: " in some.output) == (1, True)
    assert (tmp_path / "some/spz/frame0001.spz").exists()
    wrong = command("--formats", "obj")
    assert (wrong.exit_code, "there is no format 'obj'" in wrong.output) == (1, True)
