"""Keeps two runs of one name and different settings from writing into one folder at the same time."""

import errno
import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ss4d.pipelines.errors import ConfigError

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
    path = folder.parent / LOCKS / folder.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            if _got(file, fcntl.LOCK_EX):  # nobody else is here
                file.truncate(0)
                file.write(settings)
                file.flush()
            refused = not _got(file, fcntl.LOCK_SH) or _text(file) != settings
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


def _got(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
