"""Plain files in artifacts: listed with their digests, and never a way out of the store."""

import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest

from ss4d.storage.codec import ArrayData
from ss4d.storage.errors import DamageError, StoreError
from ss4d.storage.files import owned_name, write_json
from ss4d.storage.store import ArtifactStore, open_store
from ss4d.storage.verify import verify
from tests.helpers.artifacts import REF, edit_root, path_of, put


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def test_a_location_that_no_file_system_has_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is a NUL character in it"):
        open_store(tmp_path / "a\0b")


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


@pytest.mark.parametrize("part", ["zarr.json", "files/note.txt", "files", "feats"])
def test_links_in_a_circle_are_damage(store: ArtifactStore, tmp_path: Path, part: str) -> None:
    put(store)
    place = path_of(store) / part
    place.rename(tmp_path / "moved")
    place.symlink_to(place.name)
    assert verify(store, lambda *_: None).damaged.keys() == {REF}


@pytest.mark.parametrize("part", ["files/note.txt", "files", "feats"])
def test_links_put_in_later_are_not_followed(store: ArtifactStore, tmp_path: Path, part: str) -> None:
    put(store)
    path = path_of(store) / part
    shutil.move(path, tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(StoreError, match="leads somewhere else"):
        store.open(REF).array("feats") if part == "feats" else store.open(REF).files()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second disk")
def test_a_stage_may_lie_on_another_disk(store: ArtifactStore, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        place = Path(store.location)
        place.mkdir(exist_ok=True)
        (place / REF.stage).symlink_to(other)
        assert Path(other).stat().st_dev != place.stat().st_dev
        dead = Path(other, REF.key[:2], ".0123456789abcdef-1-999999999-" + owned_name().split("-", 3)[3])
        dead.mkdir(parents=True)  # a copy of a process that was killed
        for number in (1, 2):
            with store.create(REF, replace=number == 2) as writer:
                writer.write("feats", ArrayData(np.full((3, 2), number, np.float32), ("n", "c")))
                writer.commit({})
            assert store.open(REF).read("feats")[0, 0] == number
            assert [path.name for path in Path(other).glob("*/*")] == [f"{REF.key}.zarr"]
        store.remove(REF)
        assert not list(Path(other).glob("*/*"))
        assert not verify(store, lambda *_: None).damaged


def test_folders_that_cannot_be_synced_are_no_error(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        whole(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with store.create(REF) as writer:
        writer.write("feats", ArrayData(np.zeros((3, 2), np.float32), ("n", "c")))
        writer.commit({})
    assert store.contains(REF)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
    with pytest.raises(OSError, match="no"):
        write_json(tmp_path / "a.json", {})


@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_a_chunk_is_damage(store: ArtifactStore) -> None:
    with store.create(REF) as writer:
        writer.write("feats", ArrayData(np.zeros((3, 2), np.float32), ("n", "c")))
        writer.commit({})
    (chunk,) = Path(store.location).glob("*/*/*.zarr/feats/c.*")
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(DamageError, match=r"no plain file|missing"):
        store.open(REF).read("feats")
    assert list(verify(store, lambda *_: None).damaged) == [REF]
