"""Files in a run's folder: their owner's, apart from the store, and never a way out of the folder."""

from pathlib import Path

import pytest

from ss4d.pipelines.results import lay_out
from ss4d.storage.errors import StoreError
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore
from ss4d.storage.verify import verify

GOAL = ArtifactRef("export", "ab" * 32)
FILES = {"frames/frame0001.ply": b"ply", "cameras.json": b"{}"}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    store = ArtifactStore(tmp_path / "store")
    with store.create(GOAL) as writer:
        for name, content in FILES.items():
            (writer.folder / name).parent.mkdir(exist_ok=True)
            (writer.folder / name).write_bytes(content)
        writer.commit({})
    return store


def laid_out(store: ArtifactStore, folder: Path, earlier: list[str]) -> list[str]:
    return lay_out(store, [GOAL], folder, earlier=earlier, kept=(), note=lambda _: None)


def test_results_may_be_edited_without_damage_to_the_store(store: ArtifactStore, tmp_path: Path) -> None:
    folder = tmp_path / "runs/a"
    names = laid_out(store, folder, [])
    result = folder / "frames/frame0001.ply"
    untouched = (folder / "cameras.json").stat().st_ino
    result.write_bytes(b"mine")
    assert not verify(store, lambda *_: None).damaged
    laid_out(store, folder, names)
    assert result.read_bytes() == b"ply"  # a run gives what its record says
    assert (folder / "cameras.json").stat().st_ino == untouched
    result.unlink()
    result.hardlink_to(store.open(GOAL).files()["frames/frame0001.ply"])  # as versions before laid them out
    laid_out(store, folder, names)
    result.write_bytes(b"mine")
    assert not verify(store, lambda *_: None).damaged


@pytest.mark.parametrize("name", ["link/precious.txt", "link/deeper/precious.txt", "../precious.txt"])
def test_nothing_outside_a_run_is_deleted(store: ArtifactStore, tmp_path: Path, name: str) -> None:
    (tmp_path / "deeper").mkdir()
    for path in (tmp_path / "precious.txt", tmp_path / "deeper/precious.txt", tmp_path / "runs/precious.txt"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("precious")
    (tmp_path / "runs/a").mkdir()
    (tmp_path / "runs/a/link").symlink_to(tmp_path)
    laid_out(store, tmp_path / "runs/a", [name, str(tmp_path / "precious.txt")])
    assert len(list(tmp_path.glob("**/precious.txt"))) == 3


def test_nothing_outside_a_run_is_written(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/cameras.json").symlink_to(tmp_path / "precious")
    (tmp_path / "runs/a/frames").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="remove that link"):
        laid_out(store, tmp_path / "runs/a", [])
    (tmp_path / "runs/a/frames").unlink()
    laid_out(store, tmp_path / "runs/a", [])
    assert (tmp_path / "precious").read_text() == "precious"
    assert not list((tmp_path / "elsewhere").iterdir())
