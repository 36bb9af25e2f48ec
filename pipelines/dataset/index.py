"""The index of a dataset's artifacts and failures: an SQLite file, made from events and store, that can be deleted.

Artifacts are known by key alone, so an artifact counts for every configuration that has its key.
"""

import errno
import json
import os
import sqlite3
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from shutil import disk_usage
from typing import Any

from ss4d.pipelines.dataset.events import Attempt, Batch, read_events
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.measures import MEASURES
from ss4d.storage.errors import NewerError, StoreError
from ss4d.storage.manifest import locked
from ss4d.storage.refs import ArtifactRef

SCHEMA = 2
PATIENCE = 60  # seconds to wait for another process that writes
CACHE = 128  # MiB at most: keys are in random order, and the index of a hundred thousand clips is larger

_TABLES = f"""
CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, bytes INTEGER);
CREATE TABLE IF NOT EXISTS versions (hash TEXT PRIMARY KEY, packages TEXT);
CREATE TABLE IF NOT EXISTS artifacts (
    key TEXT PRIMARY KEY, stage TEXT, time TEXT, seconds REAL, peak_memory INTEGER, worker TEXT, versions TEXT,
    deletions INTEGER DEFAULT 0,
    {", ".join(f"{name} REAL" for name in MEASURES)}
);
CREATE TABLE IF NOT EXISTS failures (
    clip TEXT, stage TEXT, key TEXT, time TEXT, number INTEGER, seconds REAL, peak_memory INTEGER, error TEXT,
    message TEXT, cause TEXT, worker TEXT, seed INTEGER, versions TEXT
);
CREATE INDEX IF NOT EXISTS failures_by_key ON failures (key, clip);
CREATE TABLE IF NOT EXISTS gone (
    key TEXT PRIMARY KEY, time TEXT, missed INTEGER, deletions INTEGER DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forgiven (clip TEXT, key TEXT, time TEXT, PRIMARY KEY (clip, key)) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA};
"""
# Of this connection alone, so that it is ours, whatever the file holds.
_VIEW = """
CREATE TEMP VIEW open_failures AS
    SELECT failures.* FROM failures LEFT JOIN forgiven USING (clip, key)
    WHERE (forgiven.time IS NULL OR failures.time > forgiven.time) AND failures.key NOT IN (SELECT key FROM artifacts);
"""
FAILURE = (
    *("clip", "stage", "key", "time", "number", "seconds", "peak_memory"),
    *("error", "message", "cause", "worker", "seed", "versions"),
)
ARTIFACT = ("key", "stage", "time", "seconds", "peak_memory", "worker", "versions", "deletions", *MEASURES)

_DESCRIBED = tuple(name for name in ARTIFACT[2:] if name != "deletions")

# An artifact that is only known to exist has no time, and gives way to the event of its making. The last value is the
# time of that event: event files are read in no order, so a later deletion may be known already. Which is later the
# store's count of deletions tells; only of events of earlier versions, which have none, the clocks of hosts do.
_ADD_ARTIFACT = f"""
INSERT INTO artifacts ({", ".join(ARTIFACT)}) SELECT {", ".join(f"?{number}" for number in range(1, len(ARTIFACT) + 1))}
    WHERE NOT EXISTS (
        SELECT 1 FROM gone WHERE gone.key = ?1
            AND (gone.deletions > ?8 OR (gone.deletions = 0 AND ?8 = 0 AND gone.time >= ?{len(ARTIFACT) + 1}))
    )
    ON CONFLICT (key) DO UPDATE SET deletions = max(deletions, excluded.deletions),
    {", ".join(f"{n} = CASE WHEN excluded.time > time THEN excluded.{n} ELSE {n} END" for n in _DESCRIBED)}
"""
_ADD_FAILURE = f"INSERT INTO failures VALUES ({', '.join('?' * len(FAILURE))})"
_FORGIVE = """
INSERT INTO forgiven VALUES (?, ?, ?) ON CONFLICT (clip, key) DO UPDATE SET time = max(time, excluded.time)
"""
_ADD_GONE = """
INSERT INTO gone VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (key) DO UPDATE SET time = excluded.time, missed = excluded.missed, deletions = excluded.deletions
    WHERE (excluded.deletions, excluded.time) >= (deletions, time)
"""
_DELETE_GONE = """
DELETE FROM artifacts WHERE key = ?1 AND (deletions < ?3 OR (deletions = 0 AND ?3 = 0 AND time <= ?2))
"""


