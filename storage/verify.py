"""Checks that artifacts are, to the byte, what was committed: reads every file and decodes every chunk.

Artifacts of schema 1 carry no digest of their descriptions; of those, the chunks' checksums, the plain files' digests
and what the descriptions say of each other are checked.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from ss4d.storage.artifact import CHECKED, FILES_GROUP, files_digest, read_root
from ss4d.storage.codec import check_chunks, chunk_names, open_array, read_array
from ss4d.storage.errors import DamageError, NewerError, StoreError
from ss4d.storage.place import FILES, ROOT, Parts
from ss4d.storage.refs import ArtifactRef, ref_of
from ss4d.storage.store import ArtifactStore

_MOVED = f"{ROOT} or the order of its chunks is not what it was"  # every chunk is whole by itself


@dataclass(frozen=True)
class Findings:
    """What `verify` found.

    Attributes:
        num_artifacts: how many were checked.
        num_bytes: size of all files.
        damaged: what is wrong with each bad one.
        suspect: artifacts that may have been made from the content of a damaged one whose chunks are whole, but not
            its own: what was read of it by a version that did not compare it with its SHA-256. And from which.
        unreadable: those that a newer version wrote, and the sentence that says so.
        unexpected: names of files and folders that lie where only artifacts belong.
    """

    num_artifacts: int = 0
    num_bytes: int = 0
    damaged: dict[ArtifactRef, list[str]] = field(default_factory=dict)
    suspect: dict[ArtifactRef, ArtifactRef] = field(default_factory=dict)
    unreadable: dict[ArtifactRef, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)


def verify(store: ArtifactStore, progress: Callable[[int, int], None]) -> Findings:
    """Checks every artifact of a store.

    Args:
        store: where.
        progress: told how many artifacts are done, of how many.

    Raises:
        StoreError: if the store cannot be reached.
        OSError: if it cannot be read.
    """
    refs = list(store.refs())
    damaged, unreadable, num_bytes = {}, {}, 0
    for index, ref in enumerate(refs):
        num_bytes += store.size(ref)
        try:
            # What looks damaged may have been replaced, or taken away, while it was read.
            if problems(store, ref) and (still := problems(store, ref)):
                damaged[ref] = still
        except NewerError as error:
            unreadable[ref] = str(error)
        progress(index + 1, len(refs))
    silent = {ref for ref, found in damaged.items() if all(problem.endswith(_MOVED) for problem in found)}
    suspect = _made_from(store, refs, silent) if silent else {}
    return Findings(len(refs), num_bytes, damaged, suspect, unreadable, store.place.unexpected())


def _made_from(
    store: ArtifactStore, refs: Sequence[ArtifactRef], silent: Set[ArtifactRef]
) -> dict[ArtifactRef, ArtifactRef]:
    """What may have been made from the content of artifacts whose damage a reader that checks no SHA-256 cannot see."""
    inputs: dict[ArtifactRef, list[ArtifactRef]] = {}
    checked: set[ArtifactRef] = set()
    for ref in refs:
        try:
            attributes = store.open(ref).attributes
        except StoreError:  # named already
            continue
        known = attributes.get("inputs")
        pairs = known.items() if isinstance(known, dict) else ()
        inputs[ref] = [found for stage, key in pairs if (found := ref_of(stage, str(key))) is not None]
        if attributes.get(CHECKED) is True:
            checked.add(ref)
    suspect: dict[ArtifactRef, ArtifactRef] = {}
    waiting = list(silent)
    users: dict[ArtifactRef, list[ArtifactRef]] = {}
    for ref, made_from in inputs.items():
        for other in made_from:
            users.setdefault(other, []).append(ref)
    while waiting:
        origin = waiting.pop()
        for ref in users.get(origin, ()):
            # What checked its inputs read no damage; but what a suspect holds is what it was stored with.
            if ref not in suspect and ref not in silent and not (origin in silent and ref in checked):
                suspect[ref] = origin
                waiting.append(ref)
    return suspect


def problems(store: ArtifactStore, ref: ArtifactRef) -> list[str]:
    """What is wrong with an artifact, in a few words each; nothing if it is whole, or no longer there.

    Raises:
        NewerError: if a newer version of the program wrote it.
        StoreError: if the store cannot be reached.
    """
    try:
        parts = store.place.parts(ref)
        if parts is None:
            return []
        attributes = read_root(parts, ref)
    except DamageError as error:
        return [str(error)]
    names = list(parts.sizes())
    found, belongs = [], {ROOT}
    for name, listed in attributes["arrays"].items():
        inside = [other.removeprefix(f"{name}/") for other in names if other.startswith(f"{name}/")]
        belongs.update(f"{name}/{file}" for file in inside)
        found += [f"{name}: {problem}" for problem in _in_array(parts, name, listed, inside)]
    for name, listed in attributes["files"].items():
        belongs.add(f"{FILES}/{name}")
        found += _in_file(parts, f"{FILES}/{name}", listed)
    if attributes["files"] or f"{FILES}/{ROOT}" in names:
        belongs.add(f"{FILES}/{ROOT}")
        found += _in_file(parts, f"{FILES}/{ROOT}", {"sha256": hashlib.sha256(FILES_GROUP).hexdigest()})
    return found + [f"{name} does not belong to it" for name in names if name not in belongs]


def _in_file(parts: Parts, name: str, listed: Mapping[str, Any]) -> list[str]:
    try:
        data = parts.read(name)
    except DamageError as error:
        return [str(error)]
    return [] if hashlib.sha256(data).hexdigest() == listed.get("sha256") else [f"{name} is not what it was"]


def _in_array(parts: Parts, name: str, listed: Mapping[str, Any], files: Sequence[str]) -> list[str]:
    """Reads the files of an array once: into memory, where their digest is taken and their chunks are decoded."""
    memory = MemoryStore()
    digests = {}
    try:
        for file in files:
            data = parts.read(f"{name}/{file}")
            digests[file] = hashlib.sha256(data).hexdigest()
            sync(memory.set(file, default_buffer_prototype().buffer.from_bytes(data)))
        array = open_array(memory, "")
        check_chunks(array.shape, array.chunks, set(files))
    except DamageError as error:
        return [str(error)]
    described = {"shape": list(array.shape), "dtype": array.dtype.name, "chunks": list(array.chunks)}
    found = [f"its {k} is {v}, not {listed.get(k)}" for k, v in described.items() if v != listed.get(k)]
    chunks = chunk_names(array.shape, array.chunks)
    found += [f"{file} does not belong to it" for file in files if file not in chunks and file != ROOT]
    for chunk, part in chunks.items():
        try:
            read_array(array, part)
        except DamageError:
            found.append(f"{chunk} is not what it was")
    if not found and "sha256" in listed and files_digest(digests) != listed["sha256"]:
        found.append(f"its {_MOVED}")
    return found
