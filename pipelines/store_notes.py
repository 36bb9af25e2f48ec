"""Notes that runs and datasets leave in a store of what they need of it: `ss4d gc` on any machine reads them.

Two folders of one path on two machines, such as containers, are not taken for each other: each has an identity of its
own, a token in a file and that file's number in its file system, which a copy of the folder does not share.
"""

import json
import os
import re
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from ss4d.storage.files import reading, real_path, write_once
from ss4d.storage.refs import artifact_key
from ss4d.storage.seal import sealed
from ss4d.storage.store import ArtifactStore

NOTES = "runs"  # the store's folder of these notes
BEGUN = "begun"  # a note that every run replaces when its own is there: who deletes sees by it that one began
_IDENTITY = ".identity"
_HEX = re.compile(rb"[0-9a-f]{32}")
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Note(BaseModel):
    """Who needs what of a store.

    Attributes:
        host: that the folder was on.
        folder: of the runs, or the dataset.
        identity: of that folder; None in notes of earlier versions, which hold no more than this.
        run: the name of a run in the folder; "" for a dataset.
        keys: of that run's artifacts, by stage.
        recipes: of a launch of the dataset, by stage; see `ss4d.pipelines.dataset.keys.recorded_keys`.
        digests: of the dataset's clips.
    """

    host: str
    folder: Path
    identity: str | None = None
    run: str = ""
    keys: dict[str, Key] = {}
    recipes: dict[str, dict[str, Any]] = {}
    digests: list[Key] = []


def note_run(store: ArtifactStore, folder: Path, keys: Mapping[str, str], *, anew: bool = True) -> None:
    """Notes in a store what the run in `folder` needs, in place of what the last run of that name needed.

    Args:
        store: that has it, or will.
        folder: of the run.
        keys: of its artifacts, by stage.
        anew: also if the last run of that name needed the same, for a run that is about to compute.

    Raises:
        StoreError, OSError: if it cannot be written.
    """
    runs = real_path(folder.parent)
    identity = _own_identity(runs)
    note = Note(host=socket.gethostname(), folder=runs, identity=identity, run=folder.name, keys=dict(keys))
    name = f"{NOTES}/{identity}/{folder.name}"
    if anew or store.place.text_of(name) != _text(note):
        _write(store, name, note)


def note_launch(
    store: ArtifactStore, folder: Path, recipes: Mapping[str, Mapping[str, Any]], digests: list[str]
) -> str:
    """Notes in a store what a launch of the dataset in `folder` needs; notes on earlier ones stay.

    Returns:
        The note's name; equal launches share it.

    Raises:
        StoreError, OSError: if it cannot be written.
    """
    folder = real_path(folder)
    identity = _own_identity(folder)
    plain = {stage: dict(recipe) for stage, recipe in recipes.items()}
    name = f"{NOTES}/{identity}/{artifact_key({'recipes': plain, 'digests': digests})}"
    note = Note(host=socket.gethostname(), folder=folder, identity=identity, recipes=plain, digests=digests)
    _write(store, name, None if store.place.noted(name) else note)
    return name


def _write(store: ArtifactStore, name: str, note: Note | None) -> None:
    if note is not None:
        store.place.note(name, _text(note))
    store.place.note(BEGUN, secrets.token_hex(8))


def _text(note: Note) -> str:
    return json.dumps(sealed(note.model_dump(mode="json")))


def identity_of(folder: Path) -> str | None:
    """The identity of a folder of runs, or of a dataset; None if it has none, or it cannot be read."""
    with suppress(OSError), reading(folder / _IDENTITY) as file:
        token = file.read(64)
        if _HEX.fullmatch(token):
            return f"{token.decode()}-{os.fstat(file.fileno()).st_ino:x}"
    return None


def _own_identity(folder: Path) -> str:
    """The identity of a folder that this process may write."""
    if (known := identity_of(folder)) is not None:
        return known
    write_once(folder / _IDENTITY, secrets.token_hex(16).encode())
    made = identity_of(folder)
    if made is None:
        raise OSError(f"{folder / _IDENTITY} is no identity of a folder of runs: delete it")
    return made
