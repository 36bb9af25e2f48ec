"""Artifacts and other files in one zip file, which is written once and only read afterwards.

    store/<stage>/<first two digits of the key>/<key>.zarr/...    and whatever else `write_archive` was given

An archive may come from anybody: what no honest writer makes, such as names that lead elsewhere or compressed
entries, which could unpack to any size, is refused before anything is read.
"""

import stat
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from zarr.abc.store import Store
from zarr.storage import ZipStore

from ss4d.storage.errors import DamageError, StoreError, reached
from ss4d.storage.files import check_name, replacing
from ss4d.storage.place import Parts, Place
from ss4d.storage.refs import ArtifactRef, ref_of
from ss4d.storage.scratch import Scratch

STORE = "store"  # the folder of artifacts in an archive
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold
_ENCRYPTED = 0x1


def write_archive(target: Path, members: Mapping[str, Callable[[], bytes]]) -> None:
    """Writes a zip file, all of it or nothing; the same members make the same bytes.

    Args:
        target: where; a file that is there is replaced.
        members: what gives the content of each entry, by name.

    Raises:
        OSError: if it cannot be written.
        DamageError: if a name leads elsewhere.
    """
    with replacing(target) as file, zipfile.ZipFile(file, "w") as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(check_name(name), _EPOCH)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, members[name]())


class Archive:
    """The entries of a zip file, all of them checked.

    Raises:
        StoreError: if it is missing, no zip file, or not safe to read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.is_file():
            raise StoreError(f"{path} is no file: give a zip file that `ss4d pack` made")
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise StoreError(f"the archive {path} is missing") from error
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise StoreError(f"{path} is no zip file that can be read: {error}") from error
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in self._zip.infolist():
            if not entry.filename.endswith("/"):  # a folder; is_dir() fails at no name
                self._check(entry)
                self._entries[entry.filename] = entry
        if sum(entry.file_size for entry in self._entries.values()) > path.stat().st_size:
            self._refuse("its entries overlap")

    def names(self, folder: str = "") -> list[str]:
        """The entries whose names begin with `folder`, in order."""
        return sorted(name for name in self._entries if name.startswith(folder))

    def size(self, name: str) -> int:
        """Bytes of an entry."""
        return self._entries[name].file_size

    def read(self, name: str) -> bytes:
        """A whole entry.

        Raises:
            DamageError: if it is missing, or its checksum does not fit.
        """
        if name not in self._entries:
            raise DamageError(f"its file {name!r} is missing")
        with reached(str(self.path)):
            return self._zip.read(name)

    def _check(self, entry: zipfile.ZipInfo) -> None:
        try:
            check_name(entry.orig_filename)
        except DamageError as error:
            self._refuse(str(error))
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or entry.flag_bits & _ENCRYPTED:
            self._refuse(f"{entry.filename!r} is a link, encrypted, or no plain file")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            self._refuse(f"{entry.filename!r} is compressed; pack again with ss4d pack")
        if entry.filename in self._entries:
            self._refuse(f"it holds {entry.filename!r} twice")

    def _refuse(self, reason: str) -> NoReturn:
        raise StoreError(f"the archive {self.path} is not safe to read: {reason}")


class ArchiveParts(Parts):
    """The files of an artifact in an archive."""

    def __init__(self, archive: Archive, zarr_store: Store, prefix: str, scratch: Scratch) -> None:
        self._archive, self._zarr_store, self._prefix, self._scratch = archive, zarr_store, prefix, scratch

    def sizes(self, folder: str = "") -> dict[str, int]:
        names = self._archive.names(f"{self._prefix}/{folder}".rstrip("/") + "/")
        return {name.removeprefix(f"{self._prefix}/"): self._archive.size(name) for name in names}

    def read(self, name: str) -> bytes:
        return self._archive.read(f"{self._prefix}/{name}")

    def array(self, name: str) -> tuple[Store, str]:
        return self._zarr_store, f"{self._prefix}/{name}"

    def fetch(self, digests: Mapping[str, str]) -> dict[str, Path]:
        return self._scratch.fetch(self.read, digests, self._prefix)


class ArchivePlace(Place):
    """The artifacts of an archive, to be read only. Raises as `Archive` does."""

    def __init__(self, path: Path) -> None:
        self._archive = Archive(path)
        self._zarr_store = ZipStore(path, mode="r")
        self._scratch = Scratch()

    @property
    def location(self) -> str:
        """The path of the zip file."""
        return str(self._archive.path)

    def parts(self, ref: ArtifactRef) -> ArchiveParts | None:
        prefix = _prefix(ref)
        if not self._archive.names(f"{prefix}/"):
            return None
        return ArchiveParts(self._archive, self._zarr_store, prefix, self._scratch)

    def refs(self) -> Iterator[ArtifactRef]:
        found = {_ref(name) for name in self._archive.names(f"{STORE}/")}
        yield from sorted((ref for ref in found if ref is not None), key=str)

    def unexpected(self) -> list[str]:
        return [name for name in self._archive.names(f"{STORE}/") if _ref(name) is None]

    def modified(self, _artifact: ArtifactRef) -> float:
        """The archive's time, for all alike."""
        return self._archive.path.stat().st_mtime

    def now(self) -> float:
        return time.time()

    def staging(self) -> Path:
        self._refuse()

    def publish(self, _artifact: ArtifactRef, _folder: Path, _keep: Callable[[], bool]) -> None:
        self._refuse()

    def remove(self, _artifact: ArtifactRef) -> None:
        self._refuse()

    def note(self, _name: str, _text: str | None) -> None:
        self._refuse()

    def text_of(self, _name: str) -> None:
        return None

    def noted(self, _name: str) -> bool:
        return False

    def notes(self, _folder: str) -> dict[str, str]:
        return {}

    def sweep(self) -> None:
        self._scratch.sweep()

    def abandoned(self, _age: float) -> dict[str, int]:
        return {}

    def discard(self, _name: str) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise StoreError(f"{self.location} is an archive, which can only be read: give a folder or a URL")


def archive_name(ref: ArtifactRef, name: str) -> str:
    """What a file of an artifact is called in an archive."""
    return f"{_prefix(ref)}/{name}"


def _prefix(ref: ArtifactRef) -> str:
    return f"{STORE}/{ref.stage}/{ref.key[:2]}/{ref.key}.zarr"


def _ref(name: str) -> ArtifactRef | None:
    """The artifact that an entry belongs to; None if to none."""
    parts = name.split("/")
    ref = ref_of(parts[1], parts[3].removesuffix(".zarr")) if len(parts) > 4 else None
    return ref if ref is not None and name.startswith(f"{_prefix(ref)}/") else None
