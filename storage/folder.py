"""Artifacts in a local folder: `<root>/<stage>/<first two digits of the key>/<key>.zarr`, each put there by one rename.

Beside the stages lie `.staging`, where artifacts are made, and `.replaced`, where one waits until another is in its
place. Folders in both are named after the process that owns them, so that another can tidy up after a dead one.
`.notes` holds notes. None of these three may be a link: nothing is made or deleted where it leads. A stage's may.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from zarr.abc.store import Store
from zarr.storage import LocalStore

from ss4d.storage.errors import DamageError, StoreError
from ss4d.storage.files import (
    check_name,
    delete,
    is_orphan,
    leads_out,
    listed,
    owned_name,
    read_plain,
    real_path,
    sha256_of,
    sync,
    sync_tree,
    write_bytes,
)
from ss4d.storage.place import FILES, Parts, Place
from ss4d.storage.refs import ArtifactRef, ref_of

_STAGING, _REPLACED, _NOTES = ".staging", ".replaced", ".notes"
_CLOCK = "clock"  # a note that is written to see what time it gets
_OCCUPIED = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}  # what renaming onto an existing name may say


class FolderParts(Parts):
    """The files of an artifact in a folder; links are not followed, not even one in the artifact's own place."""

    def __init__(self, folder: Path) -> None:
        self._folder = real_path(folder.parent) / folder.name

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Links, pipes and the like count as files."""
        found = {}
        start = len(str(self._folder)) + 1
        waiting = [str(self._inside(folder))]
        while waiting:  # without a Path for each file: a store has a million
            with suppress(OSError), os.scandir(waiting.pop()) as entries:  # or deleted meanwhile
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                        continue
                    with suppress(FileNotFoundError):  # another artifact is in place of this one
                        found[entry.path[start:]] = entry.stat(follow_symlinks=False).st_size
        return dict(sorted(found.items()))

    def read(self, name: str) -> bytes:
        try:
            return read_plain(self._file(name))
        except FileNotFoundError as error:  # deleted meanwhile
            raise _missing(name) from error

    def array(self, name: str) -> tuple[Store, str]:
        folder = self._inside(name)
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            for entry in entries:  # Zarr would follow a link, and wait for a pipe
                if not entry.is_file(follow_symlinks=False):
                    raise DamageError(f"its part {entry.name!r} is no plain file")
        return LocalStore(folder, read_only=True), ""

    def fetch(self, digests: Mapping[str, str]) -> dict[str, Path]:
        """Gives the files themselves, checked as copies are."""
        paths = {name: self._file(name) for name in digests}
        for name, path in paths.items():
            try:
                found = sha256_of(path)
            except FileNotFoundError as error:  # deleted meanwhile
                raise _missing(name) from error
            if found != digests[name]:
                raise DamageError(f"its file {name.removeprefix(FILES + '/')!r} is not what it was")
        return paths

    def _file(self, name: str) -> Path:
        path = self._inside(name)
        if not path.is_file():
            raise _missing(name)
        return path

    def _inside(self, name: str) -> Path:
        """The path of a part, sure to lie in this folder and to be reached through no link."""
        path = self._folder / name
        if real_path(path) != path or path.is_symlink() or not path.is_relative_to(self._folder):
            raise DamageError(f"its part {name!r} leads somewhere else")
        return path


def _missing(name: str) -> DamageError:
    return DamageError(f"its file {name.removeprefix(FILES + '/')!r} is missing")


class FolderPlace(Place):
    """The folder `root`, which need not exist yet; nothing outside it is written."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # Folders whose names this process has synced. Whether another process that made one has, nobody can tell.
        self._lasting: set[Path] = set()

    @property
    def location(self) -> str:
        """The path of the folder."""
        return str(self._root)

    def parts(self, ref: ArtifactRef) -> FolderParts | None:
        """Between the two renames of a replacement, the files of the old artifact."""
        path = self._path(ref)
        waiting = self._root.glob(f"{_REPLACED}/*/{path.relative_to(self._root)}")
        for found in chain([path], waiting, [path]):
            if os.path.lexists(found):
                return FolderParts(found)
        return None

    def refs(self) -> Iterator[ArtifactRef]:
        for path in sorted(self._root.glob("*/*/*.zarr")):
            if (ref := self._ref(path)) is not None:
                yield ref

    def unexpected(self) -> list[str]:
        names = []
        for stage in (name for name in listed(self._root) if name not in (_STAGING, _REPLACED, _NOTES)):
            for digits in listed(self._root / stage) or [""]:
                paths = [self._root / stage / digits / name for name in listed(self._root / stage / digits)]
                names += [str(path.relative_to(self._root)) for path in paths if self._ref(path) is None]
                if not (self._root / stage / digits).is_dir():
                    names.append(f"{stage}/{digits}".rstrip("/"))
        return names

    def modified(self, ref: ArtifactRef) -> float:
        """A folder changes when its last file, the description, is written."""
        return self._path(ref).lstat().st_mtime

    def now(self) -> float:
        """The file server's, if it is one's folder: it sets the times of what is written."""
        self.note(_CLOCK, "")
        return (self._root / _NOTES / _CLOCK).stat().st_mtime

    def staging(self) -> Path:
        """On the file system of the store, so that the folder can be renamed into its place."""
        return self._own(f"{_STAGING}/{owned_name()}")

    def publish(self, ref: ArtifactRef, folder: Path, keep: Callable[[], bool]) -> None:
        target = self._path(ref)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _on_disk_of(target, folder) as near:
            # Before the rename: a name that outlives a power failure must not lead to files that did not.
            sync_tree(near)
            while not _rename_if_free(near, target):
                if keep():
                    return
                if self._swap(near, target):
                    break
        self._sync_names(target)

    def _sync_names(self, target: Path) -> None:
        """Waits until the names that lead to an artifact are on the disk: its own, and new ones of folders."""
        sync(target.parent)
        for folder in (target.parent, target.parent.parent):
            if folder not in self._lasting:
                sync(folder.parent)
                self._lasting.add(folder)

    def remove(self, ref: ArtifactRef) -> None:
        path, aside = self._path(ref), self.staging()
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            if path.parent.stat().st_dev != aside.parent.stat().st_dev:
                aside = _beside(path)
            path.rename(aside)
        except FileNotFoundError:
            return
        delete(aside)

    def note(self, name: str, text: str | None) -> None:
        path = self._own(f"{_NOTES}/{check_name(name)}")
        if text is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, text.encode())

    def text_of(self, name: str) -> str | None:
        try:
            return read_plain(self._root / _NOTES / check_name(name)).decode(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def noted(self, name: str) -> bool:
        return (self._root / _NOTES / check_name(name)).is_file()

    def notes(self, folder: str) -> dict[str, str]:
        top = self._root / _NOTES / check_name(folder)
        found = {}
        for parent, _, names in os.walk(top, onerror=_refuse):
            for path in (Path(parent, name) for name in names if not name.startswith(".")):
                with suppress(FileNotFoundError):  # deleted meanwhile
                    found[path.relative_to(top).as_posix()] = read_plain(path).decode(errors="replace")
        return dict(sorted(found.items()))

    def sweep(self) -> None:
        for name in self._unfinished():
            if is_orphan(name.partition("/")[2]):
                with suppress(OSError):  # on a read-only disk, say: a later process tries again
                    self.discard(name)

    def abandoned(self, age: float) -> dict[str, int]:
        found: dict[str, int] = {}
        names = self._unfinished()
        latest = self.now() - age if names else 0.0
        for name in names:
            with suppress(FileNotFoundError):  # its owner lives, and has finished it
                paths = [self._root / name, *(self._root / name).rglob("*")]
                stats = [path.lstat() for path in paths]
                if max(stat.st_mtime for stat in stats) <= latest:
                    found[name] = sum(stat.st_size for path, stat in zip(paths, stats, strict=True) if path.is_file())
        return found

    def discard(self, name: str) -> None:
        """An artifact that was to be replaced, and was not, is put back."""
        aside = self._own(name)
        if name.startswith(_REPLACED):
            paths = aside.glob("*/*/*.zarr")
            for path in (path for path in paths if not leads_out(self._root, str(path.relative_to(self._root)))):
                with suppress(FileNotFoundError):  # another process is doing the same
                    _rename_if_free(path, self._root / path.relative_to(aside))
        delete(aside)

    def _unfinished(self) -> list[str]:
        """The names of the folders in which processes make or replace artifacts, or did so before they died."""
        own = (folder for folder in (_STAGING, _REPLACED) if not (self._root / folder).is_symlink())
        return [f"{folder}/{name}" for folder in own for name in listed(self._root / folder)]

    def _own(self, name: str) -> Path:
        """The path of something that is made or deleted in one of the hidden folders.

        Raises:
            StoreError: if a link on the way leads somewhere else.
        """
        if leads_out(self._root, name):
            raise StoreError(
                f"{self._root / name} would lie somewhere else, through a link on the way: remove that link"
            )
        return self._root / name

    def _path(self, ref: ArtifactRef) -> Path:
        return self._root / ref.stage / ref.key[:2] / f"{ref.key}.zarr"

    def _ref(self, path: Path) -> ArtifactRef | None:
        """Which artifact has its place at `path`; None if none could."""
        ref = ref_of(path.parent.parent.name, path.name.removesuffix(".zarr"))
        return ref if ref is not None and self._path(ref) == path else None

    def _swap(self, folder: Path, target: Path) -> bool:
        """Puts a finished folder in the place of `target`, which it then deletes; False if another writer came between.

        If it fails, the old content is back in its place; if it is killed, `sweep` puts it back.
        """
        if target.parent.stat().st_dev != self._root.stat().st_dev:
            return _swap_beside(folder, target)
        name = f"{_REPLACED}/{owned_name()}"
        aside = self._own(name) / target.relative_to(self._root)
        aside.parent.mkdir(parents=True)
        try:
            target.rename(aside)
        except FileNotFoundError:
            delete(self._root / name)
            return False
        try:
            placed = _rename_if_free(folder, target)
        except BaseException:
            self.discard(name)
            raise
        delete(self._root / name)
        return placed


def _refuse(error: OSError) -> None:
    """Does not pass over a folder that is there and cannot be read: what it holds may be what keeps an artifact."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _beside(target: Path) -> Path:
    """A new hidden name in an artifact's own folder, for a stage whose folder is on another disk than the store's."""
    return target.with_name(f".{owned_name()}")


@contextmanager
def _on_disk_of(target: Path, folder: Path) -> Iterator[Path]:
    """A finished folder where it can be renamed to `target`: itself, or a copy if its disk is another.

    Copies that dead processes left there are deleted.
    """
    if target.parent.stat().st_dev == folder.stat().st_dev:
        yield folder
        return
    for name in listed(target.parent):
        if name.startswith(".") and is_orphan(name[1:]):
            delete(target.parent / name)
    near = _beside(target)
    try:
        shutil.copytree(folder, near, symlinks=True)
        yield near
    finally:
        delete(near)


def _swap_beside(folder: Path, target: Path) -> bool:
    """What `FolderPlace._swap` does, beside the target; if it is killed between, the artifact has to be made again."""
    aside = _beside(target)
    try:
        target.rename(aside)
    except FileNotFoundError:
        return False
    try:
        return _rename_if_free(folder, target)
    except BaseException:
        _rename_if_free(aside, target)
        raise
    finally:
        delete(aside)


def _rename_if_free(source: Path, target: Path) -> bool:
    """Renames a folder unless the target exists and is not an empty folder."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in _OCCUPIED:
            return False
        raise
    return True