class Index:
    """An open index; `open_index` gives one."""

    def __init__(self, dataset: Dataset, connection: sqlite3.Connection, clips: Container[str] | None = None) -> None:
        self._dataset = dataset
        self._connection = connection
        self._clips = clips

    def refresh(self) -> None:
        """Reads the events that were written since the last call.

        Raises:
            NewerError: a newer version of the program wrote some.
            StoreError, OSError: index or events cannot be read.
        """
        with self.changing():
            self._take_events()

    def complete(self, stages: Iterable[str]) -> dict[str, set[str]]:
        """The keys of the artifacts that are known to be complete, by stage."""
        found: dict[str, set[str]] = {stage: set() for stage in stages}
        for stage, key in self.query("SELECT stage, key FROM artifacts"):
            if stage in found:
                found[stage].add(key)
        return found

    def missed(self) -> set[str]:
        """The keys of artifacts that were damaged and deleted, and have to be made again."""
        return {
            key for (key,) in self.query("SELECT key FROM gone WHERE missed AND key NOT IN (SELECT key FROM artifacts)")
        }

    def keys(self) -> set[str]:
        """The keys of all artifacts that are known to be complete."""
        return {key for (key,) in self.query("SELECT key FROM artifacts")}

    def deletions(self) -> int:
        """The highest number of a deletion that is known."""
        (row,) = self.query(
            "SELECT max(coalesce((SELECT max(deletions) FROM artifacts), 0), "
            "coalesce((SELECT max(deletions) FROM gone), 0))"
        )
        return int(row[0])

    def failures(self) -> list[Attempt]:
        """The failed attempts that were not cleared, at artifacts that are still missing, from the oldest on.

        Those of all configurations; the key tells the configuration.
        """
        rows = self.query(f"SELECT {', '.join(FAILURE)} FROM open_failures ORDER BY time")
        return [Attempt(state="failed", **dict(zip(FAILURE, row, strict=True))) for row in rows]

    def versions(self) -> dict[str, dict[str, str]]:
        """The versions of Python and packages by their hash."""
        return {name: json.loads(packages) for name, packages in self.query("SELECT hash, packages FROM versions")}

    def want(self, clips: Sequence[str], keys: Mapping[str, Sequence[str]]) -> None:
        """Makes the table `wanted` (number, clip, stage, key) for queries: a configuration's artifacts of these clips.

        Args:
            clips: their ids.
            keys: what `StageKeys.of` gave for them.
        """
        self._connection.executescript(
            "DROP TABLE IF EXISTS temp.wanted; CREATE TEMP TABLE wanted (number, clip TEXT, stage TEXT, key TEXT)"
        )
        with self._transaction("BEGIN"):
            for place, (stage, column) in enumerate(keys.items()):
                rows = ((index * len(keys) + place, clip, stage, column[index]) for index, clip in enumerate(clips))
                self._connection.executemany("INSERT INTO wanted VALUES (?, ?, ?, ?)", rows)

    def query(self, statement: str, **values: object) -> Iterator[tuple[Any, ...]]:
        """The rows of a SELECT, with `values` in place of `:name` in it.

        Raises:
            StoreError: if the index is damaged.
        """
        with self._explained():
            yield from self._connection.execute(statement, values)

    def replace(
        self, artifacts: Iterable[Sequence[object]], versions: Mapping[str, Mapping[str, str]], before: Iterable[str]
    ) -> list[ArtifactRef]:
        """Makes the index anew from all events and a listing of the store; gives the artifacts that are lost.

        Args:
            artifacts: in the store: rows with the columns `ARTIFACT`.
            versions: of Python and packages, by the hashes in those rows.
            before: keys of the artifacts that were known before the listing; one that is not in it is lost.
        """
        with self.changing():
            for table in ("files", "versions", "artifacts", "gone", "failures", "forgiven"):
                self._connection.execute(f"DELETE FROM {table}")
            self._take_events()
            columns, marks = ", ".join(ARTIFACT), ", ".join("?" * len(ARTIFACT))
            self._connection.execute(f"CREATE TEMP TABLE found AS SELECT {columns} FROM artifacts LIMIT 0")
            self._connection.executemany(f"INSERT INTO found VALUES ({marks})", artifacts)
            self._connection.execute("CREATE TEMP TABLE before (key TEXT)")
            self._connection.executemany("INSERT INTO before VALUES (?)", ((key,) for key in before))
            gone = "key IN (SELECT key FROM before) AND key NOT IN (SELECT key FROM found)"
            lost = list(self._connection.execute(f"SELECT stage, key FROM artifacts WHERE {gone}"))
            self._connection.execute(f"DELETE FROM artifacts WHERE {gone}")
            self._connection.execute("DROP TABLE before")
            self._connection.execute(f"INSERT OR IGNORE INTO artifacts ({columns}) SELECT {columns} FROM found")
            self._connection.execute("DROP TABLE found")
            self._add_versions(versions)
        return [ArtifactRef(stage, key) for stage, key in lost]

    @contextmanager
    def changing(self) -> Iterator[None]:
        """A transaction, which excludes other processes."""
        alone = nullcontext() if self._dataset.shared else locked(self._dataset.lock("index"))
        with alone, self._explained(), self._transaction("BEGIN IMMEDIATE"):
            yield

    def _take_events(self) -> None:
        offsets = dict(self._connection.execute("SELECT name, bytes FROM files"))
        for batch in read_events(self._dataset.events, offsets, self._clips):
            self._take(batch)

    def _take(self, batch: Batch) -> None:
        by_state: dict[str, list[Attempt]] = {}
        for attempt in batch.attempts:
            by_state.setdefault(attempt.state, []).append(attempt)
        gone = [attempt for attempt in batch.attempts if attempt.state in ("gone", "missed")]
        self._connection.executemany(
            _ADD_GONE, ((attempt.key, attempt.time, attempt.state == "missed", attempt.deletions) for attempt in gone)
        )
        self._connection.executemany(_DELETE_GONE, ((attempt.key, attempt.time, attempt.deletions) for attempt in gone))
        made = [(*_artifact(attempt, attempt.time), attempt.time) for attempt in by_state.get("done", ())]
        made += [(*_artifact(attempt, ""), attempt.time) for attempt in by_state.get("reused", ())]
        self._connection.executemany(_ADD_ARTIFACT, made)
        failed = ([getattr(attempt, name) for name in FAILURE] for attempt in by_state.get("failed", ()))
        self._connection.executemany(_ADD_FAILURE, failed)
        forgiven = ((attempt.clip, attempt.key, attempt.time) for attempt in by_state.get("forgiven", ()))
        self._connection.executemany(_FORGIVE, forgiven)
        self._add_versions(batch.versions)
        self._connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (batch.file, batch.end))

    def _add_versions(self, versions: Mapping[str, Mapping[str, str]]) -> None:
        rows = ((name, json.dumps(packages)) for name, packages in versions.items())
        self._connection.executemany("INSERT OR IGNORE INTO versions VALUES (?, ?)", rows)

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._connection.execute(begin)
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with explained(self._dataset):
            yield


