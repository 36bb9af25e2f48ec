"""SHA-256 of large files, kept from one command to the next, so that gigabytes of weights are read once.

What is kept lies in the user's cache folder, which may be deleted at any time. It is believed only as long as size,
inode, time of modification and time of change of the file are those that it was read with.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

from ss4d.stages.errors import ModelError
from ss4d.stages.model_folder import sha256_of
from ss4d.storage.files import write_json

KEPT_FROM = 2**25  # bytes; smaller files are read as fast as what is kept
# A file that was changed less than so many seconds ago may change again without its times telling: clocks of file
# systems are as coarse as that.
SETTLED = 3.0


def kept_sha256(file: Path) -> bytes:
    """The digest of a file's content, read only if the file is small, new or changed.

    Raises:
        ModelError: it cannot be read.
    """
    state = _state(file)
    if state["size"] < KEPT_FROM:
        return sha256_of(file)
    note = user_cache_path("ss4d") / "sha256" / f"{hashlib.sha256(os.fsencode(file.resolve())).hexdigest()}.json"
    if (kept := _kept(note, state)) is not None:
        return kept
    began = time.time()
    digest = sha256_of(file)
    changed = max(state["modified"], state["changed"]) / 1e9
    if changed < began - SETTLED and _state(file) == state:
        with suppress(OSError):  # to keep it saves time, and no more
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json(note, {**state, "sha256": digest.hex()})
    return digest


def _state(file: Path) -> dict[str, int]:
    """What changes when a file does, times in nanoseconds."""
    try:
        found = file.stat()
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}") from error
    return {"size": found.st_size, "inode": found.st_ino, "modified": found.st_mtime_ns, "changed": found.st_ctime_ns}


def _kept(note: Path, state: dict[str, int]) -> bytes | None:
    """The digest that is kept in a note, if it is of a file in that state."""
    try:
        content = json.loads(note.read_bytes())
        digest = bytes.fromhex(content.pop("sha256"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # there is none, or nothing that can be read
        return None
    return digest if content == state and len(digest) == hashlib.sha256().digest_size else None
