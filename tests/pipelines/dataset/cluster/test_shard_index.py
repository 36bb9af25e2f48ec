"""Indexes of shards and of datasets that cannot be written: made of events, each for its own process."""

import sqlite3
from contextlib import ExitStack
from pathlib import Path

import pytest

from ss4d.pipelines.dataset.events import Attempt, EventWriter
from ss4d.pipelines.dataset.index import open_index
from ss4d.pipelines.dataset.keys import Settings
from ss4d.pipelines.dataset.layout import Dataset, create_dataset, open_dataset
from ss4d.pipelines.dataset.manifest import Row
from ss4d.pipelines.dataset.opened import open_for
from ss4d.pipelines.dataset.rebuild import rebuild_index
from ss4d.stages.types import silent
from ss4d.storage.errors import StoreError
from ss4d.storage.manifest import write_rows

KEY = "a" * 64


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return create_dataset(tmp_path / "birds")


def test_a_shared_dataset_has_an_index_for_each_process(dataset: Dataset) -> None:
    with EventWriter(dataset.events, {}) as events:
        events.write(Attempt(clip="a", stage="export", key=KEY, state="done", time="2026-01-01T00:00:00.000+00:00"))
    shared = open_dataset(dataset.folder, shared=True)
    with ExitStack() as stack:
        for index in [stack.enter_context(open_index(shared)) for _ in range(2)]:
            assert index.complete(["export"]) == {"export": {KEY}}
    assert {path.name for path in dataset.folder.iterdir()} == {"dataset.json", "events", "logs"}


def test_a_shard_reads_of_its_own_clips_only(dataset: Dataset) -> None:
    names = ["a", 'quoted "b"', "ö", "other"]
    with EventWriter(dataset.events, {"python": "3"}) as events:
        for number, name in enumerate(names):
            events.write(Attempt(clip=name, stage="export", key=str(number), state="done", time="2026-01-01"))
        events.write(Attempt(clip="", stage="export", key="0", state="gone", time="2026-01-02"))
    shared = open_dataset(dataset.folder, shared=True)
    with open_index(shared, set(names[:3])) as index:
        assert index.complete(["export"]) == {"export": {"1", "2"}}
        assert list(index.versions().values()) == [{"python": "3"}]
    with pytest.raises(AssertionError), open_index(dataset, {"a"}):  # others would rely on it
        pass


def test_a_dataset_that_cannot_be_written_can_be_asked(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    with EventWriter(dataset.events, {}) as events:
        events.write(Attempt(clip="a", stage="export", key=KEY, state="done", time="2026-01-01T00:00:00.000+00:00"))
    before = sorted(dataset.folder.rglob("*"))
    monkeypatch.setattr("ss4d.pipelines.dataset.index.os.access", lambda *_: False)  # root may write anywhere
    with open_index(dataset) as index:
        assert index.complete(["export"]) == {"export": {KEY}}
    assert sorted(dataset.folder.rglob("*")) == before


def test_every_index_knows_of_what_was_lost(dataset: Dataset) -> None:
    """Also those of shards, which are made of events and never look into the store."""
    write_rows(dataset.manifest, Row, [])
    with EventWriter(dataset.events, {}) as events:
        events.write(Attempt(clip="a", stage="export", key=KEY, state="done", time="2026-01-01T00:00:00.000+00:00"))
    with open_for(dataset, Settings()) as opened:
        assert opened.index.complete(["export"]) == {"export": {KEY}}
        rebuild_index(opened, silent)
    for opened in (dataset, open_dataset(dataset.folder, shared=True)):
        with open_index(opened) as index:
            assert index.complete(["export"]) == {"export": set()}


def test_a_full_disk_names_the_folder_of_temporary_files(dataset: Dataset) -> None:
    shared = open_dataset(dataset.folder, shared=True)
    with pytest.raises(StoreError, match="cannot be kept in a temporary file: disk full; TMPDIR says"):  # noqa: SIM117
        with open_index(shared) as index, index.changing():
            raise sqlite3.OperationalError("disk full")
