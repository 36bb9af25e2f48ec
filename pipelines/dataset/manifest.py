"""The manifest of a dataset: a Parquet table with a row for each clip, readable or not."""

import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ss4d.pipelines.dataset.checks import check_at_least, check_seconds
from ss4d.pipelines.dataset.discover import Finding, find_clips, is_id, new_id
from ss4d.pipelines.dataset.layout import Dataset, create_dataset
from ss4d.pipelines.errors import ConfigError, WorkerError
from ss4d.pipelines.implementation import Deferred
from ss4d.pipelines.workers import results
from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig, input_digest
from ss4d.stages.processors import num_processors
from ss4d.stages.reading.counts import num_frames
from ss4d.storage.errors import StoreError
from ss4d.storage.files import in_utf8
from ss4d.storage.manifest import locked, read_rows, write_rows

if TYPE_CHECKING:
    from ss4d.stages.types import Progress

read_video = Deferred("ss4d.stages.video_io:read_video")  # with torch, which only who reads clips should wait for
SAVE_SECONDS = 20  # between two saves of the manifest while clips are read
_DIGEST = re.compile("[0-9a-f]{64}")
MOST_SECONDS = 300.0  # that one clip may take to be hashed and opened


@dataclass(frozen=True, kw_only=True)
class Row:
    """A clip in the manifest.

    Attributes:
        id: unique in the dataset, and valid as a file name.
        source: the video file or the folder of images, as an absolute path.
        sha256: of its content when it could be read last, see `ss4d.stages.input_files.input_digest`; None if it never
            could. What was made from it counts even while the input is away.
        bytes: of the file, or of the folder's files, then, as is all that follows but `error`.
        modified: time of its last change, in nanoseconds since 1970; with `bytes` it tells whether to read it again.
        frames: number of frames; 0 if unknown, as are width, height and fps.
        width: of a frame in pixels.
        height: of a frame in pixels.
        fps: frames per second; 24 if the input states none.
        tags: separated by commas: the folders that it was found in, or the tags of a table.
        error: why it cannot be read now; None if it can.
    """

    id: str
    source: str
    sha256: str | None
    bytes: int
    modified: int
    frames: int
    width: int
    height: int
    fps: float
    tags: str
    error: str | None


@dataclass(frozen=True)
class Listed:
    """A clip with its id, before it is read."""

    id: str
    source: str
    tags: str


@dataclass
class Scan:
    """The result of `init_dataset`; lists hold ids.

    Attributes:
        dataset: that the clips are in.
        rows: of the manifest as it is now, in order.
        added: new clips.
        changed: clips whose content has changed.
        vanished: clips whose file no longer exists; they stay in the manifest with that as their error.
        skipped: number of files of other kinds, by suffix.
    """

    dataset: Dataset
    rows: list[Row] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def unreadable(self) -> list[Row]:
        """The rows of clips that cannot be read."""
        return [row for row in self.rows if row.error is not None]


def read_manifest(dataset: Dataset) -> list[Row]:
    """All rows, in the order in which the clips were added.

    Raises:
        StoreError: if it is missing or damaged.
    """
    again = "`ss4d dataset init` with the same source writes it again"
    try:
        rows = read_rows(dataset.manifest, Row)
        _check_rows(dataset, rows)
        return rows
    except PermissionError as error:
        raise StoreError(f"{dataset.manifest} cannot be read ({error.strerror}): make it readable") from error
    except FileNotFoundError as error:
        raise StoreError(f"{dataset.folder} has no {dataset.manifest.name}; {again}") from error
    except StoreError as error:
        raise StoreError(f"{error}; delete it, and {again}") from error


def _check_rows(dataset: Dataset, rows: Sequence[Row]) -> None:
    """Raises StoreError for a row that `init_dataset` never writes: ids name files, and the table may be anybody's."""
    seen: set[str] = set()
    for number, row in enumerate(rows):
        if not _is_sound(row) or row.id in seen:
            raise StoreError(f"{dataset.manifest} is damaged: row {number}, of the clip {row.id!r}, is no clip's")
        seen.add(row.id)


