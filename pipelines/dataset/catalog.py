"""The catalog: the state of each clip at each stage of a configuration, as a Parquet table for other tools."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, make_dataclass
from typing import Any, Self

from ss4d.pipelines.dataset.events import Cause
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.manifest import Row
from ss4d.pipelines.dataset.opened import OpenedDataset
from ss4d.pipelines.measures import MEASURES
from ss4d.storage.manifest import write_columns

DONE, FAILED, TO_DO, NOT_NEEDED, UNREADABLE = "done", "failed", "to do", "not needed", "unreadable"

# A failure outside of any stage counts at a goal. Of several failures, the latest gives the columns.
_MEASURED = ", ".join(f"CAST({name} AS INTEGER)" if measure.kind is int else name for name, measure in MEASURES.items())
_CATALOG = f"""
SELECT clip, wanted.stage,
    CASE WHEN artifacts.key IS NOT NULL THEN 'done' WHEN failed.key IS NOT NULL THEN 'failed' ELSE 'to do' END,
    key, coalesce(artifacts.seconds, failed.seconds), coalesce(artifacts.peak_memory, failed.peak_memory),
    coalesce(tries, 0) + (artifacts.key IS NOT NULL), error, message, cause,
    nullif(coalesce(artifacts.worker, failed.worker), ''),
    {_MEASURED},
    coalesce(artifacts.versions, failed.versions)
FROM wanted LEFT JOIN artifacts USING (key)
LEFT JOIN (
    SELECT clip, key, max(time), seconds, peak_memory, error, message, cause, worker, versions
    FROM open_failures GROUP BY clip, key
) AS failed USING (clip, key)
LEFT JOIN (SELECT clip, key, count(*) AS tries FROM failures GROUP BY clip, key) USING (clip, key)
ORDER BY number
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the catalog; unknown values are None.

    Attributes:
        id: of the clip.
        stage: "" for a clip that cannot be read and has stages left that would; it is its only row if it never could.
        state: "done"; "failed", if its last attempt failed; "to do"; "not needed", as image tokens are once the
            artifacts made from them exist; or "unreadable".
        key: of the artifact, whether it is stored or not.
        seconds: of the successful attempt, or of the last failed one.
        peak_memory: of the process in that attempt, in bytes.
        attempts: number of attempts.
        error: the class of what went wrong: an exception's name, TimeLimit, MemoryLimit or WorkerDied.
        message: of the error.
        cause: input, transient, killed or program.
        worker: host:pid of the process in that attempt.
        measures: by name, a column each, see `ss4d.pipelines.measures`.
        versions: of Python and the packages in that attempt, as JSON.
        seed: of the random numbers; None for a stage without any.
    """

    id: str
    stage: str
    state: str
    key: str | None
    seconds: float | None
    peak_memory: int | None
    attempts: int
    error: str | None
    message: str | None
    cause: str | None
    worker: str | None
    measures: Mapping[str, float | None]
    versions: str | None
    seed: int | None

    @classmethod
    def of(cls, row: Sequence[Any]) -> Self:
        """The entry that a row with the columns `COLUMNS` is."""
        known = dict(zip(COLUMNS, row, strict=True))
        measured = {name: known.pop(name) for name in MEASURES}
        return cls(**known, measures=measured)


COLUMNS: Mapping[str, Any] = {
    name: kind
    for field in fields(Entry)
    for name, kind in (
        [(field.name, field.type)]
        if field.name != "measures"
        else [(measure.name, measure.kind | None) for measure in MEASURES.values()]
    )
}
TABLE = make_dataclass("CatalogRow", COLUMNS.items())  # what the table's schema is read from


def catalog(opened: OpenedDataset) -> Iterator[tuple[object, ...]]:
    """The rows of the catalog, with the columns `COLUMNS`, clip by clip; last come the clips that cannot be read."""
    keys, index = opened.keys, opened.index
    known = opened.known
    columns = keys.of([row.sha256 or "" for row in known])
    missing = keys.missing(columns, index.complete(keys.stages), index.missed())
    index.want([row.id for row in known], columns)
    seeds = {stage: keys.seed if implementation.seeded else None for stage, implementation in keys.stages.items()}
    versions = {name: json.dumps(packages) for name, packages in index.versions().items()}
    for number, (clip, stage, state, *rest, made_with) in enumerate(index.query(_CATALOG)):
        needed = state != TO_DO or stage in missing[number // len(keys.stages)]
        yield (clip, stage, state if needed else NOT_NEEDED, *rest, versions.get(made_with), seeds[stage])
    finished = {row.id for row, stages in zip(known, missing, strict=True) if not keys.read_source(stages)}
    yield from (_unreadable(row) for row in opened.rows if row.error is not None and row.id not in finished)


def write_catalog(opened: OpenedDataset) -> Counter[tuple[str, str]]:
    """Replaces the dataset's catalog; gives the number of its rows by stage and state.

    Raises:
        OSError: if it cannot be written; the old one is then still there.
    """
    columns = list(zip(*catalog(opened), strict=True))
    write_columns(opened.dataset.catalog, TABLE, columns)
    return Counter(zip(*columns[1:3], strict=True))


def is_current(dataset: Dataset) -> bool:
    """Whether the catalog was written after all that it is made from.

    Raises:
        OSError: if the dataset's folder cannot be read.
    """
    try:
        written = dataset.catalog.stat().st_mtime_ns
    except FileNotFoundError:
        return False
    sources = (path for path in (dataset.manifest, dataset.launches, *dataset.events.iterdir()) if path.exists())
    return all(path.stat().st_mtime_ns <= written for path in sources)


def _unreadable(row: Row) -> tuple[object, ...]:
    cause: Cause = "input"
    failure = ("Unreadable", row.error, cause)
    known = (row.id, "", UNREADABLE, None, None, None, 0, *failure)
    return (*known, *[None] * (len(COLUMNS) - len(known)))
