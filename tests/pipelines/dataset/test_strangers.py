"""A stranger's dataset: its index is data, and nothing that runs or leads elsewhere, and nothing waits for a pipe."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ss4d.pipelines.dataset.index import open_index
from ss4d.pipelines.dataset.keys import Settings
from ss4d.pipelines.dataset.launches import Launch, only_launch, recorded_launches
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.workers.clip_log import note
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.store_notes import identity_of
from ss4d.storage.errors import StoreError
from ss4d.storage.store import open_store
from tests.helpers.dataset_history import attempt, four_clips, happen

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i AS key FROM n"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    dataset = four_clips(tmp_path / "set")
    happen(dataset, attempt("a", "slat", "failed"))
    with open_index(dataset):
        pass
    return dataset


def change(dataset: Dataset, script: str) -> None:
    with closing(sqlite3.connect(dataset.index)) as connection:
        connection.executescript(script)


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("CREATE TRIGGER t AFTER INSERT ON files BEGIN DELETE FROM failures; END", "t"),
        (f"DROP TABLE artifacts; CREATE VIEW artifacts AS {ENDLESS}", "artifacts"),
        (f"CREATE VIEW wanted AS {ENDLESS}", "wanted"),
    ],
)
def test_queries_in_it_are_refused(dataset: Dataset, script: str, name: str) -> None:
    change(dataset, script)
    with pytest.raises(StoreError, match=rf"'{name}' in it is no table.* catalog rebuild"), open_index(dataset):
        pass


@pytest.mark.timeout(60)
def test_a_view_of_an_earlier_version_is_not_asked(dataset: Dataset) -> None:
    change(dataset, f"CREATE VIEW open_failures AS {ENDLESS}")
    with open_index(dataset) as index:
        assert [failure.clip for failure in index.failures()] == ["a"]


def test_a_link_is_not_written_through(dataset: Dataset, tmp_path: Path) -> None:
    dataset.index.rename(tmp_path / "precious.sqlite")
    dataset.index.symlink_to(tmp_path / "precious.sqlite")
    before = (tmp_path / "precious.sqlite").read_bytes()
    happen(dataset, attempt("b", "slat", "failed"))
    with pytest.raises(StoreError, match="is a link"), open_index(dataset):
        pass
    assert (tmp_path / "precious.sqlite").read_bytes() == before


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["runs.jsonl", ".runs.lock", ".run.lock", ".parts.lock", "logs/a.log"])
def test_nothing_is_appended_through_a_link_or_to_a_pipe(dataset: Dataset, tmp_path: Path, name: str) -> None:
    def run() -> None:
        with only_launch(dataset, "1/2"):
            Launch(dataset, Settings(), {}, {})
        note(dataset.logs, "a", "a line")

    path = dataset.folder / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(tmp_path / "precious")
    with pytest.raises((OSError, ConfigError), match="a link"):
        run()
    assert not (tmp_path / "precious").exists()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="no plain file"):
        run()


@pytest.mark.timeout(60)
def test_nobody_waits_for_a_pipe(dataset: Dataset, tmp_path: Path) -> None:
    (dataset.folder / ".identity").unlink(missing_ok=True)
    for path in (dataset.events / "host-1-1.jsonl", dataset.launches, dataset.folder / ".identity", tmp_path / "a.zip"):
        os.mkfifo(path)
    with pytest.raises(OSError, match=r"no plain file.*host-1-1"), open_index(dataset):
        pass
    with pytest.raises(OSError, match=r"no plain file.*runs\.jsonl"):
        recorded_launches(dataset)
    assert identity_of(dataset.folder) is None
    with pytest.raises(StoreError, match=r"a\.zip is no file"):
        open_store(tmp_path / "a.zip")
