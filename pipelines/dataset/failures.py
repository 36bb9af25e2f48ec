"""What failed in a dataset, grouped by cause; and clearing failures, so that the next run tries those clips again."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

from ss4d.pipelines.dataset.events import Attempt, Cause, EventWriter, now
from ss4d.pipelines.dataset.manifest import Row
from ss4d.pipelines.dataset.opened import OpenedDataset
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.run_record import versions

EXAMPLES = 3
UNREADABLE = "Unreadable"


@dataclass
class Group:
    """Clips that failed in the same way.

    Attributes:
        cause: input, transient, killed or program.
        error: class of what went wrong.
        stage: its name, or "" for a failure outside of any.
        clips: their ids, the latest failures first.
        message: of the latest failure.
    """

    cause: str
    error: str
    stage: str
    clips: list[str] = field(default_factory=list)
    message: str = ""

    @property
    def examples(self) -> str:
        """A few of the ids, for people."""
        more = ", ..." if len(self.clips) > EXAMPLES else ""
        return ", ".join(self.clips[:EXAMPLES]) + more


def open_failures(opened: OpenedDataset) -> list[Attempt]:
    """The last failed attempt at each artifact that is still missing and was not cleared, latest first."""
    columns = opened.keys.of([row.sha256 or "" for row in opened.known])
    clips = [row.id for row in opened.known]
    wanted = {pair for column in columns.values() for pair in zip(clips, column, strict=True)}
    last = {
        (attempt.clip, attempt.key): attempt
        for attempt in opened.index.failures()
        if (attempt.clip, attempt.key) in wanted
    }
    return sorted(last.values(), key=lambda attempt: attempt.time, reverse=True)


def groups(rows: Sequence[Row], failures: Sequence[Attempt]) -> list[Group]:
    """Failures and clips that cannot be read, grouped by cause, error and stage, the largest group first."""
    found: dict[tuple[str, str, str], Group] = {}
    for attempt in failures:
        name = (attempt.cause or "", attempt.error or "", attempt.stage)
        group = found.setdefault(name, Group(*name, message=attempt.message or ""))
        group.clips.append(attempt.clip)
    for row in rows:
        if row.error is not None:
            group = found.setdefault(("input", UNREADABLE, ""), Group("input", UNREADABLE, "", message=row.error))
            group.clips.append(row.id)
    return sorted(found.values(), key=lambda group: -len(group.clips))


def clear_failures(
    opened: OpenedDataset,
    *,
    clips: Sequence[str] = (),
    cause: str | None = None,
    error: str | None = None,
) -> list[Attempt]:
    """Clears failures, so that the next run tries those clips again; gives the failures that were cleared.

    Args:
        opened: the dataset, for a configuration.
        clips: ids; empty for all.
        cause: only failures of this cause.
        error: only failures of this class.

    Raises:
        ConfigError: there is no such clip or cause.
        OSError: the events cannot be written.
    """
    if cause is not None and cause not in get_args(Cause):
        raise ConfigError(f"--cause must be one of {', '.join(get_args(Cause))}; got {cause!r}")
    if unknown := sorted(set(clips) - {row.id for row in opened.rows}):
        raise ConfigError(f"no clip of {opened.dataset.folder} is called {', '.join(unknown)}")
    chosen = [
        attempt
        for attempt in open_failures(opened)
        if (not clips or attempt.clip in clips) and cause in (None, attempt.cause) and error in (None, attempt.error)
    ]
    if chosen:
        with EventWriter(opened.dataset.events, versions()) as events:
            for attempt in chosen:
                events.write(
                    replace(attempt, state="forgiven", time=max(now(), attempt.time), versions=events.versions)
                )
        opened.index.refresh()
    return chosen
