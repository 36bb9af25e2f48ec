"""Folders of training clips: the same for the same seeds, whole after any interruption, checked when they are read."""

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from pyarrow import parquet

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.training.make_records import MESH_SEEDS, ClipJob, Sizes, import_records, make_records, record
from ss4d.pipelines.training.records import (
    MANIFEST,
    RecordError,
    Row,
    check_records,
    open_records,
    read_manifest,
    recipe,
    record_store,
    update_manifest,
    write_clip,
)
from ss4d.pipelines.values import write_value
from ss4d.stages.data.clip import HELD_OUT_SEED, TrainingClip, make_clip
from ss4d.stages.data.objects import family_of
from ss4d.stages.errors import InputError
from ss4d.stages.types import silent
from ss4d.storage.errors import StoreError
from ss4d.storage.refs import ArtifactRef
from tests.helpers.gltf_files import HALF_TURN, tetrahedron
from tests.helpers.waiting import wait_until

SMALL = Sizes(frames=2, size=16, views=2, resolution=8)
OPTIONS = ("--frames", "2", "--size", "16", "--views", "2", "--resolution", "8")


def words(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "ss4d.cli.entry", "data", *map(str, arguments)]


def ss4d(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words(*arguments), capture_output=True, text=True, timeout=280, check=False)


def refused(finished: subprocess.CompletedProcess[str], *expected: str) -> None:
    """The command failed with one sentence that holds the `expected` words."""
    assert finished.returncode == 1, finished.stderr
    assert "Traceback" not in finished.stderr
    sentences = [line for line in finished.stderr.splitlines() if line.startswith("ss4d: ")]
    assert len(sentences) == 1, finished.stderr
    for word in expected:
        assert word in sentences[0]


def same(first: TrainingClip, second: TrainingClip) -> bool:
    arrays = all(torch.equal(getattr(first, name), getattr(second, name)) for name in TrainingClip.specs())
    return arrays and all(
        getattr(first, name) == getattr(second, name) for name in ("family", "seed", "yaw", "fps", "resolution")
    )


