"""The runs and datasets that use a store: those beside it, those noted in it, and those that a user names."""

import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ss4d.pipelines.dataset.layout import Dataset, is_dataset, open_dataset
from ss4d.pipelines.dataset.references import recorded_references
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.store_notes import NOTES, Note, identity_of
from ss4d.storage.errors import StoreError
from ss4d.storage.files import real_path
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.seal import is_whole
from ss4d.storage.store import ArtifactStore, folder_of


@dataclass(frozen=True)
class Users:
    """Who uses a store.

    Attributes:
        folders: of runs and datasets that can be looked at from here; what is in them counts, whatever notes say.
        seen: the notes that those left, by the notes' names.
        unseen: the notes of others, which lie on another machine or are gone; what they say they need counts.
        forgotten: the names of notes that no longer count.
    """

    folders: Sequence[Path]
    seen: Mapping[str, Note] = field(default_factory=dict)
    unseen: Mapping[str, Note] = field(default_factory=dict)
    forgotten: Sequence[str] = ()

    @property
    def datasets(self) -> list[Dataset]:
        """Those of the folders that are datasets."""
        return [open_dataset(folder) for folder in self.folders if is_dataset(folder)]

    def note_on(self, run: Path) -> Note | None:
        """The note that the run in a folder left."""
        return self.seen.get(f"{NOTES}/{identity_of(run.parent)}/{run.name}")


def users_of(store: ArtifactStore, given: Sequence[Path], forget: Sequence[str]) -> Users:
    """Who uses a store: what lies beside it, is noted in it, or named by the user.

    Args:
        store: the store.
        given: folders that the user names.
        forget: patterns of folders that cannot be looked at and no longer count, with or without "HOST:" before them.

    Raises:
        ConfigError: if there is none; or if one is not there that left no list of what it needs.
        StoreError: if a note is damaged.
    """
    if missing := [folder for folder in given if not folder.is_dir()]:
        raise ConfigError(f"there is no folder of runs at {', '.join(map(str, missing))}")
    seen, unseen, visible = _sorted_notes(store, [*_beside(store.location), *given], given)
    forgotten = [name for name, note in unseen.items() if any(_matches(note, pattern) for pattern in forget)]
    unseen = {name: note for name, note in unseen.items() if name not in forgotten}
    if silent := [note for note in unseen.values() if note.identity is None]:
        places = ", ".join(f"{note.folder} on {note.host}" for note in silent)
        raise ConfigError(
            f"runs in {places} use this store and cannot be read, so nothing is deleted; if they are gone, say so with "
            f"--forget {silent[0].folder}, and if they are those of a folder here, with --runs {silent[0].folder}"
        )
    if not visible and not unseen:
        raise ConfigError(
            f"there is no folder of runs beside {store.location}, so everything in it would count as unused: "
            "say with --runs where the runs or the datasets lie that use it"
        )
    return Users(visible, seen, unseen, forgotten)


def known_datasets(store: ArtifactStore) -> list[Dataset]:
    """The datasets beside a store and noted in it, without those that cannot be looked at from here.

    Raises:
        StoreError: if a note is damaged.
    """
    _, _, visible = _sorted_notes(store, _beside(store.location), ())
    return Users(visible).datasets


def needs_of(note: Note) -> set[ArtifactRef]:
    """The artifacts that a note says are needed.

    Raises:
        StoreError: if it names none.
    """
    runs = {ArtifactRef(stage, key) for stage, key in note.keys.items()}
    return runs | (recorded_references([note.recipes], note.digests) if note.recipes else set())


def _sorted_notes(
    store: ArtifactStore, folders: Iterable[Path], given: Sequence[Path]
) -> tuple[dict[str, Note], dict[str, Note], list[Path]]:
    """The notes whose folders can be looked at, the others, and all folders that can be."""
    read = {f"{NOTES}/{name}": _parsed(text) for name, text in store.place.notes(NOTES).items()}
    notes = {name: note for name, note in read.items() if note is not None}
    noted = {note.folder for note in notes.values() if note.folder.is_dir()}
    identities = {identity_of(folder): folder for folder in (*noted, *folders)}
    for name in read.keys() - notes.keys():
        if name.split("/")[1] not in identities:  # else what is in its folder tells
            raise StoreError(
                f"the note .notes/{name} in {store.location} is damaged, so it is unknown what is needed, and nothing "
                "is deleted; run again what left it, or delete it if those runs are gone"
            )
    named = {real_path(folder) for folder in given}
    seen, visible = {}, list(folders)
    for name, note in notes.items():
        if note.identity is not None:
            place = identities.get(note.identity)
        else:  # of an earlier version: that such a folder of another machine is the one here only its user knows
            is_here = real_path(note.folder) in named or (note.folder in noted and note.host == socket.gethostname())
            place = note.folder if is_here else None
        if place is not None:
            seen[name] = note
            visible.append(place)
    unseen = {name: note for name, note in notes.items() if name not in seen}
    return seen, unseen, list({real_path(folder): folder for folder in visible}.values())


def _parsed(text: str) -> Note | None:
    """The note in a text; None if it is not what was written."""
    try:
        data: Any = json.loads(text)
        note = Note.model_validate(data)
    except (ValueError, ValidationError, RecursionError):
        return None
    if "\0" in f"{note.folder}{note.run}":  # which no file system has
        return None
    return note if note.identity is None or is_whole(data) else None


def _matches(note: Note, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (str(note.folder), f"{note.host}:{note.folder}"))


def _beside(location: str) -> list[Path]:
    """What lies beside a store in a folder, through links too: `../runs`, and the dataset that it is in."""
    if (store := folder_of(location)) is None:
        return []
    around = (store.absolute().parent, real_path(store).parent)
    return [
        *(folder / "runs" for folder in around if (folder / "runs").is_dir()),
        *(folder for folder in around if is_dataset(folder)),
    ]