def _is_sound(row: Row) -> bool:
    numbers = (row.bytes, row.modified, row.frames, row.width, row.height)
    return (
        is_id(row.id)
        and isinstance(row.source, str)
        and row.source.startswith("/")
        and (row.error is not None if row.sha256 is None else _DIGEST.fullmatch(row.sha256) is not None)
        and None not in numbers
        and row.tags is not None
        and row.fps is not None
        and math.isfinite(row.fps)
    )


def init_dataset(
    folder: Path,
    source: str,
    *,
    store: str | None,
    workers: int | None,
    progress: "Progress",
    clip_seconds: float = MOST_SECONDS,
) -> Scan:
    """Adds the clips that `source` names to the dataset in `folder`, which is made if there is none.

    Clips of the dataset keep their ids; those whose files have changed or could not be read are read again. If it is
    interrupted, it keeps what it has read, and the next call continues from there.

    Args:
        folder: of the dataset.
        source: what `ss4d.pipelines.dataset.discover.find_clips` takes.
        store: location of the artifacts; None for the dataset's own.
        workers: processes that read; None for one per CPU core.
        progress: called after each clip that is read.
        clip_seconds: that reading a clip may take; one that takes longer counts as unreadable.

    Raises:
        ConfigError: there is no clip, the folder cannot hold a dataset, or a number is out of range.
        StoreError, OSError: a file cannot be read or written.
    """
    check_seconds("--clip-timeout", clip_seconds)
    if workers is not None:
        check_at_least("--workers", workers, 1)
    finding = find_clips(source)
    dataset = create_dataset(folder, store)
    with locked(dataset.lock("manifest")):
        before = {row.source: row for row in read_manifest(dataset)} if dataset.manifest.exists() else {}
        clips = _clips(before, finding)
        rows = dict(before)
        stale = [clip for clip in clips if not _is_current(before.get(clip.source), clip)]
        try:
            _read_all(
                dataset, clips, read_clips(stale, workers, clip_seconds), rows, lambda done: progress(done, len(stale))
            )
        finally:
            _write(dataset, clips, rows)
    return _scan(dataset, before, [rows[clip.source] for clip in clips], finding)


def _is_current(row: Row | None, clip: Listed) -> bool:
    return row is not None and row.error is None and stamp(clip.source) == (row.bytes, row.modified)


def _read_all(
    dataset: Dataset,
    clips: Sequence[Listed],
    read: Iterator[Row],
    rows: dict[str, Row],
    tell: Callable[[int], None],
) -> None:
    """Puts the rows that are read into `rows`, and saves the manifest from time to time."""
    saved = time.monotonic()
    tell(0)
    for done, row in enumerate(read, 1):
        rows[row.source] = _with_known(row, rows.get(row.source))
        tell(done)
        if time.monotonic() - saved > SAVE_SECONDS:
            _write(dataset, clips, rows)
            saved = time.monotonic()


def _with_known(row: Row, before: Row | None) -> Row:
    """The row of a clip that was read, or of one that cannot be read now with what was known of it before.

    An input that is away, or not whole yet, takes nothing from what was made of it.
    """
    if row.error is None or before is None or before.sha256 is None:
        return row
    return replace(before, tags=row.tags, error=row.error)


def _write(dataset: Dataset, clips: Sequence[Listed], rows: dict[str, Row]) -> None:
    known = [replace(rows[clip.source], tags=clip.tags) for clip in clips if clip.source in rows]
    write_rows(dataset.manifest, Row, known)


def _scan(dataset: Dataset, before: dict[str, Row], rows: list[Row], finding: Finding) -> Scan:
    scan = Scan(dataset, rows, skipped=dict(finding.skipped.most_common()))
    by_id = {row.id: row for row in before.values()}
    for row in rows:
        old = before.get(row.source) or by_id.get(row.id)
        if old is None:
            scan.added.append(row.id)
        elif old.error is None and not os.path.exists(row.source):
            scan.vanished.append(row.id)
        elif old.sha256 != row.sha256:
            scan.changed.append(row.id)
    return scan


