"""What the boxes of an MP4 file declare: FFmpeg makes a table of all samples, however many, before it reads one."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from ss4d.stages.errors import InputError

FIRST = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof", b"pnot", b"uuid"}
CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex"}
CONTAINERS |= {b"udta", b"edts", b"dinf", b"tref", b"gmhd", b"sinf", b"schi"}
SAMPLE_FIELDS = 0xF00  # flags of a `trun` box whose samples have entries of their own
DEEPEST = 16


@dataclass(frozen=True)
class _Box:
    kind: bytes
    begin: int  # of its content
    end: int


def check_samples(file: IO[bytes], name: str) -> None:
    """Raises InputError for an MP4 that declares more samples than it has bytes: a kilobyte could stand for gigabytes.

    Args:
        file: of any kind; left at its beginning.
        name: of it, for the sentence.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(4)
    declared = sum(_samples(file, box) for box in _boxes(file, 0, size, 0)) if file.read(4) in FIRST else 0
    file.seek(0)
    if declared > size:
        raise InputError(
            f"{name} declares {declared:,} samples in {size:,} bytes, so it is damaged; give a whole file."
        )


def _boxes(file: IO[bytes], begin: int, end: int, depth: int) -> Iterator[_Box]:
    """The boxes in a part of a file, those in others after these."""
    while begin + 8 <= end:
        file.seek(begin)
        header = file.read(16)
        length, kind, content = int.from_bytes(header[:4], "big"), header[4:8], begin + 8
        if length == 1:
            length, content = int.from_bytes(header[8:16], "big"), begin + 16
        close = min(begin + length, end) if length else end
        if close <= begin:  # damaged: shorter than its own header
            return
        yield _Box(kind, content, close)
        if kind in CONTAINERS and depth < DEEPEST:
            yield from _boxes(file, content, close, depth + 1)
        begin = close


def _samples(file: IO[bytes], box: _Box) -> int:
    """How many samples a box declares without an entry for each."""
    file.seek(box.begin)
    head = file.read(12)
    if box.kind in (b"stsz", b"stz2"):  # version and flags, size of all samples, count
        return int.from_bytes(head[8:12], "big")
    if box.kind == b"trun" and not int.from_bytes(head[:4], "big") & SAMPLE_FIELDS:  # flags, count
        return int.from_bytes(head[4:8], "big")
    return 0
