"""Who needs what of a store that machines share, each with its own folders under the same paths and its own clock."""

import errno
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ss4d.pipelines.dataset.keys import Settings
from ss4d.pipelines.dataset.launches import Launch
from ss4d.pipelines.dataset.layout import create_dataset
from ss4d.pipelines.dataset.manifest import Row
from ss4d.pipelines.dataset.references import known_digests
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.run_record import RECORD
from ss4d.pipelines.store import housekeeping
from ss4d.pipelines.store.housekeeping import Sorting, collect
from ss4d.pipelines.store_notes import BEGUN, Note, identity_of, note_launch
from ss4d.storage.errors import StoreError
from ss4d.storage.folder import FolderPlace
from ss4d.storage.manifest import write_rows
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore, open_store
from tests.helpers.dataset_history import row
from tests.helpers.recorded_runs import make, note, refs, refs_of
from tests.pipelines.dataset.test_housekeeping import NEW
from tests.pipelines.dataset.test_housekeeping import refs as refs_of_dataset

pytest_plugins = ["tests.helpers.s3_server"]
WriteRun = Callable[..., Path]
DAY = 24 * 3600.0
LAUNCH: Any = (Settings(), NEW.recipes(), {})


class Hosts:
    """Machines that all have their runs at one path, and each its own folder there."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.path, self._patch = path, patch
        self._real = time.time

    @contextmanager
    def on(self, host: str, ahead: float = 0) -> Iterator[Path]:
        """What this process does in here it does on that machine; gives its folder of runs."""
        own = self.path.with_name(f"runs of {host}")
        own.mkdir(exist_ok=True)
        own.rename(self.path)
        with self._patch.context() as patch:
            patch.setattr(socket, "gethostname", lambda: host)
            patch.setattr(time, "time", lambda: self._real() + ahead)
            yield self.path
        self.path.rename(own)


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    (tmp_path / "machine").mkdir()
    return Hosts(tmp_path / "machine" / "runs", monkeypatch)


@pytest.fixture(params=["folder", "beside", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store that the machines share: elsewhere, beside the runs of each, or an object store."""
    if request.param == "s3":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return str(request.getfixturevalue("s3").new_url())
    return str((hosts.path.parent if request.param == "beside" else tmp_path) / "store")


def gc(location: str, **options: Any) -> Sorting:
    return collect(location, **{"min_age": 0, "dry_run": False, "progress": lambda *_: None, **options})


def stored(location: str) -> set[ArtifactRef]:
    return set(open_store(location).refs())


def test_what_the_runs_of_another_machine_need_stays(location: str, hosts: Hosts, write_run: WriteRun) -> None:
    store = open_store(location)
    for number in (1, 2, 3):
        make(store, number)
    for host, number in (("a", 1), ("b", 2)):
        with hosts.on(host) as runs:
            note(store, write_run(runs / "clip", number), number)
    for host in ("b", "a", "c"):  # the last has no run
        with hosts.on(host, ahead=DAY):
            sorting = gc(location)
        assert stored(location) == refs(1, 2)
        assert len(sorting.doubts) == (2 if host == "c" else 1)
        assert "cannot be looked at from here" in sorting.doubts[0]
    with hosts.on("b"):
        dropped = {unused.ref for unused in gc(location, drop=["tokens"]).unused}
    assert dropped == {refs_of(2)["conditioning"]}, "unfinished runs may be among those of the other"


def test_a_run_that_is_gone_lets_go_on_its_own_machine(location: str, hosts: Hosts, write_run: WriteRun) -> None:
    store = open_store(location)
    for host, number in (("a", 1), ("b", 2)):
        make(store, number)
        with hosts.on(host) as runs:
            note(store, write_run(runs / "clip", number), number)
            note(store, write_run(runs / "other", number), number)
    with hosts.on("a") as runs:
        shutil.rmtree(runs / "clip")
        shutil.rmtree(runs / "other")
        gc(location)
    assert stored(location) == refs(2)
    with hosts.on("c"):
        gc(location)
        assert stored(location) == refs(2)
        gc(location, forget=["a:*"])
        assert stored(location) == refs(2)


