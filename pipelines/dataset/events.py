"""The events of a dataset: append-only files of JSON lines, one file for each process that writes.

The first line of a file names its process and versions; every other line is an `Attempt`. No process writes into
the file of another, so any number of hosts can share a folder.
"""

import hashlib
import json
import logging
import os
import re
import socket
import time
from collections.abc import Container, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from ss4d.pipelines.seed import DEFAULT_SEED
from ss4d.storage.errors import NewerError
from ss4d.storage.files import listed, reading

LOG = logging.getLogger("ss4d")
SCHEMA = 1
BATCH = 1 << 20  # bytes of lines read at a time, so that a long history needs little memory
_CLIP = re.compile(rb'\{"clip": "((?:[^"\\]|\\.)*)"')  # the start of a line that `EventWriter` writes
State = Literal["done", "reused", "failed", "forgiven", "gone", "missed"]
Cause = Literal["input", "transient", "killed", "numbers", "program"]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt to make one artifact of one clip; or that its failures were cleared, or the artifact deleted.

    Attributes:
        clip: its id in the manifest; "" for an artifact that is deleted.
        stage: its name; "" for a failure outside of any stage, such as in a worker that died before it reported one.
        key: of the stage's artifact.
        state: how it ended; "forgiven" clears all earlier failures at that key; "gone" says that the artifact was
            deleted, and so does "missed", after which the next run makes it again even if all that follows is there.
        time: when it ended, UTC, as ISO 8601 has it.
        seconds: how long it took.
        peak_memory: of the whole process, in bytes.
        number: of the attempt at this key, counted from 1.
        error: an exception's name, or TimeLimit, MemoryLimit or WorkerDied.
        message: what it said.
        cause: bad input, something transient, a worker that died or was killed, a result that is
            no numbers, or a defect of the program.
        worker: host:pid.
        seed: of the run.
        versions: hash of the versions in the file's first line, see `version_hash`.
        measures: what the stage measured, see `ss4d.pipelines.measures`.
        deletions: how many there had been in the store when it was looked at before the attempt; or the number of the
            one that deleted the artifact. Clocks of hosts do not tell which was first, this does; 0 in events of
            earlier versions.
    """

    clip: str
    stage: str
    key: str
    state: State
    time: str
    seconds: float = 0
    peak_memory: int = 0
    number: int = 1
    error: str | None = None
    message: str | None = None
    cause: Cause | None = None
    worker: str = ""
    seed: int = DEFAULT_SEED
    versions: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)
    deletions: int = 0


class _Header(BaseModel):
    """The first line of a file."""

    schema_version: int = Field(alias="schema")
    versions: dict[str, str]


_ATTEMPT = TypeAdapter(Attempt)
_LARGEST = 2**63  # that SQLite can hold


def now() -> str:
    """The current time as events have it: UTC, ISO 8601, to the millisecond, so that texts sort by time."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def worker_name() -> str:
    """The name of this process in events: host:pid."""
    return f"{socket.gethostname()}:{os.getpid()}"


def version_hash(versions: Mapping[str, str]) -> str:
    """A short hash of a set of versions."""
    return hashlib.sha256(json.dumps(versions, sort_keys=True).encode()).hexdigest()[:12]


class EventWriter:
    """Appends to a new file of its own in a folder; `with EventWriter(dataset.events, versions()) as events`.

    Args:
        folder: the dataset's folder of events.
        versions: those of Python and the packages.

    Attributes:
        path: of the file.

    Raises:
        OSError: if it cannot be written.
    """

    def __init__(self, folder: Path, versions: Mapping[str, str]) -> None:
        folder.mkdir(exist_ok=True)
        stem = _stem(socket.gethostname(), str(os.getpid()))
        self.path = folder / f"{stem}{time.time_ns()}.jsonl"
        self._file = self.path.open("xb")
        self.versions = version_hash(versions)
        self._append({"schema": SCHEMA, "worker": worker_name(), "started": now(), "versions": dict(versions)})

    def write(self, attempt: Attempt) -> None:
        """Appends a line, which other processes can read at once.

        Raises:
            OSError: if it cannot be written.
        """
        line = asdict(attempt)
        if not attempt.deletions:  # so that earlier versions can read it
            del line["deletions"]
        self._append(line)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()


def event_files(folder: Path, host: str, pid: str) -> list[Path]:
    """The files that a process has written."""
    stem = _stem(host, pid)
    return [folder / name for name in listed(folder) if name.startswith(stem)]


def _stem(host: str, pid: str) -> str:
    """The start of the names of a process's files."""
    return f"{re.sub(r'[^A-Za-z0-9.]+', '_', host)}-{pid}-"


@dataclass(frozen=True)
class Batch:
    """Some lines of one file.

    Attributes:
        file: its name.
        end: the offset behind them, in bytes.
        attempts: in order.
        versions: by their hash, from the file's first line if it is among them.
    """

    file: str
    end: int
    attempts: list[Attempt]
    versions: Mapping[str, Mapping[str, str]]


def read_events(folder: Path, offsets: Mapping[str, int], clips: Container[str] | None = None) -> Iterator[Batch]:
    """The events behind the offsets, file by file; a last line that is not complete yet is left for later.

    A damaged line, as after a power failure, is skipped with a warning: artifacts decide what is done.

    Args:
        folder: of the events.
        offsets: bytes of each file to skip, by its name.
        clips: only events of these and of no clip, which is much faster if they are few; None for all.

    Raises:
        NewerError: if a newer version wrote a file.
        OSError: if one cannot be read.
    """
    for name in listed(folder):
        if name.endswith(".jsonl"):
            yield from read_file(folder / name, offsets.get(name, 0), clips)


def read_file(path: Path, offset: int = 0, clips: Container[str] | None = None) -> Iterator[Batch]:
    """The events of one file behind the offset; takes and raises what `read_events` does."""
    with reading(path) as file:
        file.seek(offset)
        while lines := file.readlines(BATCH):
            if not lines[-1].endswith(b"\n"):
                lines.pop()  # being written, or cut off by a kill
            if not lines:
                return
            end = offset + sum(map(len, lines))
            attempts: list[Attempt] = []
            versions: dict[str, Mapping[str, str]] = {}
            for line in lines if clips is None else (line for line in lines if _is_of(line, clips)):
                match _parsed(line, path):
                    case Attempt() as attempt:
                        attempts.append(attempt)
                    case _Header(versions=packages):
                        versions[version_hash(packages)] = packages
            yield Batch(path.name, end, attempts, versions)
            offset = end


def _is_of(line: bytes, clips: Container[str]) -> bool:
    """Whether an event is of one of the clips or of none; True in doubt."""
    match = _CLIP.match(line)
    try:
        return match is None or not match[1] or json.loads(b'"%s"' % match[1]) in clips
    except ValueError:  # damaged: it is told when it is parsed
        return True


def _parsed(line: bytes, path: Path) -> Attempt | _Header | None:
    """An attempt, or the first line of the file; None, with a warning, if it is damaged."""
    try:
        if not line.startswith(b'{"schema"'):
            attempt = _ATTEMPT.validate_json(line, strict=True)
            if max(attempt.peak_memory, attempt.number, attempt.seed, attempt.deletions) < _LARGEST:
                return attempt
        elif (header := _Header.model_validate_json(line, strict=True)).schema_version > SCHEMA:
            raise NewerError(
                f"{path} was written by a newer version of this program (schema {header.schema_version}, this one "
                f"knows {SCHEMA}); upgrade to use this dataset"
            )
        else:
            return header
    except ValidationError:
        pass
    LOG.warning("%s has a damaged line, which is skipped: %.60r", path, line)
    return None
