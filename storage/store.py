"""Content-addressed artifacts in a folder: each is one Zarr group that is absent or complete, never in between.

    <root>/<stage>/<first two digits of the key>/<key>.zarr/   zarr.json  <array>/...  files/...

An artifact is made in `<root>/.staging`, gets its root attributes, which hold the completion mark, last, and is then
renamed into place. Any number of processes on any number of hosts may read and write one store.
"""

import errno
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import zarr
from numpy.typing import NDArray

from storage.codec import ArrayData, expected_chunks, open_array, read_array, write_array
from storage.errors import StoreError
from storage.files import delete, is_orphan, owned_name, read_json, sync, sync_tree, write_json
from storage.refs import ArtifactRef

SCHEMA_VERSION = 1  # of the layout described here; raised when an older program could misread it
_FILES = "files"  # the folder of plain files
_ROOT = "zarr.json"  # what Zarr calls the description of a group
_ARRAY_NAME = re.compile(r"[a-z][a-z0-9_]*")
_OCCUPIED = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}  # what renaming onto an existing name may say


class Writer:
    """Takes the content of one new artifact; see `ArtifactStore.create`."""

    def __init__(self, store: "ArtifactStore", ref: ArtifactRef, staging: Path, replace: bool) -> None:
        self._store, self._ref, self._staging, self._replace = store, ref, staging, replace
        self._arrays: dict[str, dict[str, Any]] = {}
        self._committed = False

    @property
    def folder(self) -> Path:
        """An existing folder for plain files, such as PLY and MP4, which become part of the artifact."""
        folder = self._staging / _FILES
        folder.mkdir(exist_ok=True)
        return folder

    def write(self, name: str, array: ArrayData) -> None:
        """Adds an array under a name of a-z, 0-9 and "_".

        Raises:
            StoreError: if the name is not one, or taken.
            OSError: if it cannot be written.
        """
        self._check_open()
        if not _ARRAY_NAME.fullmatch(name) or name == _FILES or name in self._arrays:
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
                `complete`, `schema`, `stage`, `key`, `arrays` (shape, dtype, dims, chunks) and `files` (bytes, sha256).

        Raises:
            StoreError: if something cannot be part of an artifact, such as a symbolic link among the plain files.
            OSError: if it cannot be written; then nothing is visible.
        """
        self._check_open()
        own = {
            "complete": True,
            "schema": SCHEMA_VERSION,
            "stage": self._ref.stage,
            "key": self._ref.key,
            "arrays": self._arrays,
            "files": self._describe_files(),
        }
        if taken := [name for name in own.keys() & attributes.keys() if own[name] != attributes[name]]:
            raise StoreError(
                f"{self._ref} cannot have attributes called {', '.join(sorted(taken))}: the store has them"
            )
        if (self._staging / _FILES).is_dir():
            # As a group of its own, the folder does not make Zarr warn of a stranger when it lists the artifact.
            write_json(self._staging / _FILES / _ROOT, _group({"meaning": "plain files, listed in the parent group"}))
        self._check_chunks()
        sync_tree(self._staging)
        write_json(self._staging / _ROOT, _group({**own, **attributes}))
        self._store._publish(self._ref, self._staging, self._replace)
        self._committed = True

    def _check_open(self) -> None:
        if self._committed:
            raise StoreError(f"{self._ref} is committed already and cannot change any more")

    def _check_chunks(self) -> None:
        for name, array in self._arrays.items():
            found = sum(path.name != _ROOT for path in (self._staging / name).iterdir())
            if found != (wanted := expected_chunks(tuple(array["shape"]), tuple(array["chunks"]))):
                raise StoreError(f"{self._ref} lost parts of {name} while it was made ({found} of {wanted} chunks)")

    def _describe_files(self) -> dict[str, dict[str, Any]]:
        described = {}
        for path in sorted((self._staging / _FILES).rglob("*")):
            name = path.relative_to(self._staging / _FILES).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()) or name == _ROOT:
                raise StoreError(f"{self._ref} cannot keep {name!r}: only plain files and folders, none called {_ROOT}")
            if path.is_file():
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                described[name] = {"bytes": path.stat().st_size, "sha256": digest}
        return described


class Artifact:
    """A complete artifact, read in parts as asked for; see `ArtifactStore.open`."""

    def __init__(self, ref: ArtifactRef, folder: Path, attributes: dict[str, Any]) -> None:
        self.ref = ref
        self.attributes = attributes
        self._folder = folder

    def arrays(self) -> tuple[str, ...]:
        """The names of its arrays, in the order in which they were written."""
        return tuple(self.attributes["arrays"])

    def array(self, name: str) -> zarr.Array[Any]:
        """An array whose chunks are read when it is indexed.

        Raises:
            StoreError: if there is no such array, or it is not as it was when committed.
        """
        if name not in self.arrays():
            raise StoreError(f"{self.ref} has no array {name!r}; it has {', '.join(self.arrays()) or 'none'}")
        try:
            array = open_array(self._inside(name))
        except StoreError as error:
            raise self._damaged(str(error)) from error
        listed = self.attributes["arrays"][name]
        if [list(array.shape), array.dtype.name] != [listed["shape"], listed["dtype"]]:
            raise self._damaged(f"{name} is {array.dtype} {array.shape}, not {listed['dtype']} {listed['shape']}")
        return array

    def read(self, name: str) -> NDArray[Any]:
        """A whole array in memory, its checksums checked. Raises as `array` does."""
        array = self.array(name)
        try:
            return read_array(array)
        except StoreError as error:
            raise self._damaged(str(error)) from error

    def files(self) -> dict[str, Path]:
        """The plain files by their names, such as "frames/frame0001.ply". Do not write into them.

        Raises:
            StoreError: if one is missing, or is a link, or would lie outside the artifact.
        """
        paths = {name: self._inside(f"{_FILES}/{name}") for name in self.attributes["files"]}
        for name, path in paths.items():
            if not path.is_file():
                raise self._damaged(f"its file {name!r} is missing")
        return paths

    def _inside(self, name: str) -> Path:
        """The path of a part, sure to lie in this folder and to be reached through no link."""
        path = self._folder.resolve() / name
        if path.resolve() != path or not path.is_relative_to(self._folder.resolve()):
            raise self._damaged(f"its part {name!r} leads somewhere else")
        return path

    def _damaged(self, reason: str) -> StoreError:
        return StoreError(f"{self.ref} is damaged: {reason}; remove it and rerun the stage {self.ref.stage}")


class ArtifactStore:
    """The artifacts below one folder, which need not exist yet. Temporary folders of dead processes are swept.

    Args:
        root: the store's folder; nothing outside it is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sweep()

    def contains(self, ref: ArtifactRef) -> bool:
        """Whether the artifact is there and complete; one that is half there or damaged at its root is not.

        Raises:
            StoreError: if a newer version of the program wrote it.
        """
        return self._attributes(ref) is not None

    def open(self, ref: ArtifactRef) -> Artifact:
        """The complete artifact.

        Raises:
            StoreError: if it is missing or unfinished, or written by a newer version of the program.
        """
        attributes = self._attributes(ref)
        if attributes is None:
            state = "was never finished" if self._path(ref).exists() else "is missing"
            raise StoreError(f"{ref} {state} in {self.root}; rerun the stage {ref.stage}")
        return Artifact(ref, self._path(ref), attributes)

    @contextmanager
    def create(self, ref: ArtifactRef, *, replace: bool = False) -> Iterator[Writer]:
        """Makes an artifact: `with store.create(ref) as writer`, then `write` arrays and `commit` once at the end.

        Left without a commit, nothing remains. If the artifact is there when it is committed, this one is dropped,
        since equal keys mean equal content.

        Args:
            ref: what to call it.
            replace: put it in the place of one that is there, which stays readable until then.

        Raises:
            StoreError: if a newer version of the program wrote one.
            OSError: if the folder cannot be written.
        """
        self.contains(ref)  # refuses before the work rather than after it
        self._sweep()
        staging = self._staging_path()
        staging.mkdir(parents=True)
        try:
            yield Writer(self, ref, staging, replace)
        finally:
            delete(staging)

    def refs(self) -> Iterator[ArtifactRef]:
        """Every artifact that has a place in the store, in order of stage and key, damaged or unfinished ones too."""
        for path in sorted(self.root.glob("*/??/*.zarr")):
            with suppress(StoreError):  # a stranger's folder, which no artifact could be called
                if self._path(ref := ArtifactRef(path.parent.parent.name, path.stem)) == path:
                    yield ref

    def size(self, ref: ArtifactRef) -> int:
        """Bytes of all the files of an artifact, whatever its state; 0 if it is not there."""
        files = (Path(folder, name) for folder, _, names in os.walk(self._path(ref)) for name in names)
        return sum(file.lstat().st_size for file in files)

    def remove(self, ref: ArtifactRef) -> None:
        """Deletes an artifact at once, whatever its state; does nothing if it is not there."""
        aside = self._staging_path()
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._path(ref).rename(aside)
        except FileNotFoundError:
            return
        delete(aside)

    def _path(self, ref: ArtifactRef) -> Path:
        return self.root / ref.stage / ref.key[:2] / f"{ref.key}.zarr"

    def _staging_path(self) -> Path:
        return self.root / ".staging" / owned_name()

    def _sweep(self) -> None:
        staging = self.root / ".staging"
        for name in os.listdir(staging) if staging.is_dir() else []:
            if is_orphan(name):
                delete(staging / name)

    def _attributes(self, ref: ArtifactRef) -> dict[str, Any] | None:
        """The root attributes of a complete artifact, or None; cheap: it reads one small file."""
        path = self._path(ref)
        try:
            group = read_json(path / _ROOT)
        except (FileNotFoundError, NotADirectoryError, StoreError):
            return None
        attributes = group.get("attributes") if isinstance(group, dict) else None
        if not isinstance(attributes, dict) or attributes.get("complete") is not True or path.is_symlink():
            return None
        if isinstance(schema := attributes.get("schema"), int) and schema > SCHEMA_VERSION:
            raise StoreError(
                f"{ref} in {self.root} was written by a newer version of this program (store schema {schema}, this "
                f"one knows up to {SCHEMA_VERSION}); upgrade, or use another folder"
            )
        own = attributes.get("schema") == SCHEMA_VERSION and attributes.get("stage") == ref.stage
        listed = isinstance(attributes.get("arrays"), dict) and isinstance(attributes.get("files"), dict)
        return attributes if own and listed and attributes.get("key") == ref.key else None

    def _publish(self, ref: ArtifactRef, staging: Path, replace: bool) -> None:
        """Renames a finished folder into place; what lies there goes, unless it is complete and not to be replaced."""
        target = self._path(ref)
        target.parent.mkdir(parents=True, exist_ok=True)
        while not _rename_if_free(staging, target):
            if not replace and self.contains(ref):
                return
            if self._swap(staging, target):
                break
        for folder in (target.parent, target.parent.parent, self.root):
            sync(folder)

    def _swap(self, staging: Path, target: Path) -> bool:
        """Puts a finished folder in the place of `target`, which it then deletes; False if another writer came between.

        If it fails, the old content is back in its place.
        """
        aside = self._staging_path()
        try:
            target.rename(aside)
        except FileNotFoundError:
            return False
        try:
            return _rename_if_free(staging, target)
        except BaseException:
            aside.rename(target)
            raise
        finally:
            delete(aside)


def open_store(location: str | Path) -> ArtifactStore:
    """The store at a place, which need not exist yet.

    Args:
        location: a folder.
    """
    return ArtifactStore(Path(location))


def _rename_if_free(source: Path, target: Path) -> bool:
    """Renames a folder unless the target exists and is not an empty folder."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in _OCCUPIED:
            return False
        raise
    return True


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}
