"""Artifacts in an object store, such as S3, which has no renames: a small pointer makes a whole artifact visible.

    <prefix>/.attempts/<stage>/<key>/<attempt>/...    the files of an artifact, uploaded before its pointer
    <prefix>/<stage>/<first two digits>/<key>.json    the pointer, created only if there is none yet
    <prefix>/.notes/...                               notes

Writers that lose, or fail, delete their attempt; what a killed one leaves is `abandoned`.
"""

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
import obstore.store
from obstore.exceptions import AlreadyExistsError
from zarr.abc.store import Store
from zarr.storage import ObjectStore as ZarrObjects

from ss4d.storage.errors import DamageError, StoreError, reached
from ss4d.storage.files import check_name
from ss4d.storage.place import Parts, Place
from ss4d.storage.refs import ArtifactRef, ref_of
from ss4d.storage.scratch import Scratch

if TYPE_CHECKING:
    from obstore import ObjectMeta  # only its type stubs have it

_ATTEMPTS, _NOTES = ".attempts", ".notes"
_CLOCK = "clock"  # a note that is written to see what time it gets
_ENDPOINTS = ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
_UPLOADS = 8  # at once, as are downloads of notes


def is_url(location: str) -> bool:
    """Whether a location is a URL rather than a path."""
    return re.match(r"[a-z][a-z0-9+.-]*://", location) is not None


class ObjectParts(Parts):
    """The files of one attempt at an artifact."""

    def __init__(self, objects: obstore.store.ObjectStore, prefix: str, location: str, scratch: Scratch) -> None:
        self._objects, self._prefix, self._location, self._scratch = objects, prefix, location, scratch

    def sizes(self, folder: str = "") -> dict[str, int]:
        with reached(self._location):
            found = _list(self._objects, f"{self._prefix}/{folder}")
        return {path.removeprefix(f"{self._prefix}/"): meta["size"] for path, meta in sorted(found.items())}

    def read(self, name: str) -> bytes:
        try:
            with reached(self._location):
                return bytes(obstore.get(self._objects, f"{self._prefix}/{check_name(name)}").bytes())
        except FileNotFoundError as error:
            raise DamageError(f"its file {name!r} is missing") from error

    def array(self, name: str) -> tuple[Store, str]:
        return ZarrObjects(self._objects, read_only=True), f"{self._prefix}/{check_name(name)}"

    def fetch(self, digests: Mapping[str, str]) -> dict[str, Path]:
        return self._scratch.fetch(self.read, digests, self._prefix)


