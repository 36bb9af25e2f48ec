"""Finished assets as plain files: each whole or not at all, nothing twice, and nothing of anybody else's touched."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from obstore.store import MemoryStore
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.dataset import export as exporting
from ss4d.pipelines.dataset.events import Attempt, EventWriter, now
from ss4d.pipelines.dataset.export import ABOUT, Exported, More, export_assets
from ss4d.pipelines.dataset.keys import Settings, open_keys
from ss4d.pipelines.dataset.layout import Dataset, create_dataset
from ss4d.pipelines.dataset.manifest import Row, read_manifest
from ss4d.pipelines.dataset.opened import OpenedDataset, open_for
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.values import scalars, write_value
from ss4d.stages.types import Clip, Value, silent
from ss4d.storage.files import owned_name
from ss4d.storage.manifest import write_rows
from ss4d.storage.objects import ObjectPlace
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore, open_store
from tests.helpers.dataset_history import digest, row
from tests.helpers.foreign_readers import read_with_gsply
from tests.helpers.unfitted import OFF
from tests.stages.export.clips import lopsided, psnr

SETTINGS = Settings(overrides=["decoding.method=inflation", *OFF])  # which needs no weights
OTHER = Settings(overrides=["decoding.method=inflation", *OFF, "export.size=64"])
PLY, VIDEO = "frames/frame0001.ply", "turntable.mp4"


def finish(dataset: Dataset, store: ArtifactStore, clip: str, settings: Settings = SETTINGS, **files: bytes) -> None:
    """Puts an asset of a clip into the store, as a run would."""
    keys, _ = open_keys(settings)
    ref = ArtifactRef("export", keys.of([digest(clip)])["export"][0])
    with store.create(ref) as writer:
        for name, data in (files or {PLY: f"{clip} as splats".encode(), VIDEO: f"{clip} turning".encode()}).items():
            path = writer.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        writer.commit({})
    with EventWriter(dataset.events, {}) as events:
        events.write(Attempt(clip=clip, stage="export", key=ref.key, state="done", time=now()))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Clips a and b, which are finished, c, which is not, and one that cannot be read."""
    made = create_dataset(tmp_path / "set")
    rows = [row("a", tags="bird"), row("b"), row("c"), row("bad", sha256=None, frames=0, error="bad.mp4 is damaged")]
    write_rows(made.manifest, Row, rows)
    for clip in "ab":
        finish(made, open_store(made.store), clip)
    return made


@pytest.fixture
def opened(dataset: Dataset) -> Iterator[OpenedDataset]:
    with open_for(dataset, SETTINGS) as opened:
        yield opened


def export(opened: OpenedDataset, folder: Path, where: str | None = None, copies: bool = False) -> Exported:
    return export_assets(opened, folder, where=where, copies=copies, progress=silent)


def about(folder: Path) -> Any:
    return json.loads((folder / ABOUT).read_text())


def test_each_finished_clip_has_a_folder_and_none_is_made_twice(opened: OpenedDataset, tmp_path: Path) -> None:
    out = tmp_path / "assets"
    assert export(opened, out) == Exported(made=2, kept=0, unfinished=2)
    assert sorted(path.name for path in out.iterdir()) == ["a", "b"]
    assert (out / "a" / PLY).read_bytes() == b"a as splats"
    assert (out / "b" / VIDEO).read_bytes() == b"b turning"
    said = about(out / "a")
    assert (said["id"], said["source"], said["tags"]) == ("a", "/videos/a.mp4", "bird")
    assert (said["files"], said["overrides"]) == ([PLY, VIDEO], SETTINGS.overrides)
    stored = open_store(said["store"]).open(ArtifactRef("export", said["artifacts"]["export"])).files()
    assert os.path.samefile(stored[PLY], out / "a" / PLY)
    inode = (out / "a").stat().st_ino
    assert export(opened, out) == Exported(made=0, kept=2, unfinished=2)
    assert (out / "a").stat().st_ino == inode


def test_only_the_clips_that_are_asked_for(opened: OpenedDataset, tmp_path: Path) -> None:
    assert export(opened, tmp_path / "birds", where="tags = 'bird'") == Exported(made=1)
    assert [path.name for path in (tmp_path / "birds").iterdir()] == ["a"]


def test_goals_without_files_are_refused_before_anything_is_made(dataset: Dataset, tmp_path: Path) -> None:
    asked = Settings(overrides=[*SETTINGS.overrides, "goals=[decoding]"])
    with open_for(dataset, asked) as arrays, pytest.raises(ConfigError, match="decoding, gives arrays"):
        export(arrays, tmp_path / "assets")
    assert not (tmp_path / "assets").exists()


def test_copies_share_nothing_with_the_store(opened: OpenedDataset, tmp_path: Path) -> None:
    out = tmp_path / "assets"
    export(opened, out, copies=True)
    (out / "a" / PLY).write_bytes(b"painted over")
    said = about(out / "a")
    assert (
        open_store(said["store"]).open(ArtifactRef("export", said["artifacts"]["export"])).read_file(PLY)
        == b"a as splats"
    )


def test_from_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remote = create_dataset(tmp_path / "remote", "s3://bucket/prefix")
    write_rows(remote.manifest, Row, [row("a")])
    store = ArtifactStore(ObjectPlace(MemoryStore(), "s3://bucket/prefix"))
    finish(remote, store, "a")
    monkeypatch.setattr(exporting, "open_store", lambda _: store)
    with open_for(remote, SETTINGS) as opened:
        assert export(opened, tmp_path / "assets") == Exported(made=1)
    assert (tmp_path / "assets" / "a" / PLY).read_bytes() == b"a as splats"
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]  # nothing twice on this disk