def test_a_copy_of_a_folder_of_runs_is_another(tmp_path: Path, write_run: WriteRun) -> None:
    store = ArtifactStore(tmp_path / "store")
    runs = tmp_path / "elsewhere" / "runs"
    note(store, write_run(runs / "clip", 1), 1)
    shutil.copytree(runs, tmp_path / "copy")
    assert identity_of(tmp_path / "copy") not in (None, identity_of(runs))
    runs.rename(tmp_path / "moved")
    assert identity_of(tmp_path / "moved") in next(iter(store.place.notes("runs")))


def test_old_notes_count_where_they_were_written(tmp_path: Path, write_run: WriteRun) -> None:
    location, runs = str(tmp_path / "store"), tmp_path / "elsewhere" / "runs"
    store = open_store(location)
    for number in (1, 2):
        make(store, number)
    write_run(runs / "clip", 1)
    store.place.note("runs/0", Note(host="another", folder=runs).model_dump_json())
    with pytest.raises(ConfigError, match=r"cannot be read, so nothing is deleted; .*--runs"):
        gc(location)
    assert stored(location) == refs(1, 2)
    gc(location, runs=[runs])
    assert stored(location) == refs(1)


def test_an_old_note_of_a_folder_that_cannot_be_stops_who_deletes(tmp_path: Path, write_run: WriteRun) -> None:
    location = str(tmp_path / "store")
    make(open_store(location), 1)
    write_run(tmp_path / "runs" / "clip", 2)
    open_store(location).place.note("runs/0", Note(host="another", folder=Path("/a\0b")).model_dump_json())
    with pytest.raises(StoreError, match=r"the note .* is damaged, .* nothing is deleted"):
        gc(location, runs=[tmp_path / "runs"])
    assert stored(location) == refs(1)


def test_a_record_that_cannot_be_read_keeps_what_its_run_noted(tmp_path: Path, write_run: WriteRun) -> None:
    location, runs = str(tmp_path / "store"), tmp_path / "runs"
    store = open_store(location)
    for number in (1, 2, 3):
        make(store, number)
    write_run(runs / "whole", 1)
    bad = write_run(runs / "bad", 2)
    note(store, bad, 2)
    text = (bad / RECORD).read_text()
    key = refs_of(2)["slat"].key
    for damaged in ("", text[:-9], text.replace(key, key[:-1] + ("0" if key[-1] != "0" else "1"))):
        (bad / RECORD).write_text(damaged)
        sorting = gc(location)
        assert "what that run noted in the store when it began is kept" in sorting.doubts[0]
        assert stored(location) == refs(1, 2)
    (bad / RECORD).unlink()
    gc(location)
    os.symlink("nowhere", bad / RECORD)  # no certainty that there is no record
    gc(location)
    assert stored(location) == refs(1, 2)
    assert len(store.place.notes("runs")) == 1
    shutil.rmtree(bad)
    gc(location)
    assert (stored(location), store.place.notes("runs")) == (refs(1), {})


@pytest.mark.parametrize("noted", [True, False])
def test_a_run_on_a_disk_that_is_away_keeps_what_it_needs(tmp_path: Path, write_run: WriteRun, noted: bool) -> None:
    location, runs = str(tmp_path / "store"), tmp_path / "runs"
    store = open_store(location)
    for number in (1, 2, 3):
        make(store, number)
    write_run(runs / "here", 1)
    write_run(tmp_path / "disk" / "away", 2)
    (runs / "away").symlink_to(tmp_path / "disk" / "away")
    if noted:
        note(store, runs / "away", 2)
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    if noted:
        assert "away/run.json is not there" in gc(location).doubts[0]
        assert stored(location) == refs(1, 2)
    else:
        with pytest.raises(StoreError, match=r"away/run.json is not there.*nothing is deleted"):
            gc(location)
        assert stored(location) == refs(1, 2, 3)
    (tmp_path / "unmounted").rename(tmp_path / "disk")
    gc(location)
    assert stored(location) == refs(1, 2)


