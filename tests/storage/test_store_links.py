"""Links in the place of a store's own folders: nothing is made, moved or deleted where they lead."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ss4d.storage.errors import StoreError
from ss4d.storage.files import owned_name
from ss4d.storage.store import ArtifactStore
from tests.helpers.artifacts import REF, put

LONG_AGO = 10 * 24 * 3600  # seconds


def name_of_the_dead() -> str:
    random, started, _, host = owned_name().split("-", 3)
    return f"{random}-{started}-{2**22 + 1}-{host}"


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A folder outside of the store, with files that look as if they were unfinished work of a dead process."""
    folder = tmp_path / "precious"
    for name in (name_of_the_dead(), "letters"):
        artifact = folder / name / REF.stage / REF.key[:2] / f"{REF.key}.zarr"
        artifact.mkdir(parents=True)
        (artifact / "zarr.json").write_text("mine")
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    return folder


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def deletes_the_abandoned(store: ArtifactStore) -> None:
    for name in store.place.abandoned(LONG_AGO):
        store.place.discard(name)


@pytest.mark.parametrize("folder", [".staging", ".replaced", ".notes"])
@pytest.mark.parametrize("use", [ArtifactStore.begin_deletion, put, deletes_the_abandoned])
def test_a_hidden_folder_that_is_a_link(
    tmp_path: Path, precious: Path, folder: str, use: Callable[[ArtifactStore], object]
) -> None:
    before = files(precious)
    store = ArtifactStore(tmp_path / "store")
    Path(store.location).mkdir()
    Path(store.location, folder).symlink_to(precious)
    try:
        use(ArtifactStore(Path(store.location)))
    except StoreError as error:
        assert f"{folder}" in str(error)  # noqa: PT017  not every use writes into every folder
        assert "remove that link" in str(error)  # noqa: PT017
    assert files(precious) == before
    assert sorted(os.listdir(precious)) == sorted({name.split("/")[0] for name in before})


def test_what_would_be_put_there_is_refused(tmp_path: Path, precious: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    put(store)
    for folder, use in ((".staging", put), (".notes", lambda store: store.remove(REF))):
        place = Path(store.location, folder)
        if place.exists():
            place.rename(tmp_path / f"was{folder}")
        place.symlink_to(precious)
        with pytest.raises(StoreError, match=rf"\{folder}/.* would lie somewhere else"):
            use(store)
        place.unlink()
    assert store.contains(REF)


def test_nothing_is_taken_through_a_link_among_what_waits(tmp_path: Path, precious: Path) -> None:
    """A dead process's replacement is put back; not so what a link in its folder leads to."""
    store = tmp_path / "store"
    waiting = store / ".replaced" / name_of_the_dead()
    waiting.mkdir(parents=True)
    (waiting / REF.stage).symlink_to(precious / "letters" / REF.stage)
    before = files(precious)
    opened = ArtifactStore(store)
    assert not waiting.exists()
    assert files(precious) == before
    assert list(opened.refs()) == []
