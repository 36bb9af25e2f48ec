"""Index and catalog: what events and store tell of a dataset, whatever else is lost; which clips a choice means."""

import json
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.config import load_config
from ss4d.pipelines.dataset.events import read_events
from ss4d.pipelines.dataset.failures import clear_failures, groups, open_failures
from ss4d.pipelines.dataset.index import explained, open_index
from ss4d.pipelines.dataset.keys import Settings, StageKeys, choose_settings
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.manifest import Row, read_manifest
from ss4d.pipelines.dataset.opened import open_for
from ss4d.pipelines.dataset.select import Choice, parse_shard, select
from ss4d.pipelines.errors import ConfigError
from ss4d.storage.errors import NewerError, StoreError
from ss4d.storage.manifest import write_rows
from tests.helpers.dataset_history import (
    KEYS,
    ORDER,
    VERSIONS,
    attempt,
    digest,
    entries,
    finish,
    four_clips,
    happen,
    opened,
    read_catalog,
    row,
    states,
)
from tests.helpers.unfitted import OFF
from tests.pipelines.dataset.test_keys import WEIGHTS


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return four_clips(tmp_path / "set")


# Events


def test_events_are_read_once_and_whole_lines_only(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    finish(dataset, "a", stages=ORDER[:2])
    (file,) = dataset.events.iterdir()
    with file.open("ab") as out:
        out.write(b'{"clip": "b", "sta')
    (batch,) = read_events(dataset.events, {})
    assert [attempt.stage for attempt in batch.attempts] == ORDER[:2]
    assert list(batch.versions.values()) == [VERSIONS]
    assert list(read_events(dataset.events, {batch.file: batch.end})) == []
    whole = json.dumps(asdict(attempt("b", "slat"))).encode()
    file.write_bytes(file.read_bytes()[: batch.end] + b"\0\0\0\n{}\n[3]\n" + whole + b"\n")
    (later,) = read_events(dataset.events, {batch.file: batch.end})
    assert [attempt.clip for attempt in later.attempts] == ["b"]
    assert caplog.text.count("has a damaged line") == 3


def test_events_of_a_newer_version_are_refused(dataset: Dataset) -> None:
    (dataset.events / "host-1-1.jsonl").write_text('{"schema": 2, "versions": {}}\n')
    with pytest.raises(NewerError, match=r"host-1-1\.jsonl was written by a newer version"), open_index(dataset):
        pass


# The index


def test_what_was_done_is_known_by_key(dataset: Dataset) -> None:
    finish(dataset, "a", "b")
    with open_index(dataset) as index:
        assert index.complete(["slat"])["slat"] == set(KEYS.of([digest("a"), digest("b")])["slat"])
        assert index.complete(["nothing"])["nothing"] == set()
        finish(dataset, "c")
        assert len(index.complete(["slat"])["slat"]) == 2
        index.refresh()
        assert len(index.complete(["slat"])["slat"]) == 3
        assert index.versions() == {index_version(dataset): VERSIONS}
    dataset.index.unlink()
    with open_index(dataset) as index:
        assert len(index.complete(["slat"])["slat"]) == 3


def index_version(dataset: Dataset) -> str:
    return next(iter(next(iter(read_events(dataset.events, {}))).versions))


def test_failures_count_until_they_are_cleared_or_mended(dataset: Dataset) -> None:
    """In whatever order the files of events are read."""
    happen(dataset, attempt("a", "slat", "forgiven", 5), attempt("b", "slat", "done", 9))
    happen(dataset, attempt("a", "slat", "failed", 4), attempt("b", "slat", "failed", 3))
    with open_index(dataset) as index:
        assert index.failures() == []
        again = attempt("a", "slat", "failed", 6, number=2, versions=index_version(dataset))
        happen(dataset, again)
        index.refresh()
        assert index.failures() == [again]
    found = entries(dataset)
    assert (found["a", "slat"].state, found["a", "slat"].attempts) == ("failed", 2)
    assert (found["b", "slat"].state, found["b", "slat"].attempts, found["b", "slat"].error) == ("done", 2, None)


def test_who_made_it_counts_more_than_who_found_it(dataset: Dataset) -> None:
    happen(dataset, attempt("a", "slat", "reused", 9, worker="finder:1"))
    happen(dataset, attempt("a", "slat", "done", 1, worker="maker:1"))
    happen(dataset, attempt("a", "slat", "reused", 10, worker="finder:1"))
    assert entries(dataset)["a", "slat"].worker == "maker:1"


def test_an_index_that_cannot_be_used(dataset: Dataset) -> None:
    with open_index(dataset) as index:
        list(index.query("PRAGMA user_version = 3"))
    with pytest.raises(NewerError, match="upgrade to use this dataset"), open_index(dataset):
        pass
    with closing(sqlite3.connect(dataset.index)) as index:
        index.execute("PRAGMA user_version = 1")
    data = dataset.index.read_bytes()
    no_text = data.replace(b"CREATE TABLE ", b"CREATE TABL\xa6 ")  # SQLite complains of it in these words
    assert no_text != data
    for damaged in (no_text, b"no database at all, but long enough to be read as one" * 99):
        for path in dataset.folder.glob("index.sqlite*"):
            path.unlink()
        dataset.index.write_bytes(damaged)
        with (
            pytest.raises(StoreError, match=r"is damaged .*: delete it, and `ss4d dataset catalog rebuild"),
            open_index(dataset),
        ):
            pass


def test_a_full_disk_is_told_as_one(dataset: Dataset) -> None:
    full = sqlite3.connect(":memory:")
    full.execute("PRAGMA max_page_count = 1")
    with pytest.raises(OSError, match="No space left") as caught, explained(dataset):
        full.execute("CREATE TABLE a (b)")
    assert caught.value.filename == str(dataset.index)


def test_a_hundred_thousand_artifacts_are_read_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    header = json.dumps({"schema": 1, "versions": VERSIONS})
    line = json.dumps(asdict(attempt("a", "export", key="KEY")))
    lines = (line.replace("KEY", f"{n:064x}") for n in range(100_000))
    (dataset.events / "host-1-1.jsonl").write_text("\n".join([header, *lines, ""]))
    with open_index(dataset) as index:
        assert len(index.complete(["export"])["export"]) == 100_000
    monkeypatch.setattr("ss4d.pipelines.dataset.events._parsed", lambda *_: pytest.fail("it is read again"))
    with open_index(dataset) as index:
        assert len(index.complete(["export"])["export"]) == 100_000


# The catalog


def test_the_catalog_has_a_row_for_each_clip_and_stage(dataset: Dataset) -> None:
    finish(dataset, "a")
    finish(dataset, "b", stages=ORDER[:3])
    happen(dataset, attempt("b", "slat", "failed", 1), attempt("b", "slat", "failed", 2, message="still no"))
    found = entries(dataset)
    assert list(found) == [*((clip, stage) for clip in "abc" for stage in ORDER), ("bad", "")]
    made = found["a", "sparse_structure"]
    assert (made.state, made.seconds, made.peak_memory, made.attempts, made.worker) == ("done", 2.5, 100, 1, "host:1")
    assert (made.measures["voxels"], made.measures["gaussians"], made.seed) == (700, None, 42)
    assert json.loads(made.versions or "") == VERSIONS
    assert made.key == KEYS.of([digest("a")])["sparse_structure"][0]
    measured = found["a", "segmentation"].measures
    assert (measured["foreground"], measured["frames"]) == (0.25, 4)
    assert found["a", "segmentation"].seed is None
    assert found["a", "decoding"].measures["gaussians"] == 9000
    failed = found["b", "slat"]
    assert (failed.state, failed.attempts, failed.error, failed.message) == ("failed", 2, "InputError", "still no")
    assert failed.cause == "input"
    assert states(dataset, "b") == ["done"] * 3 + ["failed", "to do", "to do"]
    bad = found["bad", ""]
    assert (bad.state, bad.error, bad.message, bad.cause) == ("unreadable", "Unreadable", "bad.mp4 is damaged", "input")


def test_a_late_parameter_leaves_what_is_before_it(dataset: Dataset) -> None:
    finish(dataset, "a")
    happen(dataset, attempt("a", "slat", "failed", 1, keys=StageKeys(load_config("tiny", OFF), WEIGHTS, 1)))
    later = StageKeys(load_config("tiny", [*OFF, "export.frames=12"]), WEIGHTS, 42)
    assert states(dataset, "a", later) == ["done"] * 5 + ["to do"]
    assert states(dataset, "a") == ["done"] * 6  # the failure is of another seed


def test_freed_tokens_are_not_needed(dataset: Dataset) -> None:
    finish(dataset, "a", stages=[stage for stage in ORDER if stage != "conditioning"])
    assert states(dataset, "a") == ["done", "not needed", "done", "done", "done", "done"]


def test_a_dataset_without_clips(dataset: Dataset) -> None:
    write_rows(dataset.manifest, Row, [])
    assert entries(dataset) == {}


# Choosing clips


def chosen(dataset: Dataset, **choice: Any) -> list[str]:
    with opened(dataset) as asked:
        return [row.id for row in select(asked.rows, Choice(**choice), asked.index, asked.keys)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("frames > 10", ["a"]),
        ("tags LIKE '%bird%' AND fps = 24", ["a", "b"]),
        ("voxels > 500", ["a"]),
        ("state = 'done'", ["a"]),
        ("state = 'failed'", ["c"]),
        ("state = 'to do' -- and a comment", ["b"]),
        ("error IS NOT NULL", ["bad"]),
        ("width = (SELECT max(width) FROM clips)", ["c"]),
    ],
)
def test_where(dataset: Dataset, where: str, expected: list[str]) -> None:
    finish(dataset, "a")
    happen(dataset, attempt("c", "slat", "failed"))
    assert chosen(dataset, where=where) == expected


