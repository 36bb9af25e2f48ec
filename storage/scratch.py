"""Temporary local folders for artifacts that are uploaded after they are made, or downloaded to be read."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from platformdirs import user_cache_path

from ss4d.storage.errors import DamageError
from ss4d.storage.files import check_name, delete, is_orphan, listed, owned_name, write_bytes


class Scratch:
    """Folders of this process in the user's cache folder; the next process sweeps them when it is gone."""

    def __init__(self) -> None:
        self._root = user_cache_path("ss4d") / "store"
        self._copies = self.new()

    def new(self) -> Path:
        """A new name for a folder, which does not exist yet."""
        return self._root / owned_name()

    def sweep(self) -> None:
        """Deletes the folders of dead processes of this host."""
        for name in listed(self._root):
            if is_orphan(name):
                delete(self._root / name)

    def fetch(self, read: Callable[[str], bytes], digests: Mapping[str, str], place: str) -> dict[str, Path]:
        """Local copies of files, each with its SHA-256 checked.

        Args:
            read: gives the content of a file.
            digests: SHA-256 of each, by name.
            place: a relative path of the artifact's own to keep the copies under.

        Raises:
            DamageError: if a file is missing or not what it was, or its name leads elsewhere.
        """
        folder = self._copies / place
        paths = {}
        for name, digest in digests.items():
            path = folder / check_name(name)
            if not path.is_file():
                data = read(name)
                if hashlib.sha256(data).hexdigest() != digest:
                    raise DamageError(f"its file {name!r} is not what it was")
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, data)
            paths[name] = path
        return paths
