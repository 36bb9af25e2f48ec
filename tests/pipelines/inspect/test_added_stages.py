"""Stages that a package adds are inspected as the built-in ones are, also where the package is not installed."""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.inspect import media
from ss4d.pipelines.inspect.diff import compare_runs
from ss4d.pipelines.inspect.media import Media
from ss4d.pipelines.inspect.opened import UnknownTypeError, open_run
from ss4d.pipelines.inspect.report import write_report
from ss4d.pipelines.prepare import RunOptions
from ss4d.pipelines.registry import installed
from ss4d.pipelines.run import run_clip
from ss4d.pipelines.store.housekeeping import collect, pack_run, verify_store
from ss4d.stages.types import silent
from ss4d.storage.codec import ArrayData
from ss4d.storage.errors import StoreError
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore
from tests.conftest import Silent, draw_frames, save_frames
from tests.helpers import added_stages, noop_stages
from tests.helpers.added_stages import HOSTILE, PICTURES
from tests.pipelines.inspect.test_report import Page


@dataclass(frozen=True)
class Made:
    """Two runs with the added stages, of which the second is warmer and darker, and where their package lies."""

    site: Path
    out: Path

    @property
    def runs(self) -> tuple[Path, Path]:
        return self.out / "runs" / "cool", self.out / "runs" / "warm"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    found = Made(tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("out"))
    clip = save_frames(tmp_path_factory.mktemp("input") / "dot", draw_frames(1, size=8))
    noop_stages.install(found.site)
    added_stages.install(found.site)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(found.site)
        installed.cache_clear()
        for run, values in zip(found.runs, ((), ("heat.degrees=30", "views3.shade=20")), strict=True):
            overrides = (*noop_stages.METHODS, "goals=[export, views3]", *values)
            options = RunOptions(
                source=clip, out=found.out, overrides=overrides, device="cpu", engine="direct", name=run.name
            )
            assert run_clip(options, Silent()) == run
    installed.cache_clear()
    return found


