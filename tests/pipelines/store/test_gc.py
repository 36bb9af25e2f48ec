"""Freeing what no run needs: nothing that a run refers to goes, and nothing while that is uncertain."""

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.run_record import RECORD
from ss4d.pipelines.store.housekeeping import ABANDONED, DROPPED, NO_RUN, Sorting, collect
from ss4d.pipelines.store_notes import Note
from ss4d.storage.errors import StoreError
from ss4d.storage.files import owned_name
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore, open_store
from tests.helpers.recorded_runs import make, note, refs, refs_of

if TYPE_CHECKING:
    from tests.helpers.s3_server import S3

pytest_plugins = ["tests.helpers.s3_server"]


@pytest.fixture
def out(tmp_path: Path, write_run: Callable[..., Path]) -> Path:
    """An output folder with two runs, of which the second's record is gone."""
    store = ArtifactStore(tmp_path / "store")
    for number in (1, 2):
        make(store, number)
    write_run(tmp_path / "runs" / "kept", 1)
    (tmp_path / "runs" / "begun").mkdir()
    return tmp_path


def run_gc(out: Path, **options: Any) -> Sorting:
    defaults: dict[str, Any] = {"min_age": 0, "dry_run": False, "progress": lambda *_: None}
    return collect(str(out / "store"), **{**defaults, **options})


def stored(out: Path) -> set[ArtifactRef]:
    return set(ArtifactStore(out / "store").refs())


def test_what_no_run_refers_to_goes(out: Path) -> None:
    store = ArtifactStore(out / "store")
    listed = run_gc(out, dry_run=True)
    assert {unused.ref for unused in listed.unused} == refs(2) - refs(1)
    assert {(unused.size, unused.reason) for unused in listed.unused} == {
        (store.size(unused.ref), NO_RUN) for unused in listed.unused
    }
    assert set(listed.kept) == refs(1)
    assert stored(out) == refs(1, 2), "a dry run deletes nothing"
    told: list[tuple[int, int]] = []
    assert run_gc(out, progress=lambda done, total: told.append((done, total))) == listed
    assert stored(out) == refs(1)
    assert told == [(1, 2), (2, 2)]
    assert run_gc(out).unused == []


def test_what_no_run_could_refer_to_stays(out: Path) -> None:
    clip = ArtifactRef("training_clip", "0" * 64)
    with ArtifactStore(out / "store").create(clip) as writer:
        writer.commit({})
    assert clip in run_gc(out).kept
    assert clip in stored(out)


def test_what_was_just_made_stays(out: Path) -> None:
    sorting = run_gc(out, min_age=3600)
    assert (sorting.unused, set(sorting.recent)) == ([], refs(2) - refs(1))
    (old, _) = sorted(refs(2) - refs(1), key=str)
    path = next((out / "store").glob(f"*/*/{old.key}.zarr"))
    os.utime(path, (time.time() - 7200,) * 2)
    assert [unused.ref for unused in run_gc(out, min_age=3600).unused] == [old]