@pytest.mark.parametrize(
    "where",
    [
        *("voxel > 3", "frames >", "", "max(frames) > 2", "'\0'", "load_extension('x')"),
        *("zeroblob(2000000000) > ''", f"id LIKE '{'%a' * 600}'"),
        *("printf('%.*c', 2000000000, 'x') > ''", "FORMAT('%.*c', 2000000000, 'x') > ''"),
        *("1); DROP TABLE clips; --", "1) UNION SELECT id FROM clips; DELETE FROM clips; --"),
        "(INSERT INTO clips DEFAULT VALUES)",
    ],
)
def test_where_that_cannot_be_asked(dataset: Dataset, where: str) -> None:
    with pytest.raises(ConfigError, match=r"--where .* is not valid: .* over id, source, .* gaussians, foreground"):
        chosen(dataset, where=where)
    assert len(chosen(dataset)) == 4


ENDLESS = "id IN (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n)"


def test_where_ends_in_the_time_that_is_set(dataset: Dataset) -> None:
    keys = StageKeys(load_config("tiny", [*OFF, "limits.where_seconds=0.2"]), WEIGHTS, 42)
    with opened(dataset, keys) as asked, pytest.raises(ConfigError, match=r"more than 0.2 s.*limits\.where_seconds"):
        select(asked.rows, Choice(where=ENDLESS), asked.index, keys)


