"""The content of a dataset's report: a card for each clip, and groups of failures; as plain data for the page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from ss4d.pipelines.dataset.catalog import DONE, FAILED, TO_DO, UNREADABLE, Entry, catalog
from ss4d.pipelines.dataset.events import Attempt, now
from ss4d.pipelines.dataset.failures import UNREADABLE as UNREADABLE_ERROR
from ss4d.pipelines.dataset.failures import Group, groups, open_failures
from ss4d.pipelines.dataset.keys import Settings
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.manifest import Row
from ss4d.pipelines.dataset.opened import OpenedDataset
from ss4d.pipelines.dataset.select import Choice, select
from ss4d.pipelines.measures import MEASURES
from ss4d.storage.files import listed
from ss4d.storage.refs import ArtifactRef

STATES = (DONE, FAILED, UNREADABLE, TO_DO)
# The numbers to sort clips by: costs over all stages, measures, and properties of the input. For each, its title and
# the function of viewer/columns.js that formats it.
NUMBERS: Mapping[str, tuple[str, str]] = {
    "seconds": ("Time", "seconds"),
    "peak_memory": ("Peak memory", "bytes"),
    **{name: (measure.title, measure.format) for name, measure in MEASURES.items()},
    "attempts": ("Attempts", "count"),
    "width": ("Width", "pixels"),
    "height": ("Height", "pixels"),
    "fps": ("Frame rate", "rate"),
    "bytes": ("Size of the input", "bytes"),
}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a clip is not done, from its last failed attempt or its row in the manifest."""

    cause: str
    error: str
    stage: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """A clip as the report shows it.

    Attributes:
        row: of the manifest.
        state: one of `STATES`.
        failure: of a clip that failed or cannot be read.
        entries: of the catalog, one per stage; empty for a clip that never could be read.
        logged: whether it has a log.
    """

    row: Row
    state: str
    failure: Failure | None
    entries: tuple[Entry, ...]
    logged: bool

    def done(self, stage: str) -> ArtifactRef | None:
        """The artifact of a stage; None if it is not made."""
        keys = (entry.key for entry in self.entries if entry.stage == stage and entry.state == DONE)
        key = next(keys, None)
        return None if key is None else ArtifactRef(stage, key)

    def numbers(self) -> dict[str, float | None]:
        """The numbers to sort by, by the names in `NUMBERS`; None if unknown."""
        seconds = [entry.seconds for entry in self.entries if entry.seconds is not None]
        measured = {name: _first(entry.measures[name] for entry in self.entries) for name in MEASURES}
        return {
            "seconds": round(sum(seconds), 3) if seconds else None,
            "peak_memory": max((entry.peak_memory for entry in self.entries if entry.peak_memory), default=None),
            **measured,
            "frames": measured["frames"] or self.row.frames or None,
            "attempts": max((entry.attempts for entry in self.entries), default=0) or None,
            "width": self.row.width or None,
            "height": self.row.height or None,
            "fps": self.row.fps or None,
            "bytes": self.row.bytes or None,
        }


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The content of a report.

    Attributes:
        dataset: that it is about.
        settings: the configuration that it is about.
        where: the SQL expression that selected the clips; None for all.
        stages: of the configuration, in order.
        cards: in the manifest's order.
        groups: of failures, the largest first.
        made: when, UTC, as ISO 8601 has it.
    """

    dataset: Dataset
    settings: Settings
    where: str | None
    stages: tuple[str, ...]
    cards: Sequence[Card]
    groups: Sequence[Group]
    made: str


def read_sheet(opened: OpenedDataset, where: str | None = None) -> Sheet:
    """Reads the content of the report from the catalog and the failures.

    Raises:
        ConfigError: if `where` is not valid.
        StoreError, OSError: if the index cannot be read.
    """
    rows = select(opened.rows, Choice(where=where), opened.index, opened.keys)
    chosen = replace(opened, rows=rows)
    failures = open_failures(chosen)
    entries = (entry for entry in map(Entry.of, catalog(chosen)) if entry.stage)
    by_clip = {clip: tuple(group) for clip, group in groupby(entries, key=lambda entry: entry.id)}
    logs = set(listed(opened.dataset.logs))
    return Sheet(
        dataset=opened.dataset,
        settings=opened.settings,
        where=where,
        stages=tuple(opened.keys.stages),
        cards=list(_cards(rows, by_clip, _latest(failures), logs)),
        groups=groups(rows, failures),
        made=now(),
    )


def sheet_data(sheet: Sheet) -> dict[str, Any]:
    """The sheet in columns for the page's script: one value per clip, in the order of the cards."""
    cards = sheet.cards
    place = {card.row.id: number for number, card in enumerate(cards)}
    numbers = [card.numbers() for card in cards]
    return {
        "id": [card.row.id for card in cards],
        "source": [card.row.source for card in cards],
        "tags": [card.row.tags for card in cards],
        "state": [card.state for card in cards],
        "failure": [None if card.failure is None else vars(card.failure) for card in cards],
        "logged": [card.logged for card in cards],
        "numbers": {name: [known[name] for known in numbers] for name in NUMBERS},
        "stages": {
            stage: _stage_columns([card.entries[column] if card.entries else None for card in cards])
            for column, stage in enumerate(sheet.stages)
        },
        "groups": [sorted({place[clip] for clip in group.clips}) for group in sheet.groups],
    }


def _cards(
    rows: Iterable[Row], entries: Mapping[str, tuple[Entry, ...]], failed: Mapping[str, Attempt], logs: set[str]
) -> Iterator[Card]:
    for row in rows:
        mine = entries[row.id] if row.sha256 is not None else ()
        state = _state(row, mine, row.id in failed)
        failure = _failure(row, failed.get(row.id)) if state in (FAILED, UNREADABLE) else None
        yield Card(row=row, state=state, failure=failure, entries=mine, logged=f"{row.id}.log" in logs)


def _state(row: Row, entries: Sequence[Entry], failed: bool) -> str:
    """The state of a clip, as `--where` has it."""
    if entries and entries[-1].state == DONE:
        return DONE
    if row.error is not None:
        return UNREADABLE
    return FAILED if failed else TO_DO


def _failure(row: Row, attempt: Attempt | None) -> Failure:
    if attempt is None:
        return Failure(cause="input", error=UNREADABLE_ERROR, stage="", message=row.error or "")
    return Failure(
        cause=attempt.cause or "", error=attempt.error or "", stage=attempt.stage, message=attempt.message or ""
    )


def _latest(failures: Sequence[Attempt]) -> dict[str, Attempt]:
    """The last failure of each clip; the failures come latest first."""
    return {attempt.clip: attempt for attempt in reversed(failures)}


def _stage_columns(entries: Sequence[Entry | None]) -> dict[str, list[Any]]:
    return {
        name: [None if entry is None else getattr(entry, name) for entry in entries]
        for name in ("state", "key", "seconds", "peak_memory", "attempts")
    }


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)
