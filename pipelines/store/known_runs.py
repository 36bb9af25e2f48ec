"""Where the runs and the datasets lie that use a store: one that they share says so itself, so that `ss4d gc` looks at
all of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import ValidationError

from ss4d.pipelines.dataset.layout import is_dataset
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.store_notes import NOTES, Note
from ss4d.storage.errors import StoreError
from ss4d.storage.objects import is_url
from ss4d.storage.store import ArtifactStore


@dataclass(frozen=True)
class _Known:
    """What a note says, and its name."""

    note: str
    host: str
    folder: Path


def folders_of_runs(store: ArtifactStore, given: Sequence[Path], forget: Sequence[str], *, dry_run: bool) -> list[Path]:
    """Every folder of runs, and every dataset, that uses a store: beside it, noted in it, or named by the user.

    Args:
        store: which one.
        given: what the user names.
        forget: patterns of noted folders that no longer count.
        dry_run: keep the notes on those.

    Raises:
        ConfigError: if there is none, or one is not there: what its runs refer to is then unknown.
        StoreError: if a note is damaged.
    """
    if missing := [folder for folder in given if not folder.is_dir()]:
        raise ConfigError(f"there is no folder of runs at {', '.join(map(str, missing))}")
    noted = _noted(store)
    forgotten = [one for one in noted if any(fnmatchcase(str(one.folder), pattern) for pattern in forget)]
    noted = [one for one in noted if one not in forgotten]
    if gone := [one for one in noted if not one.folder.is_dir()]:
        places = ", ".join(f"{one.folder} on {one.host}" for one in gone)
        raise ConfigError(
            f"runs in {places} use this store and cannot be looked at, so nothing is deleted; if they are gone, say so "
            f"with --forget {gone[0].folder}"
        )
    folders = _unique([*_beside(store.location), *(one.folder for one in noted), *given])
    if not folders:
        raise ConfigError(
            f"there is no folder of runs beside {store.location}, so everything in it would count as unused: "
            "say with --runs where the runs or the datasets lie that use it"
        )
    if not dry_run:
        for one in forgotten:
            store.place.note(one.note, None)
    return folders


def known_folders(store: ArtifactStore) -> list[Path]:
    """Those beside a store and noted in it that are there.

    Raises:
        StoreError: if a note is damaged.
    """
    noted = (one.folder for one in _noted(store) if one.folder.is_dir())
    return _unique([*_beside(store.location), *noted])


def _noted(store: ArtifactStore) -> list[_Known]:
    found = []
    for name, text in store.place.notes(NOTES).items():
        try:
            known = Note.model_validate_json(text)
        except ValidationError as error:
            raise StoreError(f"the note .notes/{NOTES}/{name} in {store.location} is damaged: delete it") from error
        found.append(_Known(f"{NOTES}/{name}", known.host, known.folder))
    return found


def _beside(location: str) -> list[Path]:
    """Beside a store in a folder, and beside what a link to it leads to: `../runs`, and the dataset that it is in."""
    if is_url(location):
        return []
    path = Path(location).absolute()
    around = (path.parent, path.resolve().parent)
    return [
        *(folder / "runs" for folder in around if (folder / "runs").is_dir()),
        *(folder for folder in around if is_dataset(folder)),
    ]


def _unique(folders: Iterable[Path]) -> list[Path]:
    return list({folder.resolve(): folder for folder in folders}.values())
