"""What a run of a dataset would do and why, from keys and index, before anything is computed."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ss4d.pipelines.dataset.events import Attempt, Cause
from ss4d.pipelines.dataset.index import open_index
from ss4d.pipelines.dataset.keys import StageKeys
from ss4d.pipelines.dataset.launches import last_recipes
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.manifest import Row, read_manifest
from ss4d.pipelines.dataset.select import Choice, of_shard, select
from ss4d.pipelines.dataset.workers.policy import History, Policy
from ss4d.pipelines.dataset.workers.todo import Source, Todo
from ss4d.pipelines.plan import why
from ss4d.storage.errors import StoreError
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import folder_of, open_store

FINISHED, NOT_YET = "everything is there", "not made yet"


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """For how many clips a stage runs, is reused, or is skipped since it is not needed; and why it runs."""

    stage: str
    run: int
    reuse: int
    skip: int
    why: str


@dataclass(frozen=True, kw_only=True)
class DatasetPlan:
    """What a run would do.

    Attributes:
        clips: number of chosen clips, readable or not.
        unreadable: of these, that cannot be read, and are not finished.
        finished: of these, with all artifacts.
        given_up: of these, that failed in earlier runs and are not run again, by cause.
        todo: the others.
        history: what earlier runs recorded of them.
        stages: in order; counts over `todo`.
        recipes: of a clip without its source's hash.
        keys: of all artifacts, by stage, one for each of `known`.
        known: the ids of the clips whose content is known, though it may be away.
    """

    clips: int
    unreadable: int
    finished: int
    given_up: Counter[Cause]
    todo: Sequence[Todo]
    history: History
    stages: Sequence[StagePlan]
    recipes: Mapping[str, Mapping[str, Any]]
    keys: Mapping[str, Sequence[str]]
    known: Sequence[str]


def plan_clips(dataset: Dataset, keys: StageKeys, choice: Choice, policy: Policy) -> DatasetPlan:
    """Plans a run of the chosen clips.

    Raises:
        ConfigError: the choice cannot be made.
        StoreError, OSError: manifest or index cannot be used.
    """
    rows = read_manifest(dataset)
    asked = None if choice.shard is None else {row.id for row in of_shard(rows, choice.shard)}
    with open_index(dataset, asked) as index:
        rows = select(rows, choice, index, keys)
        known = [row for row in rows if row.sha256 is not None]
        made = keys.of([_digest(row) for row in known])
        complete, missed = index.complete(keys.stages), index.missed()
        history = _history(known, made, index.failures())
    _check_store(dataset, complete)
    for ref in _deleted_elsewhere(dataset):
        if ref.stage in complete:
            complete[ref.stage].discard(ref.key)
            missed.add(ref.key)
    missing = keys.missing(made, complete, missed)
    unfinished = [n for n, stages in enumerate(missing) if stages]
    away = {n for n in unfinished if known[n].error is not None and keys.read_source(missing[n])}
    able = [n for n in unfinished if n not in away]
    given_up = {n: failures for n in able if policy.given_up(failures := history.failures.get(known[n].id, {}))}
    goals = made[keys.last]
    chosen = [n for n in able if n not in given_up]
    recipes = keys.recipes()
    return DatasetPlan(
        clips=len(rows),
        unreadable=len(rows) - len(known) + len(away),
        finished=len(known) - len(unfinished),
        given_up=Counter(max(known, key=lambda cause: known[cause]) for known in given_up.values()),
        todo=[Todo(Source(known[n].id, known[n].source, _digest(known[n])), goals[n], missing[n]) for n in chosen],
        history=history,
        stages=_stages(keys, made, complete, missing, chosen, recipes, last_recipes(dataset)),
        recipes=recipes,
        keys=made,
        known=[row.id for row in known],
    )


def _check_store(dataset: Dataset, complete: Mapping[str, set[str]]) -> None:
    """Refuses a store that was deleted as a whole, since the index would still count its artifacts as complete."""
    folder = folder_of(dataset.store)
    if folder is not None and not folder.is_dir() and any(complete.values()):
        raise StoreError(
            f"the store at {dataset.store} was deleted with all artifacts: bring it back, or let "
            f"`ss4d dataset catalog rebuild {dataset.folder}` forget it"
        )


def _deleted_elsewhere(dataset: Dataset) -> list[ArtifactRef]:
    """What `ss4d verify --repair` deleted, perhaps on a machine that could not tell this dataset."""
    store = open_store(dataset.location())
    return [ref for ref in store.all_missed() if not store.occupied(ref)]


def _digest(row: Row) -> str:
    assert row.sha256 is not None  # the clip could be read once
    return row.sha256


def _history(rows: Sequence[Row], made: Mapping[str, Sequence[str]], failures: Sequence[Attempt]) -> History:
    """The failures at the keys that the clips have now; transient ones count as attempts only."""
    if not failures:
        return History()
    current = {(row.id, column[n]) for column in made.values() for n, row in enumerate(rows)}
    by_clip: dict[str, Counter[Cause]] = defaultdict(Counter)
    attempts: Counter[str] = Counter()
    for failure in failures:
        if (failure.clip, failure.key) in current and failure.cause is not None:
            attempts[failure.key] += 1
            if failure.cause != "transient":
                by_clip[failure.clip][failure.cause] += 1
    return History(failures=dict(by_clip), attempts=attempts)


def _stages(
    keys: StageKeys,
    made: Mapping[str, Sequence[str]],
    complete: Mapping[str, set[str]],
    missing: Sequence[tuple[str, ...]],
    chosen: Sequence[int],
    recipes: Mapping[str, Mapping[str, Any]],
    previous: Mapping[str, Mapping[str, Any]] | None,
) -> list[StagePlan]:
    runs = Counter(stage for n in chosen for stage in missing[n])
    plans = []
    for stage in keys.stages:
        reuse = sum(made[stage][n] in complete[stage] for n in chosen)
        plans.append(
            StagePlan(
                stage=stage,
                run=runs[stage],
                reuse=reuse,
                skip=len(chosen) - runs[stage] - reuse,
                why=_why(recipes[stage], (previous or {}).get(stage)) if runs[stage] else "",
            )
        )
    return plans


def _why(recipe: Mapping[str, Any], previous: Mapping[str, Any] | None) -> str:
    return NOT_YET if previous is None or previous == recipe else why(recipe, previous)