def fill(folder: Path, seeds: range) -> Path:
    """A folder as `ss4d data make` leaves it, without its processes."""
    folder.mkdir()
    rows = [record(folder, ClipJob(f"{family_of(n)}-{n}", SMALL.spec(n, family_of(n))))[0] for n in seeds]
    update_manifest(folder, rows)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips, not to be written to."""
    return fill(tmp_path_factory.mktemp("records") / "clips", range(4))


@pytest.fixture
def clips(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "clips"))


def artifact(folder: Path, index: int) -> Path:
    key = open_records(folder).rows[index].key
    return next((folder / "store").rglob(f"{key}.zarr"))


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


# Making


def test_worker_processes_make_the_clips_of_their_seeds(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    make = ("make", folder, "--clips", 5, "--seed", HELD_OUT_SEED, "--families", "fish,bird", *OPTIONS)
    finished = ss4d(*make, "--workers", 2)
    assert finished.returncode == 0, finished.stderr
    assert "5 made" in finished.stderr
    records = open_records(folder, "held_out")
    assert len(records) == 5
    assert {row.family for row in records.rows} == {"bird", "fish"}
    for row, clip in zip(records.rows, records, strict=True):
        assert same(clip, make_clip(SMALL.spec(row.seed, row.family)))
        assert row.voxels == len(clip.coords)
    with pytest.raises(ConfigError, match="no train clips"):
        open_records(folder, "train")
    table = parquet.read_table(folder / MANIFEST)  # as others read it
    assert table["id"].to_pylist() == list(records.ids)
    assert set(table["split"].to_pylist()) == {"held_out"}
    listed = ss4d("list", folder)
    assert "5 clips of 2 frames" in listed.stderr


def started(folder: Path, num_workers: int) -> subprocess.Popen[str]:
    """A command that makes many clips and has made two."""
    process = subprocess.Popen(
        words("make", folder, "--clips", 2000, "--seed", 0, *OPTIONS, "--workers", num_workers),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert wait_until(lambda: len(list(folder.glob("store/[!.]*/*/*.zarr"))) >= 2 or process.poll() is not None, 240)
    assert process.poll() is None, process.communicate()[1]
    return process


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return psutil.wait_procs(processes, timeout=0)[1]


def test_after_a_kill_only_what_is_missing_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    process = started(folder, 1)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 1
    process.kill()
    process.communicate()
    assert wait_until(lambda: not alive(children), 30)
    before = {path: path.stat().st_ino for path in folder.glob("store/[!.]*/*/*.zarr")}
    outcome = make_records(
        folder, num_clips=len(before) + 3, seed=0, sizes=SMALL, families=(), workers=1, progress=silent
    )
    there = len(outcome.rows) - outcome.num_made
    assert 2 <= there <= len(before), "what was finished is kept"
    assert {path: path.stat().st_ino for path in before} == before
    assert os.listdir(folder / "store/.staging") == []
    records = open_records(folder)
    assert sorted(row.seed for row in records.rows) == list(range(len(before) + 3))
    assert check_records(folder) == (len(records), {})
    for index in (0, len(records) - 1):
        assert same(records.read(index), make_clip(SMALL.spec(records.rows[index].seed)))


def test_ctrl_c_ends_at_once_and_keeps_what_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    process = started(folder, 2)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the command
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "interrupted; finished clips are kept" in said
    assert wait_until(lambda: not alive(children), 30)
    assert os.listdir(folder / "store/.staging") == []
    before = {path: path.stat().st_ino for path in folder.glob("store/[!.]*/*/*.zarr")}
    outcome = make_records(
        folder, num_clips=len(before) + 2, seed=0, sizes=SMALL, families=(), workers=1, progress=silent
    )
    assert len(outcome.rows) - outcome.num_made >= 2, "those that were done are kept, listed already or not"
    assert {path: path.stat().st_ino for path in before} == before
    assert check_records(folder) == (len(before) + 2, {})


def test_asking_again_makes_nothing(tmp_path: Path) -> None:
    folder = fill(tmp_path / "clips", range(3))
    rows = read_manifest(folder)
    for _ in range(2):
        outcome = make_records(folder, num_clips=3, seed=0, sizes=SMALL, families=(), workers=1, progress=silent)
        assert outcome.num_made == 0
        assert read_manifest(folder) == rows
        (folder / MANIFEST).unlink()  # as a kill before its first writing leaves it


def test_an_older_generators_clip_gives_way(clips: Path) -> None:
    spec = SMALL.spec(0, family_of(0))
    made_from = recipe(spec) | {"revision": 0}
    old = write_clip(clips, f"{family_of(0)}-0", made_from, make_clip(spec), 1.0)
    update_manifest(clips, [old])
    assert open_records(clips).rows.count(old) == 1
    assert len(list(clips.glob("store/[!.]*/*/*.zarr"))) == 4
    update_manifest(clips, [record(clips, ClipJob(old.id, spec))[0]])
    assert old not in open_records(clips).rows
    assert len(list(clips.glob("store/[!.]*/*/*.zarr"))) == 4


def test_processes_that_fill_one_folder_keep_each_others_rows(whole: Path, tmp_path: Path) -> None:
    row = open_records(whole).rows[0]

    def add(writer: int) -> None:
        for number in range(5):
            update_manifest(tmp_path, [replace(row, id=f"{writer}-{number}")])

    threads = [threading.Thread(target=add, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_manifest(tmp_path)) == 20


def test_what_cannot_be_made_is_refused(clips: Path, tmp_path: Path) -> None:
    def refuse(match: str, folder: Path = tmp_path, **changes: object) -> None:
        arguments = {"num_clips": 2, "seed": 0, "sizes": SMALL, "families": (), "workers": 1, "progress": silent}
        with pytest.raises(ConfigError, match=match):
            make_records(folder, **(arguments | changes))  # type: ignore[arg-type] # one wrong at a time

    refuse(f"reach over {HELD_OUT_SEED}", seed=HELD_OUT_SEED - 1)
    refuse("--clips must be at least 1; got 0", num_clips=0)
    refuse("--seed must be at least 0; got -1", seed=-1)
    refuse("--seed must be at most", seed=2**63)
    refuse("--workers must be at least 1; got 0", workers=0)
    refuse("unicorn.*walker", families=("unicorn", "fish"))
    for name, option, value in (("frames", "frames", 0), ("size", "size", 7), ("views", "views", 0)):
        refuse(f"--{option} must be at least {value + 1}", sizes=replace(SMALL, **{name: value}))
    refuse("--resolution must be at least 2", sizes=replace(SMALL, resolution=1))
    refuse("holds clips of --frames 2 --size 16", folder=clips, sizes=replace(SMALL, frames=3))
    with pytest.raises(ConfigError, match="reach over"):
        import_records(
            tmp_path, [tmp_path], seed=HELD_OUT_SEED - MESH_SEEDS + 1, sizes=SMALL, workers=1, progress=silent
        )
    assert list(tmp_path.glob("store/*")) == []


def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path) -> None:
    refused(ss4d("make", tmp_path, "--clips", 3, "--seed", HELD_OUT_SEED - 2, *OPTIONS), str(HELD_OUT_SEED))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        make_records(tmp_path / "file", num_clips=1, seed=0, sizes=SMALL, families=(), workers=1, progress=silent)


def test_an_object_that_breaks_the_generator_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(family: object, seed: object, num_frames: object) -> None:
        raise ZeroDivisionError("no such number")

    monkeypatch.setattr("ss4d.pipelines.training.make_records.make_object", broken)
    row, made = record(tmp_path, ClipJob("fish-1", SMALL.spec(1, "fish")))
    assert not made
    assert row.key is None
    assert row.error == "ZeroDivisionError: no such number"
    update_manifest(tmp_path, [row])
    with pytest.raises(ConfigError, match="has no clips"):
        open_records(tmp_path)


# Reading


def test_any_flipped_bit_is_found_or_harmless(whole: Path, clips: Path) -> None:
    expected = open_records(whole).read(1)
    records = open_records(clips)
    rng = random.Random(0)
    found = 0
    for path in sorted(p for p in artifact(clips, 1).rglob("*") if p.is_file()):
        for _ in range(6):
            position, bit = rng.randrange(path.stat().st_size), rng.randrange(8)
            flip(path, position, bit)
            try:
                assert same(records.read(1), expected), f"{path.name} at {position}"
            except RecordError:
                found += 1
            flip(path, position, bit)
    assert found > 60
    assert same(records.read(1), expected)


def test_bad_records_are_named_skipped_and_counted(clips: Path, caplog: pytest.LogCaptureFixture) -> None:
    chunk = artifact(clips, 0) / "views/c.0.0.0.0.0"
    flip(chunk, chunk.stat().st_size // 2)
    (artifact(clips, 1) / "coords/c.0.0").unlink()
    rows = open_records(clips).rows
    store = record_store(clips)
    other = make_clip(replace(SMALL, frames=3).spec(rows[2].seed, rows[2].family))  # another shape, checksums fine
    attributes = store.open(ArtifactRef("training_clip", rows[2].key or "")).attributes
    with store.create(ArtifactRef("training_clip", rows[2].key or ""), replace=True) as writer:
        write_value(writer, other, whole=True)
        writer.commit({name: attributes[name] for name in ("recipe", "values", "values_hash", "seconds")})
    records = open_records(clips)
    reasons = (
        (0, "views: a chunk is not what it was"),
        (1, "coords"),
        (2, r"frames, voxels[\w, ]* differ|frames[\w, ]* differ"),
    )
    for index, reason in reasons:
        sentence = f"record {records.ids[index]} cannot be used[^;]*({reason})[^;]*; `ss4d data check {clips} --remove`"
        with pytest.raises(RecordError, match=sentence):
            records.read(index)
    with caplog.at_level(logging.WARNING, "ss4d.records"):
        kept = list(records.good([0, 3, 1, 0]))
    assert [clip.seed for clip in kept] == [records.rows[3].seed]
    assert list(records.skipped) == [records.ids[0], records.ids[1]]
    assert sum(records.ids[0] in message for message in caplog.messages) == 1
    assert len(list(records)) == 1
    assert list(records.skipped) == list(records.ids[:3])


def test_the_check_prints_what_is_bad_and_makes_room_for_it(clips: Path) -> None:
    name, seed = next((row.id, row.seed) for row in open_records(clips).rows[2:])
    (artifact(clips, 2) / "feats/c.0.0").unlink()
    num_clips, bad = check_records(clips)
    assert (num_clips, list(bad)) == (4, [name])
    assert "--repair" not in bad[name]
    assert f"are whole. ss4d data check {clips} --remove deletes the others." in ss4d("check", clips).stderr
    found = ss4d("check", clips, "--remove")
    assert found.returncode == 1
    assert f"bad: {name}: " in found.stderr
    assert "3 of 4 clips are whole. The others are deleted." in found.stderr
    assert check_records(clips) == (3, {})
    update_manifest(clips, [record(clips, ClipJob(name, SMALL.spec(seed, family_of(seed))))[0]])
    assert check_records(clips) == (4, {})


def test_a_damaged_manifest_is_named(clips: Path) -> None:
    size = (clips / MANIFEST).stat().st_size
    (clips / MANIFEST).write_bytes((clips / MANIFEST).read_bytes()[: size // 2])
    with pytest.raises(StoreError, match=r"manifest\.parquet is damaged.*delete it"):
        open_records(clips)
    with pytest.raises(StoreError, match=r"has no manifest\.parquet"):
        open_records(clips / "nowhere")


# Importing


def test_assets_become_clips_and_the_others_get_a_reason(tmp_path: Path) -> None:
    builder = tetrahedron()
    builder.animate((0, "rotation", [0, 0.5], [[0, 0, 0, 1], HALF_TURN], "LINEAR"))
    assets = tmp_path / "assets/deeper"
    assets.mkdir(parents=True)
    good = builder.save(assets / "good.glb")
    (assets / "bad.glb").write_bytes(good.read_bytes()[:200])
    flat = tetrahedron()
    flat.json["nodes"][0]["scale"] = [0, 0, 0]
    flat.save(assets / "flat.gltf")
    finished = ss4d(
        "import", tmp_path / "assets", tmp_path / "none.glb", "--out", tmp_path / "clips", "--workers", 1, *OPTIONS
    )
    assert finished.returncode == 0, finished.stderr
    assert "1 made" in finished.stderr
    assert "3 failed" in finished.stderr
    rows = {Path(row.id).name: row for row in read_manifest(tmp_path / "clips")}
    assert set(rows) == {"good.glb", "bad.glb", "flat.gltf", "none.glb"}
    assert "not a glTF" in (rows["bad.glb"].error or "")
    assert "no surface" in (rows["flat.gltf"].error or "")
    assert "no file" in (rows["none.glb"].error or "")
    records = open_records(tmp_path / "clips", "train")
    clip = records.read(0)
    assert (clip.family, clip.num_frames, clip.resolution) == ("imported", 2, 8)
    assert not torch.equal(clip.frames[0], clip.frames[1])
    again, made = record(tmp_path / "clips", ClipJob(rows["good.glb"].id, SMALL.spec(0), good))
    assert not made
    assert again == rows["good.glb"]


def test_only_if_no_asset_can_be_used_the_import_fails(tmp_path: Path) -> None:
    (tmp_path / "bad.glb").write_bytes(b"what")
    finished = ss4d("import", tmp_path / "bad.glb", "--out", tmp_path / "clips", *OPTIONS)
    assert finished.returncode == 1
    assert "None of the files" in finished.stderr
    assert "Traceback" not in finished.stderr
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty has no \.glb"):
        import_records(tmp_path / "clips", [tmp_path / "empty"], seed=0, sizes=SMALL, workers=1, progress=silent)


def test_a_row_says_where_its_seed_belongs(tmp_path: Path) -> None:
    good = tetrahedron().save(tmp_path / "a.glb")
    rows: list[Row] = [record(tmp_path, ClipJob("a", SMALL.spec(seed), good))[0] for seed in (0, HELD_OUT_SEED)]
    assert [row.split for row in rows] == ["train", "held_out"]
    assert rows[1].seed - rows[0].seed == HELD_OUT_SEED
    assert rows[0].key != rows[1].key
