"""A complete artifact as a reader has it, and the description at its root that says what belongs to it."""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr
from numpy.typing import NDArray

from ss4d.storage.codec import check_chunks, open_array, read_array
from ss4d.storage.errors import DamageError, NewerError, StoreError
from ss4d.storage.place import FILES, ROOT, Parts
from ss4d.storage.refs import ArtifactRef

SCHEMA_VERSION = 2  # of the layout in docs/store.md; raised when an older program could misread it
_DIGESTS_SINCE = 2  # artifacts of schema 1 carry no digests of descriptions
_BLANK = "0" * 64
CHECKED = "checked"  # an attribute: what it was made from was compared with its SHA-256 when it was read


def remedy(location: str) -> str:
    """What helps against damage in the store at a place, as the end of a sentence."""
    return f"`ss4d verify {shlex.quote(location)} --repair` deletes it, and the next run makes it again"


def group(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What Zarr keeps of a group, in its `zarr.json`."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def root_bytes(attributes: Mapping[str, Any]) -> bytes:
    """The root's `zarr.json`, with its own SHA-256 in it, taken while 64 zeros stand in the digest's place."""
    text = json.dumps(group({"digest": _BLANK, **attributes}), indent=2, allow_nan=False) + "\n"
    return text.replace(_BLANK, hashlib.sha256(text.encode()).hexdigest(), 1).encode()


# Makes a group of the folder of plain files, so that Zarr does not warn of an unknown object when it lists an artifact.
FILES_GROUP = (json.dumps(group({"meaning": "plain files, listed in the parent group"}), indent=2) + "\n").encode()


def read_root(parts: Parts, ref: ArtifactRef) -> dict[str, Any]:
    """The attributes of a complete artifact; cheap: it reads one small file.

    Raises:
        DamageError: if they are missing, unfinished, damaged or another artifact's.
        NewerError: if a newer version of the program wrote them.
    """
    data = parts.read(ROOT)
    try:
        attributes = json.loads(data)["attributes"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise DamageError("its description is damaged") from error
    if not isinstance(attributes, dict) or attributes.get("complete") is not True:
        raise DamageError("it has no completion mark")
    # The rule for the digest is the same in all versions, so that damage to the version's number is found, too.
    schema, digest = attributes.get("schema"), attributes.get("digest")
    if digest is not None and not _is_digest_of(digest, data):
        raise DamageError("its description is not what it was")
    if not isinstance(schema, int) or (schema >= _DIGESTS_SINCE and digest is None):
        raise DamageError("its description is damaged")
    if schema > SCHEMA_VERSION:
        raise NewerError(
            f"{ref} was written by a newer version of this program (store schema {schema}, this one knows up to "
            f"{SCHEMA_VERSION}); upgrade, or use another store"
        )
    if (attributes.get("stage"), attributes.get("key")) != (ref.stage, ref.key):
        raise DamageError("it is another artifact under this one's name")
    if not (_is_table(attributes.get("arrays")) and _is_table(attributes.get("files"))):
        raise DamageError("its description lacks the lists of arrays and files")
    return attributes


def files_digest(digests: Mapping[str, str]) -> str:
    """One SHA-256 for a folder: of what `sha256sum` prints of its files, in order of names."""
    lines = (f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class Artifact:
    """A complete artifact, read in parts as asked for; see `ArtifactStore.open`."""

    def __init__(self, ref: ArtifactRef, parts: Parts, attributes: dict[str, Any], location: str) -> None:
        self.ref = ref
        self.attributes = attributes
        self._parts = parts
        self._location = location

    def arrays(self) -> tuple[str, ...]:
        """The names of its arrays, in the order in which they were written."""
        return tuple(self.attributes["arrays"])

    def array(self, name: str) -> zarr.Array[Any]:
        """An array whose chunks are read when it is indexed, and then compared with their own checksums alone.

        Raises:
            StoreError: if there is no such array, or it is not as it was when committed.
        """
        return self._array(name, None)

    def _array(self, name: str, digests: dict[str, str] | None) -> zarr.Array[Any]:
        if name not in self.arrays():
            raise StoreError(f"{self.ref} has no array {name!r}; it has {', '.join(self.arrays()) or 'none'}")
        try:
            array = open_array(*self._parts.array(name), digests)
            listed = self.attributes["arrays"][name]
            wanted = listed.get("dtype"), listed.get("shape")
            if (array.dtype.name, list(array.shape)) != wanted:
                raise DamageError(f"it is {array.dtype} {array.shape}, not {wanted[0]} {wanted[1]}")
            check_chunks(array.shape, array.chunks, {key.removeprefix(f"{name}/") for key in self._parts.sizes(name)})
        except DamageError as error:
            raise self._damaged(f"{name}: {error}") from error
        return array

    def read(self, name: str) -> NDArray[Any]:
        """A whole array in memory, compared with the SHA-256 that it was committed with. Raises as `array` does.

        A checksum of its own shows that a chunk is whole, and not that it is this array's chunk in this place.
        """
        digests: dict[str, str] = {}
        array = self._array(name, digests)
        try:
            data = read_array(array)
        except DamageError as error:
            raise self._damaged(f"{name}: {error}") from error
        listed = self.attributes["arrays"][name]
        if "sha256" in listed and files_digest(digests) != listed["sha256"]:
            raise self._damaged(f"{name}: its chunks are not those that it was stored with")
        return data

    def read_file(self, name: str) -> bytes:
        """The content of a plain file, checked.

        Raises:
            StoreError: if there is no such file, or it is not as it was when committed.
        """
        listed = self.attributes["files"].get(name)
        if listed is None:
            raise StoreError(f"{self.ref} has no file {name!r}; it has {', '.join(self.attributes['files']) or 'none'}")
        try:
            data = self._parts.read(f"{FILES}/{name}")
        except DamageError as error:
            raise self._damaged(str(error)) from error
        if hashlib.sha256(data).hexdigest() != listed.get("sha256"):
            raise self._damaged(f"its file {name!r} is not what it was")
        return data

    def files(self) -> dict[str, Path]:
        """The plain files by their names, such as "frames/frame0001.ply". Do not write into them.

        Their content is checked. Of a store elsewhere they are copies, which stay as long as the process.

        Raises:
            StoreError: if one is missing, or is a link, or would lie outside the artifact.
        """
        return self._fetched(tuple(self.attributes["files"]))

    def file(self, name: str) -> Path:
        """One of the plain files, without the others, which a store elsewhere would have to send. Raises as `files`."""
        if name not in self.attributes["files"]:
            raise StoreError(f"{self.ref} has no file {name!r}; it has {', '.join(self.attributes['files']) or 'none'}")
        return self._fetched((name,))[name]

    def _fetched(self, names: Sequence[str]) -> dict[str, Path]:
        listed = self.attributes["files"]
        try:
            paths = self._parts.fetch({f"{FILES}/{name}": listed[name].get("sha256", "") for name in names})
        except DamageError as error:
            raise self._damaged(str(error)) from error
        return {name.removeprefix(f"{FILES}/"): path for name, path in paths.items()}

    def _damaged(self, reason: str) -> DamageError:
        return DamageError(f"{self.ref} is damaged: {reason}", remedy(self._location))


def _is_digest_of(digest: object, data: bytes) -> bool:
    if not isinstance(digest, str) or len(digest) != len(_BLANK):
        return False
    blank = data.replace(digest.encode(errors="replace"), _BLANK.encode(), 1)
    return hashlib.sha256(blank).hexdigest() == digest


def _is_table(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(row, dict) for row in value.values())