@contextmanager
def explained(dataset: Dataset) -> Iterator[None]:
    """Turns the errors of an index that cannot be used into sentences."""
    remake = f"delete it, and `ss4d dataset catalog rebuild {dataset.folder}` makes it again"
    try:
        yield
    except sqlite3.OperationalError as error:
        if dataset.shared:
            raise StoreError(
                f"the index of {dataset.folder} cannot be kept in a temporary file: {error}; TMPDIR says where it lies"
            ) from error
        if not hasattr(error, "sqlite_errorcode"):  # Python's own, of text that is none
            raise StoreError(f"{dataset.index} is damaged ({error}): {remake}") from error
        if _is_full(error, dataset):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(dataset.index)) from error
        remedy = "try again when no other process is writing it"
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            remedy = "make it and the folder it lies in writable"
        raise StoreError(f"{dataset.index} cannot be used: {error}; {remedy}") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite gives text as it lies there
        raise StoreError(f"{dataset.index} is damaged ({error}): {remake}") from error


def _is_full(error: sqlite3.OperationalError, dataset: Dataset) -> bool:
    """Whether there is no room for the index; for its helping files SQLite says so as an error of reading and writing.

    Those are made larger by 32 KiB at a time.
    """
    kind = error.sqlite_errorcode & 0xFF
    return kind == sqlite3.SQLITE_FULL or (kind == sqlite3.SQLITE_IOERR and disk_usage(dataset.folder).free < 1 << 16)


