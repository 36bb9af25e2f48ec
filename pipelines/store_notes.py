"""Notes that runs and datasets leave in a store that lies elsewhere, saying where they are: `ss4d gc` reads them."""

import hashlib
import socket
from pathlib import Path

from pydantic import BaseModel

from ss4d.storage.store import ArtifactStore, folder_of

NOTES = "runs"  # the store's folder of these notes


class Note(BaseModel):
    """A folder of runs, and the host that it was on."""

    host: str
    folder: Path


def register(store: ArtifactStore, folder: Path) -> None:
    """Notes in a store that the runs in `folder`, or the dataset that it is, use it, unless it lies beside them.

    Raises:
        StoreError, OSError: if it cannot be written.
    """
    folder = folder.resolve()
    if (place := folder_of(store.location)) is not None:
        around = place.resolve().parent
        if folder in (around, around / "runs"):
            return
    text = Note(host=socket.gethostname(), folder=folder).model_dump_json()
    store.place.note(f"{NOTES}/{hashlib.sha256(text.encode()).hexdigest()[:32]}", text)
