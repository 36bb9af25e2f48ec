"""Durable file operations the store is built of: whole JSON files, links, syncing, and owned temporary folders."""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import psutil

from ss4d.storage.errors import DamageError, StoreError

_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_CLONE = 0x40049409  # FICLONE of ioctl_ficlone(2): btrfs, XFS and others
_NO_CLONE = {errno.EXDEV, errno.EPERM, errno.EINVAL, errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.ETXTBSY}
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
_TEMPORARY = ".tmp"
BOOT = Path("/proc/sys/kernel/random/boot_id")
_OWNED = re.compile(r"[0-9a-f]{16}-(?P<started>\d+)-(?P<pid>\d+)-(?P<host>.+)")


def in_utf8(text: str) -> str:
    """A text that UTF-8 can say: of a file's name that is not UTF-8, the odd bytes as Python's escapes."""
    return text.encode(errors="backslashreplace").decode()


def write_json(path: Path, data: object) -> None:
    """Writes `data` at `path` as `write_bytes` does, with all texts as `in_utf8` has them.

    Raises:
        OSError: if it cannot be written; `path` is then as it was.
        TypeError, ValueError: if `data` is not JSON, NaN included.
    """
    write_bytes(path, (json.dumps(_all_in_utf8(data), indent=2, allow_nan=False) + "\n").encode())


def _all_in_utf8(data: object) -> object:
    if isinstance(data, str):
        return in_utf8(data)
    if isinstance(data, Mapping):
        return {_all_in_utf8(name): _all_in_utf8(value) for name, value in data.items()}
    return [_all_in_utf8(value) for value in data] if isinstance(data, list | tuple) else data


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file so that at any instant, power failures included, the old or the new one is there whole.

    Raises:
        OSError: if it cannot be written; `path` is then as it was.
    """
    with replacing(path) as file:
        file.write(data)


def write_once(path: Path, data: bytes) -> None:
    """Writes a file unless there is one; of several processes that do, one succeeds.

    Raises:
        OSError: if it cannot be written.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when the block ends without an error.

    Raises:
        OSError: if it cannot be written; `path` is then as it was.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)  # the name that the caller knows
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: if it cannot be read, such as FileNotFoundError.
        StoreError: if it is not JSON, which no number beyond all floats is either: `write_json` could not write it.
    """
    try:
        return json.loads(read_plain(path), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged, it is not JSON ({error}); delete it and run again") from error


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is no number")
    return number


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`: a hard link, or a copy where links are not supported.

    An existing `target` is replaced at once. A hard link shares its bytes with the store: do not write into it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(target)
    try:
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            shutil.copyfile(source, temporary)
            sync(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)  # replacing a file by another link to it does nothing


def copy_file(source: Path, target: Path) -> None:
    """Makes `target` a file with the bytes of `source`, which share the disk until one is written, where it can do so.

    It has the time of `source`, too, by which `is_copy` knows it. An existing `target` is replaced at once.

    Raises:
        OSError: if it cannot be written; `target` is then as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with reading(source) as original, replacing(target) as copy:
        try:
            fcntl.ioctl(copy.fileno(), _CLONE, original.fileno())
        except OSError as error:
            if error.errno not in _NO_CLONE:
                raise
            shutil.copyfileobj(original, copy, 1 << 20)
        copy.flush()
        found = os.fstat(original.fileno())
        os.utime(copy.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))


def is_copy(source: Path, target: Path) -> bool:
    """Whether `copy_file` made `target` of `source`, and nobody has changed either since; no hard link is one."""
    try:
        one, other = source.stat(), target.lstat()
    except FileNotFoundError:
        return False
    same = (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
    return same and stat.S_ISREG(other.st_mode) and not os.path.samestat(one, other)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BufferedReader]:
    """A plain file, open to be read; a pipe or a device in its place, which might never end, is refused.

    Raises:
        OSError: if it cannot be read, or is no plain file.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        yield file


def appending(path: Path) -> TextIO:
    """A plain file, made if missing, open to be read and appended to; a link in its place is not written through.

    Raises:
        OSError: if it cannot be opened, or is a link, a pipe or a device.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            error.strerror = "it is a link, and would be written through; remove it"
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file; remove it", str(path))
    return os.fdopen(descriptor, "a+", encoding="utf-8", errors="backslashreplace")


