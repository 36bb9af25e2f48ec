"""Writes files and folders so that a reader sees all of one or nothing, whenever the writer is killed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished-"  # starts the name of whatever is not to be read


def write_whole(file: Path, content: bytes, *, durable: bool = True) -> None:
    """Replaces `file` in one step; if `durable`, the content survives a loss of power, too."""
    draft = file.with_name(f"{UNFINISHED}{os.getpid()}-{file.name}")
    with draft.open("wb") as stream:
        stream.write(content)
        stream.flush()
        if durable:
            os.fsync(stream.fileno())
    draft.replace(file)
    if durable:
        _sync(file.parent)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `folder` when the block ends without an exception."""
    draft = folder.with_name(f"{UNFINISHED}{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    yield draft
    for path in draft.rglob("*"):
        _sync(path)
    _sync(draft)
    remove_folder(folder)
    draft.rename(folder)
    _sync(folder.parent)


def remove_folder(folder: Path) -> None:
    """Removes a folder if it exists, in such a way that no half of it keeps its name."""
    if folder.exists():
        doomed = folder.with_name(f"{UNFINISHED}old-{folder.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
        shutil.rmtree(doomed)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