def test_runs_elsewhere_count(
    out: Path, write_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    run = write_run(elsewhere / "other", 2)
    for runs in (elsewhere, run):
        assert run_gc(out, runs=[runs]).unused == []
    assert stored(out) == refs(1, 2)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": 1}', "newer", "key"])
def test_a_record_that_cannot_be_read_stops_everything(out: Path, write_run: Callable[..., Path], damage: str) -> None:
    path = write_run(out / "runs" / "bad", 2) / RECORD
    if damage == "newer":
        path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    elif damage == "key":
        path.write_text(path.read_text().replace(refs_of(2)["slat"].key, "../../elsewhere"))
    else:
        path.write_text(damage)
    for options in ({}, {"drop": ["tokens"]}, {"dry_run": True}):
        with pytest.raises(StoreError, match=rf"{path}.*nothing is deleted"):
            run_gc(out, **options)
    assert stored(out) == refs(1, 2)


def test_without_runs_nothing_is_thought_unused(out: Path) -> None:
    shutil.rmtree(out / "runs")
    with pytest.raises(ConfigError, match=r"no folder of runs beside .*--runs"):
        run_gc(out)
    with pytest.raises(ConfigError, match=r"no folder of runs at .*nowhere"):
        run_gc(out, runs=[out / "nowhere"])
    with pytest.raises(ConfigError, match="there is no store at"):
        run_gc(out / "nowhere")
    (out / "runs").mkdir()
    with pytest.raises(ConfigError, match=r"--drop takes tokens, segmentation.*; got voxel"):
        run_gc(out, drop=["voxel"])
    assert stored(out) == refs(1, 2)


def test_tokens_can_be_dropped_but_not_under_a_run(out: Path, write_run: Callable[..., Path]) -> None:
    going_on = write_run(out / "runs" / "on", 2, state="running")
    sorting = run_gc(out, drop=["tokens"], min_age=3600)
    assert [(unused.ref, unused.reason) for unused in sorting.unused] == [(refs_of(1)["conditioning"], DROPPED)]
    assert stored(out) == refs(1, 2) - {refs_of(1)["conditioning"]}
    os.utime(going_on / RECORD, (time.time() - ABANDONED - 60,) * 2)
    run_gc(out, drop=["conditioning"])
    assert stored(out) == refs(1, 2, without="conditioning"), "a run killed long ago does not go on"


def test_a_run_that_begins_meanwhile_keeps_what_it_needs(out: Path, write_run: Callable[..., Path]) -> None:
    first, second = sorted(refs(2) - refs(1), key=str)
    store = ArtifactStore(out / "store")
    sorting = run_gc(out, progress=lambda *_: note(store, write_run(out / "runs" / "new", 2), 2))
    assert [unused.ref for unused in sorting.unused] == [first]
    assert stored(out) == refs(1) | {second}


def test_what_others_left_half_made_goes_when_it_is_old(out: Path) -> None:
    host = owned_name().split("-", 3)[3]
    old, young = (out / "store" / ".staging" / f"{digit * 16}-1-1-other{host}" for digit in "01")
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "chunk").write_bytes(bytes(100))
    replaced = refs_of(2)["slat"]
    aside = out / "store" / ".replaced" / old.name / "slat" / replaced.key[:2] / f"{replaced.key}.zarr"
    aside.parent.mkdir(parents=True)
    (out / "store" / "slat" / replaced.key[:2] / f"{replaced.key}.zarr").rename(aside)
    for path in (old, aside.parents[2]):
        for inner in (path, *path.rglob("*")):
            os.utime(inner, (0, 0))
    assert replaced not in stored(out)
    sorting = run_gc(out, min_age=3600)
    assert sorting.abandoned.keys() == {f".staging/{old.name}", f".replaced/{old.name}"}
    assert sorting.abandoned[f".staging/{old.name}"] >= 100
    assert (old.exists(), young.exists(), aside.exists()) == (False, True, False)
    assert replaced in stored(out), "what was about to be replaced comes back"