class ObjectPlace(Place):
    """A prefix in an object store.

    Args:
        objects: the store, rooted at the prefix.
        location: its URL, for messages.
    """

    def __init__(self, objects: obstore.store.ObjectStore, location: str) -> None:
        self._objects, self._location = objects, location
        self._scratch = Scratch()

    @classmethod
    def at(cls, url: str) -> "ObjectPlace":
        """The place at a URL, with credentials and endpoint from the usual variables, such as AWS_ACCESS_KEY_ID.

        Raises:
            StoreError: if no object store has such a URL.
        """
        endpoints = (os.environ.get(name, "") for name in _ENDPOINTS)
        try:
            with reached(url):
                # Without encryption only where the environment names such an endpoint.
                plain = any(endpoint.startswith("http://") for endpoint in endpoints)
                return cls(obstore.store.from_url(url, client_options={"allow_http": plain}), url)
        except ValueError as error:
            raise StoreError(f"{url} is no address of a store ({error}); use s3://, gs:// or az://") from error

    @property
    def location(self) -> str:
        """The URL."""
        return self._location

    def parts(self, ref: ArtifactRef) -> ObjectParts | None:
        prefix = self._attempt(ref)
        return None if prefix is None else ObjectParts(self._objects, prefix, self._location, self._scratch)

    def refs(self) -> Iterator[ArtifactRef]:
        for path in self._pointers():
            if (ref := _pointed(path)) is not None:
                yield ref

    def unexpected(self) -> list[str]:
        return [path for path in self._pointers() if _pointed(path) is None]

    def modified(self, ref: ArtifactRef) -> float:
        with reached(self._location):
            return obstore.head(self._objects, _pointer(ref))["last_modified"].timestamp()

    def now(self) -> float:
        """The server's."""
        self.note(_CLOCK, "")
        with reached(self._location):
            return obstore.head(self._objects, f"{_NOTES}/{_CLOCK}")["last_modified"].timestamp()

    def staging(self) -> Path:
        return self._scratch.new()

    def publish(self, ref: ArtifactRef, folder: Path, keep: Callable[[], bool]) -> None:
        attempt = f"{_ATTEMPTS}/{ref.stage}/{ref.key}/{secrets.token_hex(8)}"
        try:
            with reached(self._location):
                self._upload(folder, attempt)
        except FileNotFoundError as error:
            raise StoreError(f"the store {self._location} cannot be written: {_first_line(error)}") from error
        except BaseException:
            with suppress(StoreError):  # the first error is the one to raise; `ss4d gc` deletes what is left
                self._delete(attempt)
            raise
        # From here on the attempt may be the one that the pointer names, even if an error says that it is not.
        self._delete(self._point(ref, attempt, keep))

    def remove(self, ref: ArtifactRef) -> None:
        attempt = None
        with suppress(DamageError):  # `ss4d gc` finds the attempt that a damaged pointer named
            attempt = self._attempt(ref)
        with reached(self._location), suppress(FileNotFoundError):
            obstore.delete(self._objects, _pointer(ref))
        self._delete(attempt)

    def note(self, name: str, text: str | None) -> None:
        path = f"{_NOTES}/{check_name(name)}"
        with reached(self._location), suppress(FileNotFoundError):
            if text is None:
                obstore.delete(self._objects, path)
            else:
                obstore.put(self._objects, path, text.encode())

    def text_of(self, name: str) -> str | None:
        try:
            with reached(self._location):
                return bytes(obstore.get(self._objects, f"{_NOTES}/{check_name(name)}").bytes()).decode(
                    errors="replace"
                )
        except FileNotFoundError:
            return None

    def noted(self, name: str) -> bool:
        try:
            with reached(self._location):
                obstore.head(self._objects, f"{_NOTES}/{check_name(name)}")
        except FileNotFoundError:
            return False
        return True

    def notes(self, folder: str) -> dict[str, str]:
        top = f"{_NOTES}/{check_name(folder)}"
        with reached(self._location):
            names = [path.removeprefix(f"{_NOTES}/") for path in sorted(_list(self._objects, top))]
        with ThreadPoolExecutor(_UPLOADS) as pool:
            texts = pool.map(self.text_of, names)
            return {
                name.removeprefix(f"{folder}/"): text
                for name, text in zip(names, texts, strict=True)
                if text is not None  # else deleted meanwhile
            }

    def sweep(self) -> None:
        """Leaves attempts to `ss4d gc`, since finding them takes listing them all."""
        self._scratch.sweep()

    def abandoned(self, age: float) -> dict[str, int]:
        attempts: dict[str, list[ObjectMeta]] = {}
        with reached(self._location):
            for path, meta in _list(self._objects, _ATTEMPTS).items():
                attempts.setdefault("/".join(path.split("/")[:4]), []).append(meta)
        found = {}
        latest = self.now() - age if attempts else 0.0
        for name, objects in attempts.items():
            if max(meta["last_modified"].timestamp() for meta in objects) <= latest and self._is_lost(name):
                found[name] = sum(meta["size"] for meta in objects)
        return found

    def discard(self, name: str) -> None:
        if self._is_lost(name):
            self._delete(name)

    def _is_lost(self, attempt: str) -> bool:
        """Whether no pointer names an attempt."""
        _, stage, key, *_ = *attempt.split("/"), "", ""
        ref = ref_of(stage, key)
        try:
            return ref is None or self._attempt(ref) != attempt
        except DamageError:
            return True

    def _attempt(self, ref: ArtifactRef) -> str | None:
        """The attempt that the artifact's pointer names; None if there is no pointer.

        Raises:
            DamageError: if it is not as it was written, to the byte.
        """
        try:
            with reached(self._location):
                data = bytes(obstore.get(self._objects, _pointer(ref)).bytes())
        except FileNotFoundError:
            return None
        found = re.search(rf"{re.escape(_ATTEMPTS)}/{ref.stage}/{ref.key}/[0-9a-f]{{16}}".encode(), data)
        if found is None or data != _pointer_to(found[0].decode()):
            raise DamageError("its pointer is damaged")
        return found[0].decode()

    def _point(self, ref: ArtifactRef, attempt: str, keep: Callable[[], bool]) -> str | None:
        """Points the artifact to `attempt`, unless one is there to keep; gives the attempt that is no longer needed."""
        with reached(self._location):
            try:
                obstore.put(self._objects, _pointer(ref), _pointer_to(attempt), mode="create")
                return None
            except AlreadyExistsError:
                before = None
                with suppress(DamageError):
                    before = self._attempt(ref)
                if before == attempt:  # the answer to a first try was lost on its way
                    return None
                if keep():
                    return attempt
                obstore.put(self._objects, _pointer(ref), _pointer_to(attempt))
                return before

    def _upload(self, folder: Path, attempt: str) -> None:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        with ThreadPoolExecutor(_UPLOADS) as pool:
            names = {path: f"{attempt}/{path.relative_to(folder).as_posix()}" for path in files}
            futures = [pool.submit(obstore.put, self._objects, name, path) for path, name in names.items()]
            try:
                for future in futures:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()

    def _delete(self, attempt: str | None) -> None:
        if attempt is not None:
            with reached(self._location), suppress(FileNotFoundError):
                obstore.delete(self._objects, list(_list(self._objects, attempt)))

    def _pointers(self) -> Iterator[str]:
        with reached(self._location):
            top = obstore.list_with_delimiter(self._objects)
            yield from (meta["path"] for meta in top["objects"])
            for stage in sorted(set(top["common_prefixes"]) - {_ATTEMPTS, _NOTES}):
                yield from sorted(_list(self._objects, stage))


def _pointer(ref: ArtifactRef) -> str:
    return f"{ref.stage}/{ref.key[:2]}/{ref.key}.json"


def _pointed(path: str) -> ArtifactRef | None:
    """The artifact whose pointer lies at `path`; None if it is no pointer's place."""
    stage, _, rest = path.partition("/")
    ref = ref_of(stage, rest.rpartition("/")[2].removesuffix(".json"))
    return ref if ref is not None and _pointer(ref) == path else None


def _pointer_to(attempt: str) -> bytes:
    return (json.dumps({"artifact": attempt}) + "\n").encode()


def _list(objects: obstore.store.ObjectStore, prefix: str) -> "dict[str, ObjectMeta]":
    """Every object below a prefix, which is one of whole names."""
    return {meta["path"]: meta for batch in obstore.list(objects, prefix) for meta in batch}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