def test_text_in_the_index_that_is_none_is_damage(dataset: Dataset) -> None:
    with closing(sqlite3.connect(":memory:")) as index:
        index.execute("CREATE TABLE t AS SELECT CAST(x'ff' AS TEXT) AS name")
        with pytest.raises(StoreError, match=r"is damaged .*rebuild"), explained(dataset):
            index.execute("SELECT name FROM t").fetchall()


def test_where_hears_ctrl_c(dataset: Dataset) -> None:
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            chosen(dataset, where=ENDLESS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, heard)


def test_shards_are_parts_that_stay(dataset: Dataset) -> None:
    many = [row(f"clip{n}") for n in range(300)]
    write_rows(dataset.manifest, Row, many)
    parts = [chosen(dataset, shard=f"{number}/3") for number in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(row.id for row in many)
    assert all(70 < len(part) < 130 for part in parts)
    write_rows(dataset.manifest, Row, [row("new"), *many])
    assert [name for name in chosen(dataset, shard="2/3") if name != "new"] == parts[1]
    for text in ("0/3", "4/3", "1", "a/b", "1/0", "-1/3"):
        with pytest.raises(ConfigError, match="--shard takes i/n"):
            parse_shard(text)


def test_limit_counts_what_can_be_read(dataset: Dataset) -> None:
    rows = read_manifest(dataset)
    write_rows(dataset.manifest, Row, [rows[3], *rows[:3]])
    assert chosen(dataset, limit=2) == ["bad", "a", "b"]
    assert chosen(dataset, limit=9) == ["bad", "a", "b", "c"]
    with pytest.raises(ConfigError, match="--limit must be at least 1"):
        chosen(dataset, limit=0)


# Failures


def test_failures_are_grouped_and_cleared(dataset: Dataset) -> None:
    killed = {"error": "TimeLimit", "cause": "killed", "message": "over 9 s"}
    happen(dataset, attempt("a", "slat", "failed", 1, **killed), attempt("b", "slat", "failed", 2, **killed))
    happen(dataset, attempt("c", "segmentation", "failed", 3), attempt("c", "slat", "done", 4))
    with opened(dataset) as asked:
        found = groups(asked.rows, open_failures(asked))
        assert [(group.cause, group.error, group.stage, group.clips) for group in found] == [
            ("killed", "TimeLimit", "slat", ["b", "a"]),
            ("input", "InputError", "segmentation", ["c"]),
            ("input", "Unreadable", "", ["bad"]),
        ]
        assert [attempt.clip for attempt in clear_failures(asked, cause="killed", clips=["a"])] == ["a"]
        assert [attempt.clip for attempt in open_failures(asked)] == ["c", "b"]
        assert clear_failures(asked, error="KeyError") == []
        assert len(clear_failures(asked)) == 2
        assert asked.index.failures() == []
        with pytest.raises(
            ConfigError, match="--cause must be one of input, transient, killed, numbers, program; got 'any'"
        ):
            clear_failures(asked, cause="any")
        with pytest.raises(ConfigError, match=r"no clip of .* is called x, y"):
            clear_failures(asked, clips=["y", "a", "x"])


# The commands


@pytest.fixture
def command() -> Callable[..., str]:
    """What a command prints, which must succeed."""

    def run(*words: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["dataset", *map(str, words)], env={"COLUMNS": "200"})
        assert result.exit_code == code, result.output
        return " ".join(result.output.split())

    return run


def test_the_commands(dataset: Dataset, model_folder: Path, command: Callable[..., str]) -> None:
    said = Settings(overrides=[f"model={model_folder}", *OFF, "slat.sampler.steps=2"], seed=7)
    dataset.launches.write_text(json.dumps(said.recorded()) + "\n")
    with open_for(dataset, choose_settings(dataset)) as asked:  # as the last launch says
        keys = asked.keys
    happen(dataset, *(attempt("a", stage, keys=keys) for stage in ORDER))
    happen(dataset, attempt("b", "slat", "failed", keys=keys, message="two\nlines"))

    printed = command("catalog", dataset.folder)
    assert "stage done to do failed unreadable segmentation 1 2 0 0" in printed
    assert "slat 1 1 1 0 decoding" in printed
    assert len(read_catalog(dataset)) == 19
    printed = command("catalog", dataset.folder, "--config", "tiny", "--seed", 7)
    assert "segmentation 1 2 0 conditioning 0 3 0" in printed  # which takes no weights

    printed = command("failures", dataset.folder)
    assert "input InputError slat 1 b two " in printed
    assert "input Unreadable - 1 bad bad.mp4 is damaged" in printed
    printed = command("retry", dataset.folder, "--cause", "input", "b")
    assert "Cleared 1 of 1 failures, of 1 clips." in printed
    sets = " ".join(f"--set {value}" for value in said.overrides)
    assert f"run {dataset.folder} {sets} --seed 7" in printed
    assert "retry" not in command("failures", dataset.folder)

    printed = command("catalog", "rebuild", dataset.folder)
    assert "0 artifacts of 0 clips" in printed
    assert "segmentation 3 0" in printed
    assert "is not a dataset" in command("catalog", dataset.folder.parent, code=1)
    assert "rebuild" in command("catalog", "--help")


@pytest.mark.parametrize(
    "change",
    [
        {"key": 7},
        {"peak_memory": 10**30},
        {"seconds": "long"},
        {"measures": [1]},
        {"message": {"of": "another kind"}},
        {"clip": None},
        {"state": "lost"},
        {"time": 1.5},
    ],
)
def test_a_line_of_a_wrong_kind_is_named_and_skipped(
    dataset: Dataset, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    happen(dataset, attempt("a", "slat"), attempt("b", "slat", "failed"))
    (file,) = dataset.events.iterdir()
    lines = file.read_text().splitlines()
    changed = {**json.loads(lines[2]), **change}
    file.write_text(
        "\n".join([*lines[:2], json.dumps(changed), "[]", "7", '{"schema": "x"}', '{"clip": "\\ud800"']) + "\n"
    )
    with opened(dataset) as asked:
        assert asked.index.keys() == {attempt("a", "slat").key}
        assert asked.index.failures() == []
    assert caplog.text.count(f"{file} has a damaged line, which is skipped") == 5
