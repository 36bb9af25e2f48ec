"""A home for caches where the user has none, as in a container that runs under a bare number."""

import os
import stat
import tempfile
from pathlib import Path


def provide_home() -> None:
    """Sets HOME where there is none, to a folder for temporary files that only this user can enter.

    Libraries keep their caches below it, and have errors of many kinds without it.
    """
    if os.environ.get("HOME") or os.path.expanduser("~") != "~":
        return
    os.environ["HOME"] = str(_own_folder())


def _own_folder() -> Path:
    """The same one each time, unless somebody else made it."""
    folder = Path(tempfile.gettempdir()) / f"ss4d-home-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077:
        return folder
    return Path(tempfile.mkdtemp(prefix="ss4d-home-"))
