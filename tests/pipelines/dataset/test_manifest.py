"""The manifest of a dataset: every clip that was meant, with the reason if it cannot be read, and stable."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from ss4d.pipelines.dataset import manifest
from ss4d.pipelines.dataset.discover import find_clips, new_id
from ss4d.pipelines.dataset.layout import create_dataset, open_dataset
from ss4d.pipelines.dataset.manifest import Row, Scan, init_dataset, read_manifest
from ss4d.pipelines.errors import ConfigError, WorkerError
from ss4d.stages.errors import InputError
from ss4d.stages.input_files import input_digest
from ss4d.stages.types import silent
from ss4d.stages.video_io import write_video
from ss4d.storage.errors import StoreError
from ss4d.storage.manifest import write_rows
from tests.conftest import draw_frames, save_frames
from tests.helpers.dataset_history import row

START = (sys.executable, "-m", "ss4d.cli.entry")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip of every sort, and with what is none."""
    root = tmp_path_factory.mktemp("videos")
    (root / "birds" / "small").mkdir(parents=True)
    write_video(root / "birds" / "crow.mp4", torch.zeros(5, 16, 32, 3, dtype=torch.uint8), 12)
    shutil.copy(root / "birds" / "crow.mp4", root / "birds" / "small" / "crow.mp4")
    Image.new("RGB", (8, 8)).save(root / "birds" / "crow.jpg")  # a thumbnail
    (root / "birds" / "notes.txt").write_text("black")
    save_frames(root / "disc", draw_frames(3, 24))
    (root / "broken.mp4").write_bytes(b"no video")
    (root / ".hidden.mp4").write_bytes(b"not looked at")
    return root


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Clips are read in this process; gives the ids of those that were."""
    read: list[str] = []

    def results(function: Callable[[Any], Row], jobs: Sequence[Any], workers: int | None) -> Iterator[Row]:
        for job in jobs:
            read.append(job.id)
            yield function(job)

    monkeypatch.setattr(manifest, "results", results)
    return read


def init(dataset: Path, source: object, **options: Any) -> Scan:
    return init_dataset(dataset, str(source), **{"store": None, "workers": None, "progress": silent, **options})


def by_id(scan: Scan) -> dict[str, Row]:
    return {row.id: row for row in scan.rows}


def write_table(file: Path, **columns: list[object]) -> Path:
    parquet.write_table(pyarrow.table(columns), file)
    return file


def test_a_folder(videos: Path, tmp_path: Path, here: list[str]) -> None:
    scan = init(tmp_path / "set", videos)
    rows = by_id(scan)
    assert list(rows) == ["birds_crow", "birds_small_crow", "broken", "disc"]
    assert scan.added == list(rows)
    assert scan.skipped == {".jpg": 1, ".txt": 1}
    crow = rows["birds_crow"]
    assert (crow.frames, crow.width, crow.height, crow.fps, crow.tags) == (5, 32, 16, 12.0, "birds")
    assert crow.source == str(videos / "birds" / "crow.mp4")
    assert crow.sha256 == input_digest(videos / "birds" / "crow.mp4") == rows["birds_small_crow"].sha256
    assert crow.bytes == (videos / "birds" / "crow.mp4").stat().st_size
    assert rows["birds_small_crow"].tags == "birds,small"
    disc = rows["disc"]
    assert (disc.frames, disc.width, disc.height, disc.fps, disc.tags) == (3, 24, 24, 24.0, "")
    assert [row.id for row in scan.unreadable] == ["broken"]
    assert "is not a video" in (rows["broken"].error or "")
    assert read_manifest(open_dataset(tmp_path / "set")) == scan.rows


def test_a_manifest_that_grows_and_changes(videos: Path, tmp_path: Path, here: list[str]) -> None:
    source = tmp_path / "videos"
    shutil.copytree(videos, source)
    first = by_id(init(tmp_path / "set", source))
    here.clear()
    again = init(tmp_path / "set", source)
    assert here == ["broken"]  # only what could not be read is read again
    assert (again.added, again.changed, again.vanished) == ([], [], [])
    assert by_id(again) == first

    (source / "birds" / "crow.mp4").unlink()
    (source / "birds" / "crow.jpg").unlink()  # alone, it would be a clip
    write_video(source / "birds_crow.mp4", torch.ones(2, 16, 32, 3, dtype=torch.uint8), 12)  # the id is taken
    Image.fromarray(np.zeros((24, 24, 4), np.uint8)).save(source / "disc" / "1.png")
    here.clear()
    later = init(tmp_path / "set", source)
    assert sorted(here) == sorted(["birds_crow", "broken", "disc", *later.added])
    (new,) = later.added
    assert new.startswith("birds_crow-")
    assert later.changed == ["disc"]
    assert later.vanished == ["birds_crow"]
    assert "does not exist" in (by_id(later)["birds_crow"].error or "")
    assert [row.id for row in later.rows] == [*first, new]


def test_a_pattern(videos: Path, tmp_path: Path, here: list[str]) -> None:
    """Takes every match, of whatever kind; a still is a clip of one frame."""
    scan = init(tmp_path / "set", videos / "birds" / "*.*")
    rows = by_id(scan)
    assert list(rows) == ["crow", scan.added[1], "notes"]
    assert scan.added[1].startswith("crow-")
    assert [row.frames for row in scan.rows] == [1, 5, 0]
    assert [row.id for row in scan.unreadable] == ["notes"]
    assert [clip.path for clip in find_clips(f"{videos}/**/*.mp4").clips] == [
        str(videos / name) for name in ("birds/crow.mp4", "birds/small/crow.mp4", "broken.mp4")
    ]


def test_a_table(videos: Path, tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    table = write_table(
        videos / "list.parquet",
        path=["birds/crow.mp4", str(videos / "disc"), "missing.mp4"],
        id=["one", "two", None],
        tags=[["black", "bird"], [], None],
    )
    rows = by_id(init(tmp_path / "set", table))
    assert {name: row.tags for name, row in rows.items()} == {"one": "black,bird", "two": "", "missing": ""}
    assert rows["one"].frames == 5
    assert "does not exist" in (rows["missing"].error or "")
    # A manifest is such a table.
    copied = by_id(init(tmp_path / "copy", tmp_path / "set" / "manifest.parquet"))
    assert copied == rows


def test_a_table_says_where_a_clip_lies_now(videos: Path, tmp_path: Path, here: list[str]) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = (tmp_path / folder / "crow.mp4" for folder in ("old", "new"))
    shutil.copy(videos / "birds" / "crow.mp4", old)
    (row,) = init(tmp_path / "set", write_table(tmp_path / "a.parquet", path=[str(old)], id=["crow"])).rows
    moved = write_table(tmp_path / "b.parquet", path=[str(new)], id=["crow"])
    shutil.copy(old, new)
    with pytest.raises(ConfigError, match=r"the id 'crow' stands for more than one clip, .*old.* and .*new"):
        init(tmp_path / "set", moved)  # it is there still
    old.unlink()
    scan = init(tmp_path / "set", moved)
    assert [(row.id, row.source, row.sha256) for row in scan.rows] == [("crow", str(new), row.sha256)]
    assert (scan.added, scan.changed, scan.vanished) == ([], [], [])


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"video": ["a.mp4"]}, "must have a column 'source' or 'path'"),
        ({"path": ["a.mp4", None]}, "row 1 of .* has no path in 'path', but None"),
        ({"path": ["a.mp4"], "id": ["../a"]}, r"row 0 of .* has the id '../a'; an id names files"),
        ({"path": ["a.mp4", "b.mp4"], "id": ["a", "A"]}, "the id 'A' stands for more than one clip"),
        ({"path": ["a.mp4", "a.mp4"], "id": ["a", "b"]}, "is the clip 'a', and cannot be 'b' as well"),
        ({"path": []}, "holds no clip"),
    ],
)
def test_tables_that_cannot_be_used(
    tmp_path: Path, here: list[str], columns: dict[str, list[object]], sentence: str
) -> None:
    table = write_table(tmp_path / "list.parquet", **columns)
    with pytest.raises(ConfigError, match=sentence):
        init(tmp_path / "set", table)
    assert not (tmp_path / "set" / "manifest.parquet").exists()


def test_sources_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.parquet").write_text("no table")
    with pytest.raises(ConfigError, match="holds no clip"):
        find_clips(str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="holds no clip"):
        find_clips(str(tmp_path / "*.mp4"))
    with pytest.raises(ConfigError, match="does not exist"):
        find_clips(str(tmp_path / "none"))
    with pytest.raises(StoreError, match="is not a Parquet table"):
        find_clips(str(tmp_path / "list.parquet"))


def test_a_folder_that_cannot_be_read(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips in it must not be left out unsaid."""
    listed = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("small"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"small cannot be read \(Permission denied\)"):
        find_clips(str(videos))


