"""Finds the clips in a folder, by a pattern or in a table, and names them."""

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from ss4d.pipelines.dataset.layout import DESCRIPTION
from ss4d.pipelines.errors import ConfigError
from ss4d.stages.errors import InputError
from ss4d.stages.reading.series import STILLS
from ss4d.storage.manifest import read_columns

# The files that are clips in a folder; a pattern or a table may name other kinds, too.
VIDEOS = {".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf"}
VIDEOS |= {".ogv", ".ts", ".webm", ".wmv"}
IMAGES = STILLS - VIDEOS
TABLE = ".parquet"
SOURCE_COLUMNS = ("source", "path")
NAME = re.compile(r"\w[\w.-]*")
MAX_NAME = 120  # bytes of an id: a file name has 255, and logs add to it


@dataclass(frozen=True)
class Found:
    """A clip that was found.

    Attributes:
        path: absolute.
        name: that its id is made of: its path below the searched folder.
        tags: the folders that it lies in, or the tags of a table.
        id: from a table; None otherwise.
    """

    path: str
    name: str
    tags: str = ""
    id: str | None = None


@dataclass
class Finding:
    """The clips that were found, in order, and the number of skipped files of other kinds, by suffix."""

    clips: list[Found] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def find_clips(source: str) -> Finding:
    """The clips that `source` names.

    Args:
        source: a folder, to be searched at any depth for video files and for folders of images; a pattern such as
            "videos/**/*.mp4", whose matches are all taken; or a Parquet table with a column `source` or `path`, whose
            relative paths count from where it lies, and perhaps `id` and `tags`.

    Raises:
        ConfigError: there is no clip, or the table lacks a column or a value.
        InputError: a folder cannot be read.
        StoreError, OSError: the table cannot be read.
    """
    if os.path.isdir(source):
        finding = _in_folder(os.path.abspath(source))
    elif os.path.isfile(source):
        finding = Finding(_in_table(Path(source)) if source.endswith(TABLE) else [_named(os.path.abspath(source), "")])
    elif glob.has_magic(source):
        finding = Finding(_matches(source))
    else:
        what = "is neither a file nor a folder" if os.path.lexists(source) else "does not exist"
        raise ConfigError(f"{source} {what}: give a folder, a pattern in quotes, or a Parquet table")
    if not finding.clips:
        raise ConfigError(
            f"{source} holds no clip: a clip is a video file ({', '.join(sorted(VIDEOS))}) or a folder of images; name "
            "files of other kinds with a pattern"
        )
    return finding


def is_id(text: object) -> bool:
    """Whether it can be the id of a clip, which names files."""
    longest = MAX_NAME + 1 + hashlib.sha256().digest_size * 2  # as `new_id` makes it
    return isinstance(text, str) and NAME.fullmatch(text) is not None and len(text.encode()) <= longest


def new_id(name: str, taken: Container[str]) -> str:
    """An id made of a name: valid as a file name on any system, and not in `taken`, which is in lower case."""
    plain = re.sub(r"[^\w.-]+", "_", name).lstrip("._-").rstrip("._") or "clip"
    short = plain.encode()[:MAX_NAME].decode(errors="ignore")
    if short == plain and plain.casefold() not in taken:
        return plain
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()
    candidates = (f"{short}-{digest[:length]}" for length in (8, 16, 64))
    return next(candidate for candidate in candidates if candidate.casefold() not in taken)


def _in_folder(root: str) -> Finding:
    finding = Finding()
    for folder, names in _folders(root):
        videos = [name for name in names if _suffix(name) in VIDEOS]
        images = [name for name in names if _suffix(name) in IMAGES]
        finding.clips += [_named(os.path.join(folder, name), root) for name in videos]
        if images and not videos:  # images beside videos are taken for thumbnails
            finding.clips.append(_named(folder, root))
        used = {*videos, *([] if videos else images)}
        finding.skipped.update(_suffix(name) or "no suffix" for name in names if name not in used)
    finding.clips.sort(key=lambda clip: clip.path)
    return finding


def _folders(root: str) -> Iterator[tuple[str, list[str]]]:
    """Each folder and the names of its files; hidden ones and datasets are skipped."""
    seen = set()
    for folder, folders, names in os.walk(root, onerror=_refuse, followlinks=True):
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in seen or DESCRIPTION in names:  # a link may lead back to a parent
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield folder, sorted(name for name in names if not name.startswith("."))


def _refuse(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename} cannot be read ({error.strerror}); make it readable or leave it out") from error


def _matches(pattern: str) -> list[Found]:
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = os.path.abspath(os.path.join(*parts[:fixed]) if fixed else ".")
    return [_named(os.path.abspath(path), root) for path in sorted(glob.glob(pattern, recursive=True))]


def _named(path: str, root: str) -> Found:
    """The clip at a path, named and tagged by where it lies below `root`."""
    relative = os.path.relpath(path, root) if root and path != root else os.path.basename(path)
    name = relative if os.path.isdir(path) else os.path.splitext(relative)[0]
    return Found(path, name, ",".join(Path(relative).parent.parts))


def _in_table(path: Path) -> list[Found]:
    columns = read_columns(path, (*SOURCE_COLUMNS, "id", "tags"))
    column = next((name for name in SOURCE_COLUMNS if name in columns), None)
    if column is None:
        raise ConfigError(f"{path} must have a column 'source' or 'path' with the clips' files")
    sources = columns[column]
    ids, tags = (columns.get(name, [None] * len(sources)) for name in ("id", "tags"))
    found = []
    for index, (source, clip, tag) in enumerate(zip(sources, ids, tags, strict=True)):
        if not isinstance(source, str) or not source:
            raise ConfigError(f"row {index} of {path} has no path in {column!r}, but {source!r}")
        if clip is not None and not (NAME.fullmatch(str(clip)) and len(str(clip).encode()) <= MAX_NAME):
            raise ConfigError(
                f"row {index} of {path} has the id {clip!r}; an id names files: letters, digits, '.', '_' and '-', the "
                f"first of them neither '.' nor '-', at most {MAX_NAME}"
            )
        file = os.path.abspath(path.parent / source)
        name = os.path.splitext(os.path.basename(file))[0]
        found.append(Found(file, name, _tags(tag), None if clip is None else str(clip)))
    return found


def _tags(value: object) -> str:
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
