"""Keeps two runs of one name and different settings from writing into one folder at the same time."""

import errno
import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ss4d.pipelines.errors import ConfigError
from ss4d.storage.files import appending, leads_out

LOG = logging.getLogger("ss4d")
LOCKS = ".locks"  # beside the runs; a file for each name holds the settings of the run that goes on
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def only_settings(folder: Path, settings: str) -> Iterator[None]:
    """A context in which no run with other settings is in its own for the same folder, on whatever machine.

    Runs of the same settings make the same files, so they may be at it together. The system ends the context of a
    process that is killed.

    Args:
        folder: of the run.
        settings: a line that is another one for other results.

    Raises:
        ConfigError: if such a run is in progress.
        OSError: if the folder cannot be written.
    """
    with lock_file(folder.parent, f"{LOCKS}/{folder.name}") as file:
        try:
            refused = not agree(file, settings)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            LOG.warning("%s is on a file system without locks: start no two runs of this name at once", folder)
            refused = False
        if refused:
            raise ConfigError(
                f"another run of the name {folder.name}, with other settings, is in progress in {folder.parent}: wait "
                "for it, or give this one a name of its own with --name"
            )
        yield


def lock_file(folder: Path, name: str) -> IO[str]:
    """A file to lock and to agree on something, made if missing.

    Raises:
        ConfigError: if it would lie outside of the folder, since a link leads there.
        OSError: if it cannot be opened.
    """
    path = folder / name
    if leads_out(folder, name) or path.is_symlink():
        raise ConfigError(f"{path} would lie somewhere else, through a link on the way: remove that link")
    path.parent.mkdir(parents=True, exist_ok=True)
    return appending(path)


def agree(file: IO[str], text: str) -> bool:
    """Whether every other process that has agreed on something about a file, and still has it open, has `text`.

    If so, this one has agreed, too, as long as it has the file open.

    Raises:
        OSError: if it cannot be written, or the file system has no locks.
    """
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody else is here
        file.truncate(0)
        file.write(text)
        file.flush()
    fcntl.flock(file, fcntl.LOCK_SH)  # who has it alone has it for a moment
    if agreed_on(file) == text:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def agreed_on(file: IO[str]) -> str:
    """The text that processes have agreed on."""
    file.seek(0)
    return file.read()