def _clips(before: dict[str, Row], finding: Finding) -> list[Listed]:
    """The clips that were in the manifest and the new ones, each once, with an id.

    Raises:
        ConfigError: if a table gives one id to two clips, or two to one.
    """
    clips = {row.source: Listed(row.id, row.source, row.tags) for row in before.values()}
    taken = {clip.id.casefold(): clip.source for clip in clips.values()}
    for found in sorted(finding.clips, key=lambda found: found.id is None):  # ids that a table gives come first
        source, tags = _text(found.path), _text(found.tags)
        known = clips.get(source)
        if known is None:
            if found.id is not None and (other := taken.get(found.id.casefold())) is not None:
                _check_moved(found.id, other, source, other in before)
                del clips[other]
            known = Listed(found.id or new_id(_text(found.name), taken.keys()), source, tags)
            taken[known.id.casefold()] = source
        elif found.id not in (None, known.id):
            raise ConfigError(
                f"{source} is the clip {known.id!r}, and cannot be {found.id!r} as well: list it once, under that id"
            )
        clips[source] = replace(known, tags=tags)
    return list(clips.values())


def _check_moved(clip: str, before: str, now: str, listed_before: bool) -> None:
    """Refuses an id for a second clip, unless it is a clip of the dataset whose file was moved."""
    if not listed_before or os.path.lexists(before):
        raise ConfigError(f"the id {clip!r} stands for more than one clip, {before} and {now}; give each its own")


def _text(name: str) -> str:
    """A file's name as Unicode; a name that is not valid Unicode is changed, so its file is listed as unreadable."""
    return os.fsencode(name).decode(errors="replace")


def stamp(source: str) -> tuple[int, int]:
    """The bytes of a file, or of all files in a folder, and the time of its last change; zeros if it does not exist."""
    try:
        own = os.stat(source)
        if not os.path.isdir(source):
            return own.st_size, own.st_mtime_ns
        files = [entry.stat() for entry in os.scandir(source) if entry.is_file()]
    except OSError:
        return 0, 0
    return sum(file.st_size for file in files), max(own.st_mtime_ns, *(file.st_mtime_ns for file in files), 0)


def read_clips(clips: Sequence[Listed], workers: int | None, seconds: float = MOST_SECONDS) -> Iterator[Row]:
    """Reads the clips in processes; gives their rows as they are done.

    A clip whose decoder ends its process, or takes longer than `seconds`, gets the row of an unreadable clip.
    """
    left = {clip.id: clip for clip in clips}
    while left:
        try:
            for row in results(partial(_read_within, seconds), list(left.values()), workers):
                del left[row.id]
                yield row
        except WorkerError:
            # Clips are started in order, so the one to blame is among the first: each of those is read by itself.
            for clip in list(left.values())[: 2 * (workers or num_processors()) + 2]:
                del left[clip.id]
                yield _read_alone(clip, seconds)


def _read_within(seconds: float, clip: Listed) -> Row:
    """Reads a clip in a worker; an alarm without a handler ends the process, whatever library it hangs in."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return read_clip(clip)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def read_clip(clip: Listed) -> Row:
    """Hashes a clip and decodes its first frame.

    Whatever goes wrong with one file is recorded in its row, and must not stop the others.
    """
    path = Path(clip.source)
    if "\N{REPLACEMENT CHARACTER}" in clip.source and not path.exists():
        return replace(_blank_row(clip), error=f"{clip.source} has a name that is not UTF-8: rename it")
    try:
        row = replace(_blank_row(clip), sha256=input_digest(path))
        video = read_video(path, InputConfig(count=1))
        height, width = video.frames.shape[1:3]
        return replace(row, frames=num_frames(path), width=width, height=height, fps=round(video.fps, 6))
    except InputError as error:
        return replace(_blank_row(clip), error=in_utf8(str(error)))
    except Exception as error:
        return replace(_blank_row(clip), error=in_utf8(f"{type(error).__name__}: {error}"))


def _read_alone(clip: Listed, seconds: float) -> Row:
    try:
        (row,) = results(partial(_read_within, seconds), [clip], 1)
    except WorkerError:
        error = (
            f"{clip.source} ended the process that read it: it is damaged, needs too much memory, or took longer than "
            f"{seconds:g} s."
        )
        return replace(_blank_row(clip), error=error)
    return row


def _blank_row(clip: Listed) -> Row:
    size, modified = stamp(clip.source)
    return Row(
        id=clip.id,
        source=clip.source,
        sha256=None,
        bytes=size,
        modified=modified,
        frames=0,
        width=0,
        height=0,
        fps=0.0,
        tags=clip.tags,
        error=None,
    )
