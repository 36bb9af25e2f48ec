"""Plain files in artifacts: listed with their digests, and never a way out of the store."""

import os
import shutil
from pathlib import Path

import pytest

from ss4d.storage.errors import StoreError
from ss4d.storage.store import ArtifactStore
from tests.helpers.artifacts import REF, edit_root, path_of, put


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def test_plain_files_are_listed_with_their_digests(store: ArtifactStore) -> None:
    with store.create(REF) as writer:
        (writer.folder / "frames").mkdir()
        (writer.folder / "frames" / "a.ply").write_bytes(b"abc")
        writer.commit({})
    artifact = store.open(REF)
    assert artifact.arrays() == ()
    assert {name: path.read_bytes() for name, path in artifact.files().items()} == {"frames/a.ply": b"abc"}
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert artifact.attributes["files"] == {"frames/a.ply": {"bytes": 3, "sha256": sha256}}
    artifact.files()["frames/a.ply"].unlink()
    with pytest.raises(StoreError, match=r"'frames/a.ply' is missing; .*ss4d verify \S+ --repair"):
        artifact.files()


@pytest.mark.parametrize("kind", ["link", "folder link", "pipe", "zarr.json"])
def test_only_plain_files_are_committed(store: ArtifactStore, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "x").write_text("secret")
    with store.create(REF) as writer:
        match kind:
            case "link":
                (writer.folder / "x").symlink_to(secret / "x")
            case "folder link":
                (writer.folder / "x").symlink_to(secret)
            case "pipe":
                os.mkfifo(writer.folder / "x")
            case _:
                (writer.folder / "zarr.json").write_text("{}")
        with pytest.raises(StoreError, match="only plain files"):
            writer.commit({})
    assert not store.contains(REF)
    assert (secret / "x").read_text() == "secret"


@pytest.mark.parametrize("name", ["../../x", "/etc/hostname", "note.txt/../../feats/zarr.json", ".."])
def test_listed_files_cannot_lie_outside(store: ArtifactStore, name: str) -> None:
    put(store)
    edit_root(store, files={name: {}})
    with pytest.raises(StoreError, match=r"leads somewhere else|is missing"):
        store.open(REF).files()


@pytest.mark.parametrize("part", ["files/note.txt", "files", "feats"])
def test_links_put_in_later_are_not_followed(store: ArtifactStore, tmp_path: Path, part: str) -> None:
    put(store)
    path = path_of(store) / part
    shutil.move(path, tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(StoreError, match="leads somewhere else"):
        store.open(REF).array("feats") if part == "feats" else store.open(REF).files()