def test_a_damaged_note_stops_who_cannot_look(tmp_path: Path, write_run: WriteRun) -> None:
    location, runs = str(tmp_path / "store"), tmp_path / "elsewhere" / "runs"
    store = open_store(location)
    for number in (1, 2):
        make(store, number)
    note(store, write_run(runs / "clip", 1), 1)
    ((name, text),) = store.place.notes("runs").items()
    key = refs_of(1)["slat"].key
    store.place.note(f"runs/{name}", text.replace(key, key[::-1]))
    (tmp_path / "runs").mkdir()
    assert gc(location, runs=[runs], dry_run=True).doubts == []
    runs.rename(tmp_path / "away")
    with pytest.raises(StoreError, match=r"the note .* is damaged, .* nothing is deleted"):
        gc(location)
    assert stored(location) == refs(1, 2)


def test_a_dataset_elsewhere_keeps_what_its_last_launch_needs(tmp_path: Path) -> None:
    dataset = create_dataset(tmp_path / "set", store=str(tmp_path / "store"))
    write_rows(dataset.manifest, Row, [row("a"), row("b")])
    store = open_store(dataset.store)
    for ref in (*refs_of_dataset(NEW), refs_of(1)["slat"]):
        with store.create(ref) as writer:
            writer.commit({})
    note_launch(store, dataset.folder, NEW.recipes(), known_digests(dataset))
    dataset.folder.rename(tmp_path / "away")
    (tmp_path / "runs").mkdir()
    sorting = gc(dataset.store)
    assert [unused.ref for unused in sorting.unused] == [refs_of(1)["slat"]]
    assert stored(dataset.store) == refs_of_dataset(NEW)


@pytest.mark.parametrize("damage", ["flip", "cut", "join", "empty", "list", "end", "number", "newer"])
def test_a_damaged_line_of_a_launch_frees_nothing(tmp_path: Path, damage: str) -> None:
    dataset = create_dataset(tmp_path / "set")
    write_rows(dataset.manifest, Row, [row("a"), row("b")])
    store = open_store(dataset.store)
    for ref in refs_of_dataset(NEW):
        with store.create(ref) as writer:
            writer.commit({})
    Launch(dataset, *LAUNCH).end(state="finished", reason=None, clips=2, done=2, failed={}, seconds=1.0)
    assert gc(dataset.store).unused == []
    data = dataset.launches.read_bytes()
    middle = len(data) // 4
    dataset.launches.write_bytes(
        {
            "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "cut": data[:-20],
            "join": data.replace(b"\n", b" ", 1),
            "empty": b"\x00" * len(data),
            "list": b"[]\n",
            "end": data[:-1] + b"\x0b",
            "number": data.replace(b'"steps": 3', b'"steps": 4'),
            "newer": data.replace(b'"schema": 2', b'"schema": 3', 1),
        }[damage]
    )
    assert dataset.launches.read_bytes() != data
    with pytest.raises(StoreError, match=r"line \d+ of .*(cannot be read, .* nothing is deleted|newer version)"):
        gc(dataset.store)
    assert stored(dataset.store) == refs_of_dataset(NEW)


def test_what_is_read_grows_with_runs_plus_artifacts(
    tmp_path: Path,
    write_run: WriteRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    location = str(tmp_path / "store")
    store = open_store(location)
    read: list[str] = []
    for number in range(8):
        make(store, number)
    for number in range(4):
        write_run(tmp_path / "runs" / str(number), number)
    real_record, real_note = housekeeping.read_plain, FolderPlace.text_of
    monkeypatch.setattr(housekeeping, "read_plain", lambda path: (read.append(path.name), real_record(path))[1])
    monkeypatch.setattr(FolderPlace, "text_of", lambda place, name: (read.append(name), real_note(place, name))[1])
    assert len(gc(location).unused) == 8
    assert read.count(RECORD) == 4
    assert read.count(BEGUN) == 9


def test_notes_that_cannot_be_listed_stop_who_deletes(
    tmp_path: Path, write_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = str(tmp_path / "store")
    store = open_store(location)
    for number in (1, 2):
        make(store, number)
    note(store, write_run(tmp_path / "elsewhere" / "runs" / "clip", 2), 2)
    write_run(tmp_path / "runs" / "clip", 1)
    real = os.scandir

    def scandir(path: Any) -> Any:
        if ".notes" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        gc(location)
    monkeypatch.undo()
    assert stored(location) == refs(1, 2)
