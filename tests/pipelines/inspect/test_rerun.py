"""Computing again: what a changed run shares with the first, one stage alone, forced stages, other stores, plans."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines import tasks
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.inspect.rerun import Changes, options_of_run
from ss4d.pipelines.plan import Wish
from ss4d.pipelines.prepare import RunOptions, prepare
from ss4d.pipelines.run import run_clip
from ss4d.pipelines.store.housekeeping import collect, pack_run, verify_store
from ss4d.stages.decoding_config import DecodingConfig
from ss4d.stages.types import silent
from ss4d.storage.errors import DamageError, NewerError, StoreError
from ss4d.storage.files import copy_file
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore
from tests.conftest import FAST, Silent
from tests.helpers.untrained import NOTICE

ORDER = ["segmentation", "conditioning", "sparse_structure", "slat", "decoding", "export"]
Make = Callable[..., dict[str, Any]]


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def computed(record: dict[str, Any]) -> list[str]:
    return [stage for stage, entry in record["stages"].items() if entry["state"] == "computed"]


@pytest.fixture
def out(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the output folder of a finished run, to be changed."""
    shutil.copytree(finished_run.parent.parent, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def make(out: Path, clip: Path, model_folder: Path) -> Make:
    """Runs the clip again with changes, and gives the record."""

    def again(*sets: str, **options: Any) -> dict[str, Any]:
        given = {"source": clip, "out": out, "device": "cpu", "engine": "direct"}
        run = RunOptions(overrides=(f"model={model_folder}", *FAST, *sets), **{**given, **options})
        record: dict[str, Any] = json.loads((run_clip(run, Silent()) / "run.json").read_text())
        return record

    return again


def test_variants_of_a_late_stage_share_the_early_ones(make: Make) -> None:
    sizes = [make(f"export.size={size}", name=f"size{size}") for size in (32, 48)]
    assert [computed(record) for record in sizes] == [["export"]] * 2
    keys = [{stage: entry["key"] for stage, entry in record["stages"].items()} for record in sizes]
    assert [stage for stage in ORDER if keys[0][stage] == keys[1][stage]] == ORDER[:5]
    assert computed(make("decoding.method=inflation", "decoding.resolution=32", name="solid")) == ["decoding", "export"]


def test_only_one_stage(make: Make, out: Path) -> None:
    before = content(out / "runs" / "disc" / "frames")
    record = make("slat.sampler.steps=3", wish=Wish(only="slat"))
    assert computed(record) == ["slat"]
    assert record["state"] == "partial"
    assert content(out / "runs" / "disc" / "frames") == before  # the asset is still the last whole one
    with pytest.raises(ConfigError, match="--only export needs the result of decoding, which is not stored"):
        make("slat.sampler.steps=3", wish=Wish(only="export"))
    assert make("slat.sampler.steps=3", wish=Wish(only="decoding"))["state"] == "partial"
    whole = make("slat.sampler.steps=3", wish=Wish(only="export"))
    assert (whole["state"], computed(whole)) == ("complete", ["export"])
    assert content(out / "runs" / "disc" / "frames") != before


def test_a_forced_stage_gives_the_same_and_leaves_the_rest(
    make: Make, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = content(out / "runs" / "disc")
    del before["run.json"]
    assert computed(make(wish=Wish(force=("slat", "conditioning")))) == ["conditioning", "slat"]
    after = content(out / "runs" / "disc")
    del after["run.json"]
    assert after == before
    assert "came out different" not in caplog.text


def spoil(out: Path, pattern: str) -> Path:
    """Flips a bit in the middle of a file of the store."""
    (path,) = (out / "store").glob(pattern)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("stage", ["conditioning", "slat", "decoding"])
def test_a_damaged_stage_in_the_middle_comes_back(make: Make, out: Path, stage: str) -> None:
    """Though what comes after it is there, so that nothing but people needs it."""
    before = content(out / "store")
    spoilt = spoil(out, f"{stage}/*/*.zarr/{'means' if stage == 'decoding' else 'feats'}/c.0.0*")
    assert computed(make()) == []  # nobody has looked at it
    assert len(verify_store(str(out / "store"), repair=True, progress=silent).damaged) == 1
    assert not spoilt.exists()
    record = make()
    assert computed(record) == [stage]
    assert record["stages"][stage]["reason"] == "its stored result was damaged"
    assert spoilt.read_bytes() == before[str(spoilt.relative_to(out / "store"))]
    assert computed(make()) == []
    shutil.rmtree(spoilt.parents[1])
    ArtifactStore(out / "store").remove(ArtifactRef(stage, record["stages"][stage]["key"]))  # as gc does
    assert computed(make()) == []


def test_a_stage_damaged_at_its_root_comes_back_by_itself(make: Make, out: Path) -> None:
    spoil(out, "slat/*/*.zarr/zarr.json")
    assert computed(make()) == ["slat"]


def test_a_damaged_result_is_not_handed_out(make: Make, out: Path) -> None:
    spoil(out, "export/*/*.zarr/files/frames/frame0002.ply")
    with pytest.raises(DamageError, match=r"frames/frame0002.ply' is not what it was; `ss4d verify \S+ --repair`"):
        make(name="again")
    verify_store(str(out / "store"), repair=True, progress=silent)
    assert computed(make(name="again")) == ["export"]
    assert content(out / "runs" / "again" / "frames") == content(out / "runs" / "disc" / "frames")


def test_an_export_replaced_while_it_is_laid_out(make: Make, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(out / "runs" / "disc" / "frames")
    shutil.rmtree(out / "runs")
    copies = 0

    def copy_when_it_is_there(source: Path, target: Path) -> None:
        nonlocal copies
        copies += 1
        if copies == 2:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
        copy_file(source, target)

    monkeypatch.setattr("ss4d.pipelines.results.copy_file", copy_when_it_is_there)
    assert make()["state"] == "complete"
    assert content(out / "runs" / "disc" / "frames") == before


def test_a_forced_stage_that_comes_out_different_is_told(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, or with a changed package of the same version."""
    read = tasks.read_value

    def read_louder(kind: Any, artifact: Any) -> Any:
        value = read(kind, artifact)
        if artifact.ref.stage == "slat":
            value.feats.mul_(2)
        return value

    monkeypatch.setattr(tasks, "read_value", read_louder)
    make(wish=Wish(force=("decoding",)))
    assert "decoding came out different from what was stored" in caplog.text
    assert "--from decoding renews it" in caplog.text


def test_another_seed_shares_what_has_no_randomness(make: Make) -> None:
    assert computed(make(seed=7, name="seven")) == ORDER[2:]


# Stores elsewhere


def test_a_store_elsewhere(make: Make, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(out)
    monkeypatch.chdir(tmp_path)
    record = make(store="shared/store")
    assert record["store"] == str(tmp_path / "shared" / "store")
    assert not (out / "store").exists()
    assert len(list(ArtifactStore(tmp_path / "shared" / "store").refs())) == len(ORDER)
    assert computed(make(store=str(tmp_path / "shared" / "store"), name="other")) == []
    kept = collect(str(tmp_path / "shared" / "store"), min_age=0, dry_run=False, progress=silent)
    assert (kept.unused, len(kept.kept)) == ([], len(ORDER))  # it knows who uses it
    steps = prepare(options_of_run(out / "runs" / "disc", Changes())).steps
    assert {step.action for step in steps} == {"reuse"}


def test_the_default_store_is_told_from_the_run(make: Make) -> None:
    assert make()["store"] == "../../store"


@pytest.mark.parametrize("secret", ["s3://key:secret@bucket/prefix", "s3://bucket/prefix?secret_access_key=secret"])
def test_credentials_in_the_address_are_refused(make: Make, out: Path, secret: str) -> None:
    with pytest.raises(ConfigError, match="leave credentials and options out of the address") as caught:
        make(store=secret)
    assert "secret@" not in str(caught.value)
    assert "secret" not in (out / "runs" / "disc" / "run.json").read_text()


def test_what_is_no_address(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"'s3://\[bucket' is no address"):
        make(store="s3://[bucket")


def test_a_store_that_can_only_be_read_leaves_the_earlier_record(make: Make, out: Path, tmp_path: Path) -> None:
    run = out / "runs" / "disc"
    pack_run(run, tmp_path / "disc.zip", silent)
    before = (run / "run.json").read_bytes()
    with pytest.raises(StoreError, match="can only be read"):
        make(store=str(tmp_path / "disc.zip"), seed=7)
    assert (run / "run.json").read_bytes() == before


def test_a_newer_record_is_refused_and_left_alone(make: Make, out: Path) -> None:
    path = out / "runs" / "disc" / "run.json"
    path.write_text(json.dumps({"schema": 2, "stages": []}))
    for use in (make, lambda: options_of_run(path.parent, Changes())):
        with pytest.raises(NewerError, match=r"run\.json was written by a newer version .* upgrade"):
            use()
    assert json.loads(path.read_text()) == {"schema": 2, "stages": []}


def test_what_is_said_of_a_model_is_said_where_it_is_used(make: Make) -> None:
    assert make()["model"]["notice"] == NOTICE
    assert make("decoding.method=inflation", "decoding.resolution=32", name="solid")["model"]["notice"] is None


# Plans


def actions(run: Path, **changes: Any) -> list[str]:
    return [step.action for step in prepare(options_of_run(run, Changes(**changes))).steps]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["reuse"] * 6),
        ({"overrides": ["slat.sampler.steps=3"]}, ["reuse"] * 3 + ["run"] * 3),
        ({"seed": 7}, ["reuse"] * 2 + ["run"] * 4),
        ({"wish": Wish(from_stage="decoding")}, ["reuse"] * 4 + ["run"] * 2),
        ({"wish": Wish(force=("slat",))}, ["reuse"] * 3 + ["run"] + ["reuse"] * 2),
        ({"overrides": ["export.size=32"], "wish": Wish(only="decoding")}, ["reuse"] * 5 + ["skip"]),
        ({"overrides": ["decoding.method=inflation"]}, ["reuse", "run", "run"]),
    ],
)
def test_a_plan_of_a_run(finished_run: Path, changes: dict[str, Any], expected: Sequence[str]) -> None:
    before = content(finished_run.parent.parent)
    assert actions(finished_run, **changes) == expected
    assert content(finished_run.parent.parent) == before


def test_a_plan_loads_no_network(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ss4d.stages.weights.load_network", lambda *_, **__: pytest.fail("a network was loaded"))
    assert actions(finished_run, seed=7)[-1] == "run"


def test_a_plan_comes_true(make: Make, out: Path) -> None:
    changes = Changes(overrides=["sparse_structure.sampler.steps=3"], seed=9, wish=Wish(force=("segmentation",)))
    options = options_of_run(out / "runs" / "disc", changes)
    planned = {step.stage: step.ref.key for step in prepare(options).steps}
    record = make("sparse_structure.sampler.steps=3", seed=9, wish=changes.wish)
    assert {stage: entry["key"] for stage, entry in record["stages"].items()} == planned


def test_another_method_leaves_the_settings_of_the_former(make: Make, out: Path) -> None:
    make("decoding.method=inflation", "decoding.resolution=32", name="solid")
    options = options_of_run(out / "runs" / "solid", Changes(overrides=["decoding.method=gaussians"]))
    assert prepare(options).config.section("decoding") == DecodingConfig()
    options = options_of_run(out / "runs" / "solid", Changes(overrides=["decoding.depth=0.5"]))
    assert prepare(options).config.section("decoding").model_dump()["resolution"] == 32


def test_what_is_no_run(tmp_path: Path, out: Path) -> None:
    with pytest.raises(StoreError, match="is not a run"):
        options_of_run(tmp_path, Changes())
    shutil.move(out / "runs" / "disc", tmp_path / "disc")
    with pytest.raises(ConfigError, match="must lie in a folder runs/"):
        options_of_run(tmp_path / "disc", Changes())


def test_a_record_of_an_older_version(out: Path) -> None:
    path = out / "runs" / "disc" / "run.json"
    record = json.loads(path.read_text())
    del record["configuration"], record["store"]
    path.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="name it with --config"):
        options_of_run(path.parent, Changes())
    assert actions(path.parent, config="tiny") == ["reuse"] * 6


def test_the_command_plans_a_run_and_an_input(out: Path, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "ss4d.cli.entry",
        "plan",
        str(out / "runs" / "disc"),
        "--set",
        "slat.sampler.steps=3",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["stage", "action", "artifact", "why"]
    assert lines[4].split()[:2] == ["slat", "run"]
    assert "slat.sampler.steps changed from 2 to 3" in lines[4]
    assert lines[-1] == "3 of 6 stages would be computed."
    words = ["plan", str(tmp_path / "nothing.mp4"), "--out", str(tmp_path / "new")]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, "is no run, as it has no run.json, and no input" in done.stderr) == (1, True)
    assert not (tmp_path / "new").exists()


def test_a_packed_run_has_no_plan(out: Path, tmp_path: Path) -> None:
    pack_run(out / "runs" / "disc", tmp_path / "disc.zip", silent)
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "disc.zip")])
    assert (done.exit_code, "is a packed run, which cannot go on" in done.stderr) == (1, True)


def test_a_command_leaves_no_log_handler_behind() -> None:
    before = list(logging.getLogger("ss4d").handlers)
    CliRunner().invoke(app, ["stages", "nothing"])
    assert logging.getLogger("ss4d").handlers == before


def test_the_command_does_one_stage(out: Path, clip: Path, command: Callable[..., list[str]]) -> None:
    line = command(clip, out, "--engine", "direct", "--only", "decoding", "--force", "decoding")
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "asked for by --force decoding" in done.stderr
    assert "Done: the result of decoding is stored." in done.stderr
