"""What is there is told by the store's count of deletions, and not by the clocks of the hosts that made and deleted."""

import sqlite3
import time
from pathlib import Path

import pytest

from ss4d.pipelines.config import load_config
from ss4d.pipelines.dataset import references
from ss4d.pipelines.dataset.events import Attempt, EventWriter
from ss4d.pipelines.dataset.index import open_index
from ss4d.pipelines.dataset.keys import Settings, StageKeys
from ss4d.pipelines.dataset.launches import Launch
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.rebuild import rebuild_index
from ss4d.pipelines.stage_result import stored_result
from ss4d.pipelines.store.housekeeping import collect
from ss4d.stages.types import silent
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore, open_store
from tests.helpers.dataset_history import KEYS, digest, four_clips, opened
from tests.pipelines.dataset.test_keys import WEIGHTS

KEY = KEYS.of([digest("a")])["slat"][0]
REF = ArtifactRef("slat", KEY)
YESTERDAY, TOMORROW = "2020-01-01T00:00:00.000+00:00", "2999-01-01T00:00:00.000+00:00"
COSTS = {"seconds": 1.0, "peak_memory": 1, "peak_device_memory": 0, "versions": {}, "inputs": {}}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """One that ran once, and needs nothing that the tests make."""
    made = four_clips(tmp_path / "set")
    Launch(made, Settings(seed=7), StageKeys(load_config("tiny"), WEIGHTS, 7).recipes(), {})
    return made


def known(dataset: Dataset) -> set[str]:
    """The same in whatever order the files are read, into an old index or a new one."""
    with open_index(dataset) as index:
        first = index.keys()
    for order in (1, -1):
        dataset.index.unlink()
        for number, file in enumerate(sorted(dataset.events.iterdir(), key=lambda file: file.read_text())[::order]):
            file.rename(dataset.events / f"{number}-{order}.jsonl")
        with open_index(dataset) as index:
            assert index.keys() == first
    return first


def make(dataset: Dataset, when: str, ref: ArtifactRef = REF) -> None:
    """A worker makes an artifact and its coordinator, whose clock may be wrong, records that."""
    store = open_store(dataset.store)
    deletions = store.deletions()
    with store.create(ref) as writer:
        writer.commit({**COSTS, "recipe": {}})
    with EventWriter(dataset.events, {}) as file:
        file.write(Attempt(clip="a", stage="slat", key=ref.key, state="done", time=when, deletions=deletions))


def find(dataset: Dataset, when: str) -> None:
    """A worker finds the artifact where a plan did not know of it."""
    result = stored_result(open_store(dataset.store), REF)
    assert result is not None
    with EventWriter(dataset.events, {}) as file:
        found = Attempt(clip="a", stage="slat", key=KEY, state="reused", time=when, deletions=result.deletions)
        file.write(found)


def gc(dataset: Dataset, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "now", lambda: when)
    collect(dataset.store, min_age=0, dry_run=False, progress=silent)


@pytest.mark.parametrize(("makers", "collectors"), [(TOMORROW, YESTERDAY), (YESTERDAY, TOMORROW)])
def test_made_and_deleted_and_made_again(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, makers: str, collectors: str
) -> None:
    for _ in range(3):
        make(dataset, makers)
        assert known(dataset) == {KEY}
        gc(dataset, collectors, monkeypatch)
        assert known(dataset) == set()
    make(dataset, makers)
    find(dataset, makers)
    assert known(dataset) == {KEY}
    gc(dataset, collectors, monkeypatch)
    assert known(dataset) == set()


@pytest.mark.parametrize("when", [YESTERDAY, TOMORROW])
def test_what_is_lost_without_a_record_is_found_out(dataset: Dataset, when: str) -> None:
    make(dataset, when)
    store = ArtifactStore(Path(dataset.store))
    store.place.remove(REF)
    assert known(dataset) == {KEY}
    with opened(dataset) as asked:
        rebuild_index(asked, silent)
    assert known(dataset) == set()
    make(dataset, when)
    assert known(dataset) == {KEY}
    with opened(dataset) as asked:
        rebuild_index(asked, silent)
    assert known(dataset) == {KEY}


def test_events_of_earlier_versions_go_by_their_times(dataset: Dataset) -> None:
    with EventWriter(dataset.events, {}) as file:
        for state, when in (("done", "2024-01-01"), ("gone", "2024-01-02"), ("done", "2024-01-03")):
            file.write(Attempt(clip="a", stage="slat", key=KEY, state=state, time=when))  # type: ignore[arg-type]
    assert '"deletions"' not in "".join(path.read_text() for path in dataset.events.iterdir())
    assert known(dataset) == {KEY}
    with EventWriter(dataset.events, {}) as file:
        file.write(Attempt(clip="a", stage="slat", key=KEY, state="gone", time="2024-01-04"))
    assert known(dataset) == set()


def test_an_index_of_an_earlier_version_gains_the_count(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    make(dataset, TOMORROW)
    assert known(dataset) == {KEY}
    with sqlite3.connect(dataset.index) as connection:
        for table in ("artifacts", "gone"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN deletions")
        connection.execute("PRAGMA user_version = 1")
    with open_index(dataset) as index:
        assert index.keys() == {KEY}
    gc(dataset, YESTERDAY, monkeypatch)
    assert known(dataset) == set()


def test_what_was_just_made_stays_whatever_this_host_takes_the_time_for(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(dataset, YESTERDAY)
    ahead = time.time() + 24 * 3600
    monkeypatch.setattr(time, "time", lambda: ahead)
    sorting = collect(dataset.store, min_age=3600, dry_run=False, progress=silent)
    assert list(sorting.recent) == [REF]
