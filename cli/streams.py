"""The standard streams: messages that nobody can be shown end no work, and results that cannot be written are told."""

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class OutputError(Exception):
    """What a command prints cannot be written to the standard output.

    Attributes:
        unread: whether that is a pipe that nobody reads on, as in `ss4d config tiny | head -1`.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the standard output cannot be written: {error.strerror}")
        self.unread = isinstance(error, BrokenPipeError)


class _Results(io.FileIO):
    """The standard output. Its errors are not those of the folder that a command writes."""

    def write(self, data: "ReadableBuffer") -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error) from error


class _Messages(io.FileIO):
    """The error stream. Where it is full, or its terminal gone, work goes on; the exit code tells how it ended."""

    def write(self, data: "ReadableBuffer") -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def open_streams() -> None:
    """Replaces standard output and error stream by such streams; what is closed leads nowhere."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file that is opened would have its number, and be written to
            os.open(os.devnull, os.O_RDWR)  # has the lowest number that is free, which is this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = _text(_Results(1, "wb", closefd=False), sys.stdout)
    sys.stderr = _text(_Messages(2, "wb", closefd=False), sys.stderr)


def _text(raw: io.FileIO, before: TextIO | None) -> TextIO:
    """A text stream in the code of the one before; what that has no letters for is written as Python's escapes."""
    code = before.encoding if before else "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=code,
        errors="backslashreplace",
        line_buffering=raw.isatty() or raw.fileno() == 2,
    )