def test_an_object_store_is_collected(
    s3: "S3", tmp_path: Path, write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = s3.new_url()
    store = open_store(url)
    for number in (1, 2):
        make(store, number)
    run = write_run(tmp_path / "runs" / "kept", 1)
    options: dict[str, Any] = {"min_age": 0, "progress": lambda *_: None}
    with pytest.raises(ConfigError, match=r"no folder of runs beside s3://.*--runs"):
        collect(url, dry_run=True, **options)
    listed = collect(url, runs=[run.parent], dry_run=True, **options)
    assert {unused.ref for unused in listed.unused} == refs(2) - refs(1)
    assert all(unused.size > 1000 for unused in listed.unused)
    collect(url, runs=[run.parent], dry_run=False, drop=["tokens"], **options)
    assert set(store.refs()) == refs(1, without="conditioning")


def command(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_commands(out: Path) -> None:
    done = command("gc", out / "store", "--dry-run", "--min-age", 0)
    assert done.exit_code == 0, done.stderr
    assert [line.split()[2] for line in done.stdout.splitlines()] == sorted(map(str, refs(2) - refs(1)))
    assert "Would free 3.0 kB of 2 artifacts" in done.stderr
    assert "of 3 artifacts in use" in done.stderr
    assert "2 artifacts made within 24 hours" in command("gc", out / "store").stderr
    assert command("verify", out / "store").exit_code == 0
    (out / "runs" / "kept" / RECORD).write_text("{")
    done = command("gc", out / "store", "--min-age", 0)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "nothing is deleted while" in done.stderr
    assert stored(out) == refs(1, 2)


def test_runs_elsewhere_that_share_a_store(out: Path, write_run: Callable[..., Path], tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "runs"
    store = open_store(str(out / "store"))
    old = write_run(elsewhere / "other", 2)
    store.place.note("runs/0", Note(host=socket.gethostname(), folder=elsewhere).model_dump_json())  # an old one
    assert run_gc(out).unused == []
    assert old.exists()
    link = tmp_path / "linked" / "store"
    link.parent.mkdir()
    link.symlink_to(out / "store")
    assert collect(str(link), min_age=0, dry_run=True, progress=lambda *_: None).unused == []

    shutil.rmtree(elsewhere)
    done = command("gc", out / "store", "--min-age", 0)
    assert done.exit_code == 1
    assert "cannot be read, so nothing is deleted" in " ".join(done.stderr.split())
    assert stored(out) == refs(1, 2)
    assert command("gc", out / "store", "--min-age", 0, "--forget", "*/elsewhere/*", "--dry-run").exit_code == 0
    assert command("gc", out / "store", "--min-age", 0).exit_code == 1  # a dry run forgets nothing
    assert command("gc", out / "store", "--min-age", 0, "--forget", str(elsewhere)).exit_code == 0
    assert stored(out) == refs(1)
    assert store.place.notes("runs") == {}

    store.place.note("runs/0", "{}")
    done = command("gc", out / "store")
    assert (done.exit_code, "runs/0 in" in done.stderr) == (1, True)


def test_verify_names_the_bad_and_repairs(out: Path) -> None:
    ref = refs_of(1)["slat"]
    chunk = out / "store" / "slat" / ref.key[:2] / f"{ref.key}.zarr" / "feats" / "c.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    for options, kept in (((), True), (("--repair",), False)):
        done = command("verify", out / "store", *options)
        assert done.exit_code == 1
        assert f"damaged: {ref}: feats: c.0.0 is not what it was\n" in done.stderr
        assert "4 of 5 artifacts are whole" in done.stderr
        assert (ref in stored(out)) == kept
    other = refs_of(2)["slat"]
    description = out / "store" / "slat" / other.key[:2] / f"{other.key}.zarr" / "feats" / "zarr.json"
    whole = description.read_text()
    description.write_text(whole.replace("{", "", 1))
    assert f"damaged: {other}: feats: zarr.json describes no array: " in command("verify", out / "store").stderr
    description.write_text(whole)
    done = command("verify", out / "store")
    assert (done.exit_code, "4 of 4 artifacts are whole" in done.stderr) == (0, True)


def test_verify_tells_what_is_no_store(out: Path) -> None:
    for folder, sentence in ((out, "holds no artifact"), (out / "runs", "holds no artifact"), (out / "no", "no store")):
        done = command("verify", folder)
        assert (done.exit_code, sentence in done.stderr) == (1, True)
    (out / "empty").mkdir()
    assert command("verify", out / "empty").exit_code == 0  # a store in which nothing is yet
    for words in (("verify",), ("gc", "--dry-run", "--runs", out / "runs")):
        done = command(*words, out / "runs" / "kept" / RECORD)
        assert (done.exit_code, "is a file: give the folder" in done.stderr) == (1, True)