def test_ids_are_unique_file_names() -> None:
    taken: set[str] = set()
    names = ["a/b", "a_b", "A b", "..", "", "vögel/große", "x" * 300, "x" * 299 + "y", "a/b"]
    ids = []
    for name in names:
        ids.append(new_id(name, taken))
        taken.add(ids[-1].casefold())
    assert len(taken) == len(names)
    assert ids[0] == "a_b"
    assert ids[5] == "vögel_große"
    assert all(len(name.encode()) < 200 and "/" not in name and not name.startswith(".") for name in ids)
    assert new_id("-rf", ()) == "rf"  # no option of a command
    assert new_id("-.-", ()) == "clip"
    assert new_id("a b", {"a_b"}) == new_id("a b", {"a_b", "other"})


def test_what_lies_in_a_dataset_is_no_clip(videos: Path, tmp_path: Path, here: list[str]) -> None:
    source = tmp_path / "videos"
    shutil.copytree(videos, source)
    first = init(source / "set", source)
    shutil.copytree(source / "disc", source / "set" / "store" / "frames")
    (source / "round").symlink_to(source)
    assert init(source / "set", source).rows == first.rows


@pytest.mark.parametrize("workers", [1, 3])
def test_every_clip_is_read_once_though_some_end_their_process(
    videos: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Here, processes do one clip after the other, and two of a hundred end theirs."""
    read: list[str] = []

    def results(function: Callable[[Any], Row], jobs: Sequence[Any], workers: int | None) -> Iterator[Row]:
        for job in jobs:
            if job.id in ("30", "99"):
                raise WorkerError("a worker process died")
            read.append(job.id)
            yield function(job)

    monkeypatch.setattr(manifest, "results", results)
    clips = [manifest.Listed(str(n), str(videos / "disc"), "") for n in range(100)]
    rows = list(manifest.read_clips(clips, workers))
    assert sorted(row.id for row in rows) == sorted(clip.id for clip in clips)
    assert len(read) == 98
    assert [row.id for row in rows if row.error is not None] == ["30", "99"]


KILLER = """
import io, os, time

opened = io.open

def killing(file, *args, **kwargs):
    if str(file).endswith("killer.mp4"):
        os.kill(os.getpid(), 9)
    if str(file).endswith("hanging.mp4"):
        time.sleep(600)
    return opened(file, *args, **kwargs)

io.open = killing
"""


def test_clips_that_end_their_process_or_hang_are_listed(videos: Path, tmp_path: Path) -> None:
    """With the real command; the other is read all the same."""
    source = tmp_path / "videos"
    source.mkdir()
    for name in ("hanging", "killer", "z"):
        shutil.copy(videos / "birds" / "crow.mp4", source / f"{name}.mp4")
    (tmp_path / "sitecustomize.py").write_text(KILLER)
    finished = subprocess.run(
        [
            *START,
            "dataset",
            "init",
            str(source),
            "--out",
            str(tmp_path / "set"),
            "--workers",
            "1",
            "--clip-timeout",
            "8",
        ],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "3 clips are in" in finished.stderr
    rows = {row.id: row for row in read_manifest(open_dataset(tmp_path / "set"))}
    assert {name: row.frames for name, row in rows.items()} == {"hanging": 0, "killer": 0, "z": 5}
    assert "ended the process" in (rows["killer"].error or "")
    assert "took longer than 8 s" in (rows["hanging"].error or "")


def test_names_that_are_not_utf8_are_named_and_stop_nothing(tmp_path: Path, here: list[str]) -> None:
    for name in (b"good/0.png", b"caf\xe9/0.png", b"frames/caf\xe9.png"):
        path = tmp_path / "clips" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    (tmp_path / "clips/frames" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"no image")
    rows = {row.id: row for row in init(tmp_path / "data", str(tmp_path / "clips")).rows}
    assert rows.pop("good").error is None
    assert sorted(row.error or "" for row in rows.values())[0].endswith("is not UTF-8: rename it")
    assert "caf\\udce9.png" in (rows["frames"].error or "")


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "[]", '{"schema": "x"}', '{"schema": 1, "store": 2}'])
def test_a_description_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (create_dataset(tmp_path / "set").folder / "dataset.json").write_text(text)
    with pytest.raises(ConfigError, match="is damaged"):
        open_dataset(tmp_path / "set")


@pytest.mark.parametrize(
    "change",
    [
        *({"id": name} for name in ("../../outside", "/etc/x", "..", "-rf", "a/b", "a\nb", "", "x" * 300, "a")),
        *({"source": source} for source in ("http://127.0.0.1/x", "--out", "x.mp4")),
        *(
            {"sha256": "0" * 63},
            {"sha256": "../" * 21 + "a"},
            {"sha256": None},
            {"fps": float("nan")},
            {"frames": None},
        ),
    ],
)
def test_a_row_that_no_clip_has_is_damage(tmp_path: Path, change: dict[str, object]) -> None:
    """Ids become names of files: of logs, and of folders that are exported to."""
    dataset = create_dataset(tmp_path / "set")
    write_rows(dataset.manifest, Row, [row("a"), replace(row("b"), **change)])
    with pytest.raises(StoreError, match=r"is damaged: row 1, of the clip .* init"):
        read_manifest(dataset)