def test_what_other_parameters_made_is_replaced_whole(dataset: Dataset, opened: OpenedDataset, tmp_path: Path) -> None:
    out = tmp_path / "assets"
    export(opened, out)
    finish(dataset, open_store(dataset.store), "a", OTHER, **{"small.ply": b"small"})
    with open_for(dataset, OTHER) as other:
        assert export(other, out) == Exported(made=1, unfinished=3)
    assert sorted(path.name for path in (out / "a").iterdir()) == [ABOUT, "small.ply"]
    assert about(out / "a")["overrides"] == OTHER.overrides
    assert (out / "b" / PLY).exists()
    assert sorted(path.name for path in out.iterdir()) == ["a", "b"]


def test_what_is_not_an_asset_stays_as_it_is(opened: OpenedDataset, tmp_path: Path) -> None:
    out = tmp_path / "assets"
    (out / "a").mkdir(parents=True)
    (out / "a" / "diary.txt").write_text("dear diary")
    with pytest.raises(ConfigError, match=r"assets/a holds something else than an asset.*give another folder"):
        export(opened, out)
    assert [path.name for path in (out / "a").iterdir()] == ["diary.txt"]
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is a file: give the folder"):
        export(opened, tmp_path / "file")


@pytest.mark.parametrize("gone", [True, False])
def test_a_damaged_asset_is_named_and_the_others_are_there(opened: OpenedDataset, tmp_path: Path, gone: bool) -> None:
    keys = opened.keys.of([digest("a")])
    store = open_store(opened.dataset.store)
    path = store.open(ArtifactRef("export", keys["export"][0])).files()[PLY]
    if gone:
        shutil.rmtree(path.parents[2])
    else:
        path.write_bytes(b"a as spots ")
    done = export(opened, tmp_path / "assets", copies=True)
    assert (done.made, list(done.damaged)) == (1, ["a"])
    assert ("is missing" if gone else "is not what it was") in done.damaged["a"]
    assert [path.name for path in (tmp_path / "assets").iterdir()] == ["b"]


def test_nothing_half_done_has_a_clips_name(
    opened: OpenedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither after an error nor after a kill; the next export tidies up and does what is missing."""
    out = tmp_path / "assets"

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "link_or_copy", full)
        with pytest.raises(OSError, match="No space"):
            export(opened, out)
    assert list(out.iterdir()) == []
    script = "from ss4d.storage.files import owned_name; print(owned_name())"
    dead = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    for name in (dead, owned_name()):
        (out / f".{name}").mkdir()
    export(opened, out)
    assert not (out / f".{dead}").exists()
    assert len(list(out.iterdir())) == 3  # of a process that lives, nothing is touched


def test_what_the_command_says(dataset: Dataset, tmp_path: Path) -> None:
    def run(*words: object) -> Any:
        sets = [word for value in SETTINGS.overrides for word in ("--set", value)]
        return CliRunner().invoke(app, ["dataset", "export", *map(str, words), *sets], env={"COLUMNS": "200"})

    out = tmp_path / "assets"
    result = run(dataset.folder, out)
    assert result.exit_code == 0, result.output
    assert f"2 assets are in {out}: 2 exported, 0 were there.\n2 of the chosen clips have none yet." in result.output
    shutil.rmtree(Path(dataset.store) / "export")
    shutil.rmtree(out)
    result = run(dataset.folder, out)
    assert result.exit_code == 1
    assert "cannot be exported: a: export/" in result.output
    assert "2 are damaged or gone: `ss4d verify" in result.output
    assert len(read_manifest(dataset)) == 4


def keep_value(dataset: Dataset, clip: str, stage: str, value: Value) -> None:
    keys, _ = open_keys(SETTINGS)
    with open_store(dataset.store).create(ArtifactRef(stage, keys.of([digest(clip)])[stage][0])) as writer:
        write_value(writer, value)
        writer.commit({"values": dict(scalars(value))})


def test_more_formats_are_written_of_what_is_stored(dataset: Dataset, opened: OpenedDataset, tmp_path: Path) -> None:
    made = lopsided(30, 20)
    cut = Clip(
        rgb=torch.zeros(2, 4, 4, 3, dtype=torch.uint8),
        alpha=torch.zeros(2, 4, 4, dtype=torch.uint8),
        crop=torch.tensor([0, 0, 4, 4]),
        confidence=torch.ones(2),
        method="alpha",
        fps=12.0,
    )
    keep_value(dataset, "a", "decoding", made)
    keep_value(dataset, "a", "segmentation", cut)
    out, more = tmp_path / "assets", More(("spz", "html"))

    def export_more(more: More | None) -> Exported:
        return export_assets(opened, out, where="id in ('a', 'b')", copies=False, progress=silent, more=more)

    assert export_more(None) == Exported(made=2)
    done = export_more(more)
    assert (done.made, done.kept, list(done.damaged)) == (1, 0, ["b"]), "of b no Gaussians are stored"
    assert (out / "a" / PLY).read_bytes() == b"a as splats"
    assert psnr(read_with_gsply(out / "a/spz/frame0002.spz"), made.frame(1)) > 40
    said = about(out / "a")
    assert (said["formats"], said["files"][-1]) == (["spz", "html"], "viewer.html")
    assert export_more(more).kept == 1
    assert export_more(More(("spz",), max_gaussians=9)).made == 1
    assert len(read_with_gsply(out / "a/spz/frame0001.spz").means) == 9
    assert not (out / "a/viewer.html").exists()
    assert export_more(None) == Exported(made=1, kept=1)
    assert not (out / "a/spz").exists()
    assert (out / "b" / PLY).read_bytes() == b"b as splats"
