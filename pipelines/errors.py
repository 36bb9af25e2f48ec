"""What goes wrong in a way a user can mend, and the sentence that says so; every other exception is a defect."""

import errno
from pathlib import Path

from ss4d.stages.errors import InputError, ModelError, TrainingError, ValueSpecError
from ss4d.storage.errors import StoreError


class ConfigError(ValueError):
    """A configuration cannot be used; the sentence names the key and what is allowed."""


class EngineError(RuntimeError):
    """The orchestration engine could not be started or lost its server."""


class PluginError(RuntimeError):
    """What a package adds to the program cannot be used, or failed; the sentence names the package."""


class WorkerError(RuntimeError):
    """A helping process died, which is nearly always the system's answer to too little memory."""


USER_ERRORS = (
    ConfigError,
    EngineError,
    InputError,
    ModelError,
    PluginError,
    StoreError,
    TrainingError,
    ValueSpecError,
    WorkerError,
)

READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
NUL = ("embedded null byte", "embedded null character")  # in a path: what Python says, and nothing else
FULL = {errno.ENOSPC, errno.EDQUOT}
NO_FOLDER = {errno.ENOTDIR, errno.EEXIST}  # the second is what the making of a folder answers


def explain(error: BaseException, folder: str = "--out") -> str | None:
    """One sentence for the user: what is wrong and what to do. None when the error is not theirs to mend.

    Args:
        error: what ended the command.
        folder: the argument that says where the command writes.
    """
    if isinstance(error, USER_ERRORS):
        return str(error)
    if is_out_of_memory(error):
        return "there is not enough memory for this clip: take fewer frames (--set input.count=16) or a larger machine"
    if isinstance(error, ValueError) and str(error) in NUL:
        return "a file that was read names a path with a NUL character, which no file system has: mend that file"
    if isinstance(error, OSError) and error.errno is not None:
        name = error.filename2 or error.filename  # of a renaming that failed, what was to be made
        where = f" ({name})" if name else ""
        if error.errno in FULL:
            return f"the disk is full{where}: free some space or choose another folder with {folder}"
        if error.errno in READ_ONLY:
            return f"the output folder cannot be written{where}: {error.strerror}; choose another with {folder}"
        if error.errno in NO_FOLDER and (file := _in_the_way(name)):
            return f"{file} is no folder, so nothing can be in it: choose another with {folder}"
        return f"{error.strerror}{where}"
    return None


def _in_the_way(name: object) -> Path | None:
    """The file, pipe or device that lies where a folder is needed for what has this name."""
    if not isinstance(name, str):
        return None
    return next((path for path in (Path(name), *Path(name).parents) if path.exists() and not path.is_dir()), None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a computation wanted more memory than there is, on the CPU or on a device."""
    # torch's allocators raise RuntimeErrors: of a type of its own on a GPU, told by its name to leave torch unimported.
    allocator = isinstance(error, RuntimeError) and (
        "can't allocate memory" in str(error) or type(error).__name__ == "OutOfMemoryError"
    )
    return allocator or isinstance(error, MemoryError)
