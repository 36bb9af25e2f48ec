"""A sample that case after case may spoil: what one has changed is put right again, and the rest stays as it is."""

import filecmp
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

# Clocks of file systems tick this seldom: a file that was changed so shortly before it was looked at may have been
# changed again without a sign.
TICK = 100_000_000  # nanoseconds
State = tuple[int, int, int, int, int]


class ReusedSample:
    """A working copy of a sample.

    Args:
        whole: the sample, which nobody changes.
        used: where the working copy is; made by `put_right`, and may be moved from there and back.
    """

    def __init__(self, whole: Path, used: Path) -> None:
        self._whole, self._used = whole, used
        self._wanted = dict(_entries(whole))
        self._known: dict[str, State] = {}  # of files that are as they should be

    def put_right(self) -> None:
        """Makes the working copy the same as the sample: names, kinds, bytes, modes and times of files."""
        if self._used.is_symlink() or not self._used.is_dir():
            self._used.unlink(missing_ok=True)
            self._used.mkdir(parents=True)
        found = dict(_entries(self._used))
        for name in sorted(found, reverse=True):  # what is in a folder before it
            wanted = self._wanted.get(name)
            if wanted is None or stat.S_IFMT(wanted.st_mode) != stat.S_IFMT(found[name].st_mode):
                _delete(self._used / name)
                del found[name]
        for name, wanted in sorted(self._wanted.items()):
            if stat.S_ISDIR(wanted.st_mode):
                (self._used / name).mkdir(exist_ok=True)
            elif name not in found or not self._is_right(name, found[name]):
                (self._used / name).unlink(missing_ok=True)
                shutil.copy2(self._whole / name, self._used / name, follow_symlinks=False)
        settled = time.time_ns() - TICK
        states = ((name, _state(found)) for name, found in _entries(self._used))
        self._known = {name: state for name, state in states if max(state[3:]) < settled}

    def _is_right(self, name: str, found: os.stat_result) -> bool:
        if self._known.get(name) == _state(found):
            return True
        wanted = self._wanted[name]
        same = (wanted.st_mode, wanted.st_size, wanted.st_mtime_ns) == (found.st_mode, found.st_size, found.st_mtime_ns)
        return same and stat.S_ISREG(found.st_mode) and filecmp.cmp(self._whole / name, self._used / name, False)


def _entries(top: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The relative names of all below a folder; links are not followed."""
    waiting, start = [str(top)], len(str(top)) + 1
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry.path[start:], entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def _state(found: os.stat_result) -> State:
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()