def read_plain(path: Path) -> bytes:
    """The content of a plain file. Raises as `reading` does."""
    with reading(path) as file:
        return file.read()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a plain file's content, in hexadecimal digits. Raises as `reading` does."""
    with reading(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Waits until a file, or the list of names in a folder, is on the disk.

    Some file systems, of networks for example, cannot do so with folders; they order the changes of names themselves.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Waits until every file and folder below `folder`, and itself, is on the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def listed(folder: Path) -> list[str]:
    """The names in a folder, in order; none if there is no such folder."""
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def check_name(name: str) -> str:
    """The relative path `name`, if it stays in the folder it is put in, on any system.

    Raises:
        DamageError: if it is absolute, goes up, or has parts that some system reads otherwise.
    """
    if any(part in ("", ".", "..") for part in name.split("/")) or re.search(r"[\\:\x00-\x1f]", name):
        raise DamageError(f"the name {name!r} leads somewhere else")
    return name


def real_path(path: Path) -> Path:
    """An absolute path without links; of links in a circle, that has some left, where `Path.resolve` may raise."""
    return Path(os.path.realpath(path))


def leads_out(folder: Path, name: str) -> bool:
    """Whether a relative path would leave the folder that it is put in: by its parts, or through a link on the way.

    The folder itself may be a link, and so may what the path ends at.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        return True
    return any(folder.joinpath(*parts[:length]).is_symlink() for length in range(1, len(parts)))


def delete(path: Path) -> None:
    """Deletes a file, a link (not what it points to) or a folder, as far as possible.

    Used on temporary folders only, often while another error is on its way out, which must not be hidden; what
    stays behind is swept by a later process.
    """
    with contextlib.suppress(OSError):
        if path.is_symlink() or path.is_file():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)


def owned_name() -> str:
    """A new name for a temporary folder that tells who owns it: `<random>-<start of the process>-<pid>-<host>`.

    The owner stands in the name, so that a folder never exists without it.
    """
    pid = os.getpid()
    return f"{secrets.token_hex(8)}-{_own_start(pid)}-{pid}-{_host()}"


def is_orphan(name: str) -> bool:
    """Whether the process on this host that made a name with `owned_name` is gone. False for any other name."""
    match = _OWNED.fullmatch(name)
    if match is None or match["host"] != _host():
        return False
    try:
        process = psutil.Process(int(match["pid"]))
        # A number given to another process since; the margin is for clocks that are set meanwhile.
        reused = abs(_started(process) - int(match["started"])) > 200
        return reused or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


@cache
def _own_start(pid: int) -> int:
    """Of this process, cached since asking takes a while; takes its number, so that a forked child asks for itself."""
    return _started(psutil.Process(pid))


def _started(process: psutil.Process) -> int:
    """Hundredths of a second from the host's start to the process's: unlike the time of day, nobody sets it."""
    boot = psutil.boot_time()
    return round(100 * (process.create_time() - boot))


def _host() -> str:
    """Where process numbers mean the same: the host since it was started, or the container.

    Names are not enough, since hosts and containers can share one, nor are the numbers of containers on several hosts.
    """
    namespace = Path("/proc/self/ns/pid")
    scope = os.readlink(namespace) if namespace.is_symlink() else ""
    return re.sub(r"[^A-Za-z0-9.]+", "_", f"{socket.gethostname()} {_started_host()} {scope}").strip("_")


def _started_host() -> str:
    """A number of this host's own, another one each time that it is started; "" where the system has none."""
    with contextlib.suppress(OSError):
        return BOOT.read_text().strip()
    return ""


def sweep_temporary_files(folder: Path) -> None:
    """Deletes the files that dead processes of this host were about to give their names, anywhere below `folder`."""
    for path in folder.rglob(f".*{_TEMPORARY}"):
        if is_orphan(path.name[1:].removesuffix(_TEMPORARY)):
            delete(path)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{owned_name()}{_TEMPORARY}")