@contextmanager
def open_index(dataset: Dataset, clips: Container[str] | None = None) -> Iterator[Index]:
    """Opens the index of a dataset, made if there is none, and reads all new events.

    For a shared dataset, or one whose folder is read-only, the index is made in a temporary file.

    Args:
        dataset: that it is of.
        clips: whose events to read into a temporary index; None for all. Artifacts that another clip of the same
            content made are then not known.

    Raises:
        NewerError: if a newer version of the program wrote it.
        StoreError, OSError: if it is damaged, or cannot be read or written.
    """
    if not os.access(dataset.folder, os.W_OK):
        dataset = replace(dataset, shared=True)
    assert clips is None or dataset.shared  # a permanent index has to know all clips
    if dataset.index.is_symlink():
        raise StoreError(f"{dataset.index} is a link, and what it leads to is not changed: delete the link")
    with explained(dataset):
        # To SQLite the empty name means a temporary file on this machine's disk that only this connection sees.
        connection = sqlite3.connect("" if dataset.shared else dataset.index, timeout=PATIENCE, isolation_level=None)
    try:
        with explained(dataset):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA:
                raise NewerError(
                    f"{dataset.index} was written by a newer version of this program (schema {version}, this one knows "
                    f"{SCHEMA}); upgrade to use this dataset"
                )
            _refuse_programs(connection)
            connection.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {_TABLES}")
            _add_columns(connection)
            connection.executescript(_VIEW)
            connection.execute(f"PRAGMA cache_size = -{CACHE << 10}")
        index = Index(dataset, connection, clips)
        index.refresh()
        yield index
    finally:
        connection.close()


def _refuse_programs(connection: sqlite3.Connection) -> None:
    """Raises DatabaseError if what is no more than tables of data would run as a query: it may be anybody's file."""
    connection.execute("PRAGMA trusted_schema = OFF")
    known = "type IN ('table', 'index') OR (type = 'view' AND name = 'open_failures')"  # a view of earlier versions
    for (name,) in connection.execute(f"SELECT name FROM sqlite_master WHERE NOT ({known})"):
        raise sqlite3.DatabaseError(f"{name!r} in it is no table")


def _add_columns(connection: sqlite3.Connection) -> None:
    """Adds columns for what this version of the program knows and the one that made the index did not."""
    wanted = [("artifacts", name, "REAL") for name in MEASURES]
    for table, name, kind in (*wanted, *((table, "deletions", "INTEGER DEFAULT 0") for table in ("artifacts", "gone"))):
        if name not in {known for _, known, *_ in connection.execute(f"PRAGMA table_info({table})")}:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")


def _artifact(attempt: Attempt, time: str) -> tuple[object, ...]:
    measured = (attempt.measures.get(name) for name in MEASURES)
    costs = attempt.seconds, attempt.peak_memory
    return (attempt.key, attempt.stage, time, *costs, attempt.worker, attempt.versions, attempt.deletions, *measured)