@pytest.fixture(params=["installed", "not installed"])
def runs(made: Made, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """The runs, where the package is installed and where it is not."""
    if request.param == "installed":
        monkeypatch.syspath_prepend(made.site)
    installed.cache_clear()
    yield made.runs
    installed.cache_clear()


def ss4d(*words: object) -> str:
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_table_lists_what_they_hold(runs: tuple[Path, Path]) -> None:
    told = json.loads(ss4d("inspect", runs[0], "--json"))["stages"]
    stages = {row["stage"]: row for row in told}
    assert [array["name"] for array in stages["heat"]["arrays"]] == ["degrees", "flags"]
    assert (stages["heat"]["state"], stages["heat"]["parents"]) == ("computed", ["decoding"])
    assert (stages["views3"]["num_files"], stages["views3"]["parents"]) == (8, ["heat"])


def test_arrays_have_statistics_and_scalars_are_told(runs: tuple[Path, Path], tmp_path: Path) -> None:
    told = json.loads(ss4d("inspect", runs[0], "heat", "--json", "--out", tmp_path))
    assert [(array["name"], array["mean"]) for array in told["arrays"]] == [("degrees", 20), ("flags", 1)]
    assert told["arrays"][0]["meaning"] == "temperature of each Gaussian, degrees"
    assert (told["values"], told["picture"]) == ({"scale": "Celsius"}, None)
    assert "scale Celsius" in ss4d("inspect", runs[0], "heat", "--out", tmp_path)
    assert "sub/back.JPG" in ss4d("inspect", runs[0], "views3", "--out", tmp_path)


def test_values_are_read_with_their_type_and_arrays_without(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    installed.cache_clear()
    stage = open_run(made.runs[0])["heat"]
    assert (stage["degrees"][:] == 20).all()
    with pytest.raises(UnknownTypeError, match=r"heat, made by the package added-stages 0\.1, is not known here"):
        stage.value()
    monkeypatch.syspath_prepend(made.site)
    installed.cache_clear()
    assert isinstance(open_run(made.runs[0])["heat"].value(), added_stages.Heat)
    installed.cache_clear()
    with pytest.raises(StoreError, match="views3 gives files and no value"):
        open_run(made.runs[0])["views3"].value()


def test_runs_are_compared_array_by_array_and_file_by_file(runs: tuple[Path, Path]) -> None:
    found = {stage.stage: stage for stage in compare_runs(*map(open_run, runs)).stages}
    assert (found["export"].verdict, found["heat"].verdict, found["views3"].verdict) == (
        "identical",
        "differs",
        "differs",
    )
    assert found["heat"].measures == {"degrees_distance": pytest.approx(10 / 650**0.5), "flags_distance": 0}
    assert found["views3"].measures == {"files_equal": 3, "files_a": 8, "files_b": 8}
    assert "degrees_distance 0.3922" in ss4d("diff", *runs)


def page_of(run: Path, folder: Path) -> Page:
    write_report(open_run(run), folder / "page.html", lambda part: None)
    return Page((folder / "page.html").read_text(encoding="utf-8"))


def test_the_page_shows_their_arrays_pictures_and_videos(runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = page_of(runs[0], tmp_path)
    for word in ("heat", "degrees", "temperature of each Gaussian", "Celsius", "views3", "sub/back.JPG", "8 files"):
        assert word in page.text
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert {picture["alt"] for picture in pictures} == {*PICTURES, 'it\'s <b> & "c".png'}
    for picture in pictures:
        data = base64.b64decode(str(picture["src"]).removeprefix("data:image/webp;base64,"))
        assert abs(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) - 90).max() < 6
    (video,) = [attributes for tag, attributes in page.tags if tag == "video"]
    data = base64.b64decode(str(video["src"]).removeprefix("data:video/mp4;base64,"))
    assert data == open_run(runs[0])["views3"].artifact.read_file("turn.mp4")


def test_nothing_of_theirs_runs_on_the_page(runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = page_of(runs[0], tmp_path)
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert not {"svg", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert HOSTILE not in html
    assert "not.png, 25 bytes (cannot be shown" in page.text
    assert set(re.findall(r"data:([a-z0-9/]*)", html)) == {"", "image/webp", "video/mp4"}
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-" in str(
        policy
    )


def test_a_page_holds_so_much_and_says_what_it_leaves_out(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = open_run(made.runs[0])["views3"]
    whole = {file.name: file for file in Media().files(stage)}
    assert (whole["side.png"].note, whole["page.html"].kind, whole["page.html"].url) == ("", "other", "")
    size = whole["turn.mp4"].size
    none = {file.name: file for file in Media(most_bytes=size - 1).files(stage)}
    assert (none["turn.mp4"].url, none["turn.mp4"].note) == ("", "too large for this page")
    monkeypatch.setattr(media, "MOST_SHOWN", 2)
    assert sum(bool(file.url) for file in Media().files(stage)) == 2
    monkeypatch.setattr(media, "MOST_PIXELS", 60 * 40 - 1)
    assert "60 x 40 pixels" in {file.name: file for file in Media().files(stage)}["side.png"].note


def test_verify_pack_and_gc_treat_them_alike(runs: tuple[Path, Path], made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.out, tmp_path / "out")
    store, run = tmp_path / "out" / "store", tmp_path / "out" / "runs" / "cool"
    assert verify_store(str(store), repair=False, progress=silent).damaged == {}
    assert {"heat", "views3"} <= pack_run(run, tmp_path / "cool.zip", silent).sizes.keys()
    assert "degrees" in ss4d("inspect", tmp_path / "cool.zip")
    shutil.rmtree(tmp_path / "out" / "runs" / "warm")
    shutil.rmtree(store / ".notes")  # a copy's notes name the runs that it was copied from, which are still there
    clip = ArtifactRef("training_clip", "0" * 64)
    with ArtifactStore(store).create(clip) as writer:
        writer.write("x", ArrayData(np.zeros(1), ("n",)))
        writer.commit({})
    freed = collect(str(store), min_age=0, dry_run=False, progress=silent)
    assert {unused.ref.stage for unused in freed.unused} == {"heat", "views3"}
    assert clip in freed.kept
    dropped = collect(str(store), drop=["views3"], min_age=0, dry_run=False, progress=silent)
    assert [unused.ref for unused in dropped.unused] == [open_run(run)["views3"].ref]
    assert page_of(run, tmp_path).text.count("a run with --force views3 makes it again") == 1


def test_the_list_of_stages_has_them(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(made.site)
    installed.cache_clear()
    told = ss4d("stages", "views3")
    assert "views3: takes pictures; gives files, added by added-stages 0.1" in told
    assert "views3.method = plain (default), from added-stages 0.1" in told
    assert "heat.method" not in told
    monkeypatch.undo()
    installed.cache_clear()
    assert "there is no stage 'views3'" in CliRunner().invoke(app, ["stages", "views3"]).output


def test_values_of_equal_arrays_may_differ_in_their_scalars(made: Made, tmp_path: Path) -> None:
    installed.cache_clear()
    run = open_run(made.runs[0])
    store = ArtifactStore(tmp_path)
    others = []
    for digit, scale in (("1", "Celsius"), ("2", "kelvin")):
        ref = ArtifactRef("heat", digit * 64)
        with store.create(ref) as writer:
            writer.write("degrees", ArrayData(np.full((2, 1), np.nan), ("t", "n")))
            writer.commit({"values": {"scale": scale}})
        others.append(replace(run, stages={"heat": replace(run["heat"], ref=ref, store=store)}))
    (found,) = compare_runs(*others).stages
    assert (found.verdict, found.why) == ("differs", "different recipes; scale Celsius against kelvin")
    assert found.measures == {"degrees_distance": 0}
