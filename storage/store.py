"""Content-addressed artifacts: each is one Zarr group that is absent or complete, never in between.

An artifact is made in a local folder, gets its root attributes, which hold the completion mark, last, and then becomes
visible at once, as its place can (`ss4d.storage.place`). Any number of processes on any number of hosts may read and
write one store. docs/store.md describes the layout.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ss4d.storage.archive import ArchivePlace
from ss4d.storage.artifact import FILES_GROUP, SCHEMA_VERSION, Artifact, files_digest, read_root, remedy, root_bytes
from ss4d.storage.codec import ArrayData, check_chunks, write_array
from ss4d.storage.errors import DamageError, StoreError
from ss4d.storage.files import delete, sha256_of
from ss4d.storage.folder import FolderPlace
from ss4d.storage.objects import ObjectPlace, is_url
from ss4d.storage.place import FILES, ROOT, Place
from ss4d.storage.refs import ArtifactRef, ref_of

DELETIONS = "deletions"  # the note on how many times somebody began to delete
MISSED = "missed"  # the folder of notes on artifacts that are to be made again
_ARRAY_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Writer:
    """Takes the content of one new artifact; see `ArtifactStore.create`."""

    def __init__(self, store: "ArtifactStore", ref: ArtifactRef, staging: Path, replace: bool) -> None:
        self._store, self._ref, self._staging, self._replace = store, ref, staging, replace
        self._arrays: dict[str, dict[str, Any]] = {}
        self._committed = False

    @property
    def folder(self) -> Path:
        """An existing folder for plain files, such as PLY and MP4, which become part of the artifact."""
        folder = self._staging / FILES
        folder.mkdir(exist_ok=True)
        return folder

    def write(self, name: str, array: ArrayData) -> None:
        """Adds an array under a name of a-z, 0-9 and "_".

        Raises:
            StoreError: if the name is not one, or taken.
            OSError: if it cannot be written.
        """
        self._check_open()
        if not _ARRAY_NAME.fullmatch(name) or name == FILES or name in self._arrays:
            raise StoreError(f"{self._ref} cannot have an array called {name!r}; use a new name of a-z, 0-9 and '_'")
        write_array(self._staging / name, array)
        self._arrays[name] = {
            "shape": list(array.data.shape),
            "dtype": array.data.dtype.name,
            "dims": list(array.dims),
            "chunks": list(array.chunk_shape),
        }

    def commit(self, attributes: Mapping[str, Any]) -> None:
        """Makes the artifact visible, complete and on the disk; if another writer was first, drops this one.

        Args:
            attributes: JSON values to keep beside the arrays: recipe, inputs, versions, seconds. The store adds
                `digest`, `complete`, `schema`, `stage`, `key`, `arrays` (shape, dtype, dims, chunks, sha256) and
                `files` (bytes, sha256).

        Raises:
            StoreError: if something cannot be part of an artifact, such as a symbolic link among the plain files.
            OSError: if it cannot be written; then nothing is visible.
        """
        self._check_open()
        self._check_chunks()
        own = {
            "complete": True,
            "schema": SCHEMA_VERSION,
            "stage": self._ref.stage,
            "key": self._ref.key,
            "arrays": {name: {**array, "sha256": self._digest(name)} for name, array in self._arrays.items()},
            "files": self._describe_files(),
        }
        if taken := [name for name in {"digest", *own} & attributes.keys() if own.get(name) != attributes[name]]:
            raise StoreError(
                f"{self._ref} cannot have attributes called {', '.join(sorted(taken))}: the store has them"
            )
        if own["files"]:
            (self._staging / FILES / ROOT).write_bytes(FILES_GROUP)
        else:
            delete(self._staging / FILES)
        # Nobody reads it here: the place sees to it that all of it is safe before any of it is visible.
        (self._staging / ROOT).write_bytes(root_bytes({**own, **attributes}))
        self._store._publish(self._ref, self._staging, self._replace)
        self._committed = True

    def _check_open(self) -> None:
        if self._committed:
            raise StoreError(f"{self._ref} is committed already and cannot change any more")

    def _check_chunks(self) -> None:
        for name, array in self._arrays.items():
            try:
                found = {path.name for path in (self._staging / name).iterdir()}
                check_chunks(tuple(array["shape"]), tuple(array["chunks"]), found)
            except DamageError as error:
                raise StoreError(f"{self._ref} lost parts of {name} while it was made: it {error}") from error

    def _digest(self, name: str) -> str:
        return files_digest({path.name: sha256_of(path) for path in (self._staging / name).iterdir()})

    def _describe_files(self) -> dict[str, dict[str, Any]]:
        described = {}
        for path in sorted((self._staging / FILES).rglob("*")):
            name = path.relative_to(self._staging / FILES).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()) or name == ROOT:
                raise StoreError(f"{self._ref} cannot keep {name!r}: only plain files and folders, none called {ROOT}")
            if path.is_file():
                described[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        return described


class ArtifactStore:
    """The artifacts in one place. Temporary folders of this host's dead processes are swept.

    Args:
        place: a folder, which need not exist yet, or another place; `open_store` makes one of a URL or an archive.
    """

    def __init__(self, place: Path | Place) -> None:
        self.place = FolderPlace(place) if isinstance(place, Path) else place
        self.place.sweep()

    @property
    def location(self) -> str:
        """Where the store is: a path or a URL."""
        return self.place.location

    def contains(self, ref: ArtifactRef) -> bool:
        """Whether the artifact is there and complete; one that is half there or damaged at its root is not.

        Raises:
            StoreError: if a newer version of the program wrote it, or the store cannot be reached.
        """
        try:
            self.open(ref)
        except DamageError:
            return False
        return True

    def open(self, ref: ArtifactRef) -> Artifact:
        """The complete artifact.

        Raises:
            DamageError: if it is missing, unfinished, or damaged at its root.
            StoreError: if a newer version of the program wrote it, or the store cannot be reached.
        """
        try:
            parts = self.place.parts(ref)
            if parts is not None:
                return Artifact(ref, parts, read_root(parts, ref), self.location)
        except DamageError as error:
            raise DamageError(
                f"{ref} was never finished or is damaged ({error}) in {self.location}", remedy(self.location)
            ) from error
        raise DamageError(f"{ref} is missing in {self.location}", f"a run with --force {ref.stage} makes it again")

    def occupied(self, ref: ArtifactRef) -> bool:
        """Whether anything lies in the artifact's place, whatever its state."""
        try:
            return self.place.parts(ref) is not None
        except DamageError:
            return True

    @contextmanager
    def create(self, ref: ArtifactRef, *, replace: bool = False) -> Iterator[Writer]:
        """Makes an artifact: `with store.create(ref) as writer`, then `write` arrays and `commit` once at the end.

        Left without a commit, nothing remains. If the artifact is there when it is committed, this one is dropped,
        since equal keys mean equal content.

        Args:
            ref: what to call it.
            replace: put it in the place of one that is there, which stays readable until then.

        Raises:
            StoreError: if a newer version of the program wrote one, or the store can only be read.
            OSError: if the folder cannot be written.
        """
        self.contains(ref)  # refuses before the work rather than after it
        self.place.sweep()
        staging = self.place.staging()
        staging.mkdir(parents=True)
        try:
            yield Writer(self, ref, staging, replace)
        finally:
            delete(staging)

    def refs(self) -> Iterator[ArtifactRef]:
        """Every artifact that has a place in the store, in order of stage and key, damaged or unfinished ones too."""
        return self.place.refs()

    def size(self, ref: ArtifactRef) -> int:
        """Bytes of all the files of an artifact, whatever its state; 0 if it is not there."""
        try:
            parts = self.place.parts(ref)
            return sum(parts.sizes().values()) if parts else 0
        except DamageError:  # nothing leads to its files
            return 0

    def deletions(self) -> int:
        """How many times somebody began to delete here: it orders what is made and what is deleted on many hosts.

        Raises:
            StoreError: if the note on it is damaged.
        """
        text = self.place.text_of(DELETIONS) or "0"
        if not text.isdecimal():
            raise StoreError(
                f"the note .notes/{DELETIONS} in {self.location} is damaged: delete it, and let `ss4d dataset catalog "
                "rebuild` look into the store for each dataset that uses it"
            )
        return int(text)

    def begin_deletion(self, least: int = 1) -> int:
        """Counts that somebody is about to delete, before anything goes; gives the number, which is at least `least`.

        Raises:
            StoreError, OSError: if it cannot be noted.
        """
        number = max(self.deletions() + 1, least)
        self.place.note(DELETIONS, str(number))
        return number

    def check_writable(self) -> None:
        """Raises StoreError if artifacts here can only be read."""
        self.place.staging()

    def remove(self, ref: ArtifactRef, *, missed: bool = False) -> None:
        """Deletes an artifact at once, whatever its state; does nothing if it is not there.

        Args:
            ref: of the artifact.
            missed: whether it is to be made again by the next run that could use it, see `misses`.
        """
        # Before, not after: should this process die between, the note means nothing as long as the artifact is there.
        self.place.note(_missed(ref), "damaged\n" if missed else None)
        self.place.remove(ref)

    def misses(self, ref: ArtifactRef) -> bool:
        """Whether the artifact was deleted as one that is to be made again, or lies there damaged at its root."""
        return (self.place.noted(_missed(ref)) or self.occupied(ref)) and not self.contains(ref)

    def all_missed(self) -> list[ArtifactRef]:
        """What was deleted as to be made again; some of it may be there again."""
        names = (name.partition("/") for name in self.place.notes(MISSED))
        return [ref for stage, _, key in names if (ref := ref_of(stage, key)) is not None]

    def _publish(self, ref: ArtifactRef, staging: Path, replace: bool) -> None:
        """Puts a finished folder in its place; what lies there goes, unless it is complete and not to be replaced."""
        self.place.publish(ref, staging, lambda: not replace and self.contains(ref))


def folder_of(location: str) -> Path | None:
    """The folder of this machine that a store's location names; None for a URL."""
    return None if is_url(location) else Path(location)


def open_store(location: str | Path) -> ArtifactStore:
    """The store at a place.

    Args:
        location: a folder, which need not exist yet; the URL of an object store, such as s3://bucket/prefix; or a
            `.zip` file that `ss4d pack` made, which can only be read.

    Raises:
        StoreError: if there can be no store at such a URL or path, a file lies in its place, or the archive is missing
            or unsafe.
    """
    if isinstance(location, str) and is_url(location):
        return ArtifactStore(ObjectPlace.at(location))
    path = Path(location)
    if "\0" in str(path):  # as a record may have it, and no file system
        raise StoreError(f"{str(path)!r} is no path of a store: there is a NUL character in it")
    if path.suffix == ".zip" and not path.is_dir():
        return ArtifactStore(ArchivePlace(path))
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file: give the folder of a store, a URL, or a .zip file that `ss4d pack` made")
    return ArtifactStore(path)


def _missed(ref: ArtifactRef) -> str:
    """The name of the note."""
    return f"{MISSED}/{ref.stage}/{ref.key}"
