"""The runs and datasets that use a store: those beside it, those noted in it, and those that a user names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import ValidationError

from ss4d.pipelines.dataset.layout import is_dataset
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.store_notes import NOTES, Note
from ss4d.storage.errors import StoreError
from ss4d.storage.store import ArtifactStore, folder_of


@dataclass(frozen=True)
class _Noted:
    """A folder of runs that a note in a store names.

    Attributes:
        name: of the note.
        host: that the folder was on.
        folder: as the note says it.
    """

    name: str
    host: str
    folder: Path


def folders_of_runs(store: ArtifactStore, given: Sequence[Path], forget: Sequence[str], *, dry_run: bool) -> list[Path]:
    """Every folder of runs, and every dataset, that uses a store: beside it, noted in it, or named by the user.

    Args:
        store: the store.
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
    forgotten = [note for note in noted if any(fnmatchcase(str(note.folder), pattern) for pattern in forget)]
    noted = [note for note in noted if note not in forgotten]
    if gone := [note for note in noted if not note.folder.is_dir()]:
        places = ", ".join(f"{note.folder} on {note.host}" for note in gone)
        raise ConfigError(
            f"runs in {places} use this store and cannot be read, so nothing is deleted; if they are gone, say so with "
            f"--forget {gone[0].folder}"
        )
    folders = _unique([*_beside(store.location), *(note.folder for note in noted), *given])
    if not folders:
        raise ConfigError(
            f"there is no folder of runs beside {store.location}, so everything in it would count as unused: "
            "say with --runs where the runs or the datasets lie that use it"
        )
    if not dry_run:
        for note in forgotten:
            store.place.note(note.name, None)
    return folders


def known_folders(store: ArtifactStore) -> list[Path]:
    """The folders beside a store and noted in it, without those that are gone.

    Raises:
        StoreError: if a note is damaged.
    """
    noted = (note.folder for note in _noted(store) if note.folder.is_dir())
    return _unique([*_beside(store.location), *noted])


def _noted(store: ArtifactStore) -> list[_Noted]:
    found = []
    for name, text in store.place.notes(NOTES).items():
        try:
            note = Note.model_validate_json(text)
        except ValidationError as error:
            raise StoreError(f"the note .notes/{NOTES}/{name} in {store.location} is damaged: delete it") from error
        found.append(_Noted(f"{NOTES}/{name}", note.host, note.folder))
    return found


def _beside(location: str) -> list[Path]:
    """What lies beside a store in a folder, through links too: `../runs`, and the dataset that it is in."""
    if (store := folder_of(location)) is None:
        return []
    around = (store.absolute().parent, store.resolve().parent)
    return [
        *(folder / "runs" for folder in around if (folder / "runs").is_dir()),
        *(folder for folder in around if is_dataset(folder)),
    ]


def _unique(folders: Iterable[Path]) -> list[Path]:
    return list({folder.resolve(): folder for folder in folders}.values())
