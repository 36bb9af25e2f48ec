"""The lines of a dataset's `runs.jsonl`: each carries a digest of itself and is on the disk before work goes on."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from ss4d.pipelines.dataset.layout import Dataset
from ss4d.storage.errors import NewerError
from ss4d.storage.files import appending, read_plain, sync
from ss4d.storage.manifest import locked
from ss4d.storage.seal import SEAL, is_whole, sealed

LOG = logging.getLogger("ss4d")
SCHEMA = 2  # lines of schema 1 carry no digest


@dataclass(frozen=True)
class Line:
    """A line: its number, from 1 on, and what it holds; None if it is damaged."""

    number: int
    data: Mapping[str, Any] | None


def append_line(dataset: Dataset, content: Mapping[str, Any]) -> None:
    """Appends a line, which is on the disk when this returns.

    Raises:
        OSError: if it cannot be written.
    """
    plain = json.loads(json.dumps({"schema": SCHEMA, **content}))
    with locked(dataset.lock("runs")):
        with appending(dataset.launches) as text:
            file = text.buffer
            _mend_end(file)
            file.write(json.dumps(sealed(plain)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync(dataset.folder)


def _mend_end(file: BinaryIO) -> None:
    """Cuts off the start of a line that a kill left at the end: who wrote it never went on."""
    file.seek(0)
    rest = file.read().rpartition(b"\n")[2]
    if rest and _parsed(rest) is None:
        file.truncate(file.tell() - len(rest))
    elif rest:
        file.write(b"\n")


def read_lines(dataset: Dataset) -> list[Line]:
    """The lines, the oldest first; empty ones count, but are left out. A damaged one is told in the log, too.

    Raises:
        NewerError: if a newer version of the program wrote one.
        OSError: if they cannot be read.
    """
    try:
        texts = read_plain(dataset.launches).split(b"\n")
    except FileNotFoundError:
        return []
    lines = [Line(number, _parsed(text)) for number, text in enumerate(texts, 1) if text.strip()]
    for line in lines:
        if line.data is None:
            LOG.warning("line %d of %s is damaged, and skipped", line.number, dataset.launches)
        elif line.data.get("schema", 1) > SCHEMA:
            raise NewerError(
                f"line {line.number} of {dataset.launches} was written by a newer version of this program (schema "
                f"{line.data['schema']}, this one knows {SCHEMA}); upgrade to use this dataset"
            )
    return lines


def _parsed(text: bytes) -> Mapping[str, Any] | None:
    """What a line holds; None if that is not what was written."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or type(data.get("schema", 1)) is not int:
        return None
    if data.get("schema", 1) <= SCHEMA and (SEAL in data or data.get("schema") == SCHEMA):
        return data if is_whole(data) else None
    return data
