"""What a power failure may not take: an artifact is on the disk before its name is, with no more syncs than that."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ss4d.storage.codec import ArrayData
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore
from tests.helpers.artifacts import REF, path_of, put


class Disk:
    """Hears of syncs and of the renames of whole artifacts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: list[Path] = []
        self.unsafe: set[Path] = set()  # parts of an artifact that became visible before they were synced
        sync, rename = os.fsync, Path.rename

        def watched_sync(descriptor: int) -> None:
            sync(descriptor)
            self.synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

        def watched_rename(path: Path, target: Any) -> Any:
            if ".staging" in path.parts:
                self.unsafe |= {path, *path.rglob("*")} - set(self.synced)
            return rename(path, target)

        monkeypatch.setattr(os, "fsync", watched_sync)
        monkeypatch.setattr(Path, "rename", watched_rename)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.mark.parametrize("replace", [False, True])
def test_all_is_on_the_disk_before_it_is_visible(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    put(store, value=0)
    disk = Disk(monkeypatch)
    put(store, REF if replace else ArtifactRef("slat", "0" * 64), replace=replace)
    assert disk.synced
    assert disk.unsafe == set()


def test_every_name_on_the_way_to_an_artifact_is_on_the_disk(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    put(store)
    folder = path_of(store).parent
    assert {folder, folder.parent, folder.parent.parent} <= set(disk.synced)


def test_nothing_is_synced_twice(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)
    disk = Disk(monkeypatch)
    with store.create(ArtifactRef(REF.stage, REF.key[:2] + "0" * 62)) as writer:
        assert writer.folder.is_dir()  # as every stage's function is given it, and left empty
        writer.write("feats", ArrayData(np.ones((3, 2), np.float32), ("n", "c")))
        writer.commit({})
    # The array's description, chunk and folder; the artifact's description and folder; the folder that names it.
    assert len(disk.synced) == len(set(disk.synced)) == 6
