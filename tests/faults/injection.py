"""Calls that fail: the n-th one that reaches files below some folders, or an object store, and maybe all after it."""

import builtins
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import obstore
from obstore.exceptions import GenericError

Fault = Literal["EIO", "ENOSPC", "short", "refused", "unanswered"]
READS = ("stat", "lstat", "listdir", "scandir", "readlink")
CHANGES = ("mkdir", "rename", "replace", "link", "unlink", "remove", "rmdir", "fsync", "utime", "chmod", "truncate")
# As Zarr reads, too.
REQUESTS = ("put", "get", "head", "delete", "list", "list_with_delimiter", "get_async", "get_range_async", "head_async")


@dataclass
class Faults:
    """Counts the calls of this process that a fault may meet, and lets the chosen ones fail.

    Args:
        folders: files elsewhere are not counted.
        fault: an error of the system; "short", a call that does a part of what it was asked for, which is no error;
            "refused", a request that is not done; "unanswered", one that is done and answered with an error.
        first: the number of the call that fails, counted from 1; 0 for none.
        lasting: whether all after it fail as well.
    """

    folders: Sequence[Path]
    fault: Fault
    first: int = 0
    lasting: bool = False
    count: int = field(default=0, init=False)
    sites: list[int] = field(default_factory=list, init=False)  # of each call, if none fails: the lines that led to it

    def install(self) -> None:
        """From here on, calls are counted, in all threads."""
        if self.fault in ("refused", "unanswered"):
            for name in REQUESTS:
                setattr(obstore, name, self._request(getattr(obstore, name), name.endswith("_async")))
            return
        if self.fault != "short":
            for name in (*(READS if self.fault == "EIO" else ()), *CHANGES):
                setattr(os, name, self._call(getattr(os, name)))
        faults = self

        class Raw(io.FileIO):
            """A file whose reads and writes are counted, if it lies in one of the folders."""

            def readinto(self, buffer: Any) -> int | None:  # type: ignore[override]
                view = memoryview(buffer).cast("B")
                return super().readinto(view[: faults._part(len(view), "EIO")])

            def readall(self) -> bytes:
                pieces = []
                while piece := self.read(1 << 16):
                    pieces.append(piece)
                return b"".join(pieces)

            def read(self, size: int | None = -1) -> bytes | None:
                return self.readall() if size is None or size < 0 else super().read(faults._part(size, "EIO"))

            def write(self, data: Any) -> int | None:
                view = memoryview(data).cast("B")
                return super().write(view[: faults._part(len(view), "EIO", "ENOSPC")])

        plain = io.open

        @wraps(plain)
        def opened(file: Any, mode: str = "r", buffering: int = -1, *words: Any, **named: Any) -> Any:
            if isinstance(file, int) or not faults._counts(file) or named.get("opener"):
                return plain(file, mode, buffering, *words, **named)
            faults._part(1, "EIO", *(("ENOSPC",) if set(mode) & set("wxa+") else ()))
            raw = Raw(file, mode.replace("b", "").replace("t", ""))
            if buffering == 0:
                return raw
            kinds = {"r": io.BufferedReader, "w": io.BufferedWriter, "x": io.BufferedWriter, "a": io.BufferedWriter}
            kind = io.BufferedRandom if "+" in mode else kinds[mode.replace("b", "").replace("t", "")[0]]
            binary = kind(raw)
            return binary if "b" in mode else io.TextIOWrapper(binary, *words, **named)

        builtins.open = io.open = opened

    def _counts(self, path: Any) -> bool:
        """Descriptors, and relative paths, which lie in a folder that is being deleted, count."""
        if isinstance(path, int):
            return True
        name = os.fsdecode(path)
        return not os.path.isabs(name) or any(name.startswith(f"{folder}/") for folder in self.folders)

    def _fails(self) -> bool:
        self.count += 1
        if self.first == 0:
            self.sites.append(hash(tuple(_lines(sys._getframe(1)))))
        return self.first != 0 and (self.count == self.first or (self.lasting and self.count > self.first))

    def _part(self, size: int, *faults: Fault) -> int:
        """How much of a read or write is done; raises the error if it is one of those that such a call can give."""
        if self.fault == "short":
            return max(size // 2, 1) if size > 1 and self._fails() else size
        if self.fault in faults and self._fails():
            raise OSError(getattr(errno, self.fault), os.strerror(getattr(errno, self.fault)))
        return size

    def _call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:
            if arguments and self._counts(arguments[0]) and self._fails():
                raise OSError(getattr(errno, self.fault), os.strerror(getattr(errno, self.fault)), arguments[0])
            return function(*arguments, **named)

        return counted

    def _request(self, function: Callable[..., Any], waits: bool) -> Callable[..., Any]:
        error = GenericError("the connection was lost on its way")

        @wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:
            fails = self._fails()
            if fails and self.fault == "refused":
                raise error
            answer = function(*arguments, **named)
            if fails:
                raise error
            return answer

        @wraps(function)
        async def awaited(*arguments: Any, **named: Any) -> Any:
            fails = self._fails()
            if fails and self.fault == "refused":
                raise error
            answer = await function(*arguments, **named)
            if fails:
                raise error
            return answer

        return awaited if waits else counted


def _lines(frame: FrameType | None) -> Iterator[tuple[str, int]]:
    """What calls, and what calls that, and so on."""
    while frame is not None:
        yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
