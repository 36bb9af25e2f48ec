"""Selects clips of a dataset: those that match an SQL expression, a shard, the first few."""

import hashlib
import json
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields

from ss4d.pipelines.dataset.checks import check_at_least
from ss4d.pipelines.dataset.index import Index
from ss4d.pipelines.dataset.keys import StageKeys
from ss4d.pipelines.dataset.manifest import Row
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.measures import MEASURES

# The columns that the expression may use: the manifest's, and those of the configuration.
_ROW = tuple(field.name for field in fields(Row))
_MEASURED = tuple(name for name in MEASURES if name not in _ROW)  # of `frames`, the manifest's are meant
COLUMNS = (*_ROW, "state", *_MEASURED)
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
# SQLite hears of time and of Ctrl-C between two steps of its machine only, and one step may be a whole function.
WHERE_STEPS = 100  # from one look at the clock to the next
WHERE_BYTES = 1 << 15  # of one value: the time of instr grows with the square
ENDLESS = {"printf", "format"}  # count to what they are told, however long a text may be
LIKE_BYTES = 1000  # the time of LIKE grows with the square

_UNREADABLE = ("unreadable", *[None] * len(_MEASURED))  # the facts of a clip that cannot be read
_FACTS = f"""
SELECT clip,
    CASE WHEN NOT max(wanted.stage IN (SELECT value FROM json_each(:goals)) AND artifacts.key IS NULL) THEN 'done'
         WHEN max(failed.key IS NOT NULL) THEN 'failed' ELSE 'to do' END,
    {", ".join(f"max({name})" for name in _MEASURED)}
FROM wanted LEFT JOIN artifacts USING (key)
LEFT JOIN (SELECT DISTINCT clip, key FROM open_failures) AS failed USING (clip, key)
GROUP BY clip
"""


@dataclass(frozen=True)
class Shard:
    """The part `number`, from 1 on, of `count` parts."""

    number: int
    count: int

    def has(self, clip: str) -> bool:
        """Whether a clip is in it; depends on its id alone, so clips stay in their shards when others are added."""
        return int.from_bytes(hashlib.sha256(clip.encode()).digest()[:8]) % self.count == self.number - 1


def parse_shard(text: str) -> Shard:
    """The shard that a text such as "2/8" means.

    Raises:
        ConfigError: it means none.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard takes i/n with i from 1 to n, such as 2/8; got {text!r}")
    return Shard(int(match[1]), int(match[2]))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The clips that a user asks for; None for no restriction.

    Attributes:
        where: an SQLite expression over `COLUMNS`.
        shard: the part of the clips that this machine runs, such as "2/8".
        limit: number of clips, the first of those.
    """

    where: str | None = None
    shard: str | None = None
    limit: int | None = None


ALL = Choice()


def select(rows: Sequence[Row], choice: Choice, index: Index, keys: StageKeys) -> list[Row]:
    """The selected clips, in the manifest's order, including unreadable ones.

    Args:
        rows: of the manifest.
        choice: the clips that are asked for.
        index: of the dataset.
        keys: of the configuration that state and measures refer to.

    Raises:
        ConfigError: `where` is not an expression or uses other columns, or there is no such shard or limit.
    """
    if choice.limit is not None:
        check_at_least("--limit", choice.limit, 1)
    chosen = of_shard(rows, choice.shard)
    if choice.where is not None:
        true = _true_of(choice.where, chosen, index, keys)
        chosen = [row for row in chosen if row.id in true]
    if choice.limit is not None:
        known = [number for number, row in enumerate(chosen) if row.sha256 is not None]
        chosen = chosen[: [*known, len(chosen)][min(choice.limit, len(known))]]
    return chosen


def of_shard(rows: Sequence[Row], shard: str | None) -> list[Row]:
    """The clips of a part such as "2/8"; None: all of them.

    Raises:
        ConfigError: there is no such part.
    """
    if shard is None:
        return list(rows)
    part = parse_shard(shard)
    return [row for row in rows if part.has(row.id)]


def _true_of(where: str, rows: Sequence[Row], index: Index, keys: StageKeys) -> set[str]:
    """The ids of the clips that match the expression."""
    known = [row for row in rows if row.sha256 is not None]
    index.want([row.id for row in known], keys.of([row.sha256 or "" for row in known]))
    facts = {clip: (state, *measured) for clip, state, *measured in index.query(_FACTS, goals=json.dumps(keys.goals))}
    for row in known:
        if row.error is not None and facts[row.id][0] != "done":
            facts[row.id] = ("unreadable", *facts[row.id][1:])
    table = ([*(getattr(row, name) for name in _ROW), *facts.get(row.id, _UNREADABLE)] for row in rows)
    return set(_ask(where, table, keys.config.limits.where_seconds))


def _allowed(action: int, _first: str | None, second: str | None, *_: str | None) -> int:
    """SQLite's question whether an expression may do something; of a function, the second name is its own."""
    return sqlite3.SQLITE_OK if action in _READING and second not in ENDLESS else sqlite3.SQLITE_DENY


def _ask(where: str, table: Iterator[list[object]], seconds: float) -> Iterator[str]:
    """The ids that match, from a table in memory that the expression can only read, within some seconds."""
    with closing(sqlite3.connect(":memory:")) as memory:
        memory.execute(f"CREATE TABLE clips ({', '.join(COLUMNS)})")
        memory.executemany(f"INSERT INTO clips VALUES ({', '.join('?' * len(COLUMNS))})", table)
        memory.commit()
        memory.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, WHERE_BYTES)
        memory.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LIKE_BYTES)
        end = time.monotonic() + seconds
        memory.set_progress_handler(lambda: time.monotonic() > end, WHERE_STEPS)
        memory.set_authorizer(_allowed)
        try:
            yield from (clip for (clip,) in memory.execute(f"SELECT id FROM clips WHERE (\n{where}\n)"))
        except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError) as error:  # ValueError: a NUL character
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                if time.monotonic() <= end:  # Ctrl-C came while the handler looked; SQLite makes another error of it
                    raise KeyboardInterrupt from error
                raise ConfigError(
                    f"--where {where!r} takes more than {seconds:g} s, which is the limit (limits.where_seconds)"
                ) from error
            raise ConfigError(
                f"--where {where!r} is not valid: {error}; it takes an SQLite expression over {', '.join(COLUMNS)}, "
                "such as \"frames > 16 AND tags LIKE '%bird%'\""
            ) from error
