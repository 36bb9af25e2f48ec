"""What holds of a store wherever it lies, in a folder, in memory or on an S3 server; and what dying writers leave."""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import obstore
import pytest
from obstore.store import LocalStore, MemoryStore, from_url

from ss4d.storage.codec import ArrayData
from ss4d.storage.errors import DamageError, StoreError
from ss4d.storage.files import owned_name
from ss4d.storage.objects import ObjectPlace
from ss4d.storage.refs import ArtifactRef, artifact_key
from ss4d.storage.store import ArtifactStore, open_store
from ss4d.storage.verify import problems, verify
from tests.helpers.forks import FORKS

if TYPE_CHECKING:
    from tests.helpers.s3_server import S3

pytest_plugins = ["tests.helpers.s3_server"]
REF, OTHER = (ArtifactRef("slat", artifact_key({"number": number})) for number in (-1, -2))


@dataclass(frozen=True)
class Place:
    """A store, and the files or objects that it is made of."""

    store: ArtifactStore
    objects: obstore.store.ObjectStore

    def names(self) -> list[str]:
        """What there is, but for what a folder's writers are at."""
        found = (meta["path"] for batch in obstore.list(self.objects) for meta in batch)
        return sorted(name for name in found if not name.startswith(".staging/"))

    def read(self, name: str) -> bytes:
        return bytes(obstore.get(self.objects, name).bytes())

    def name(self, ending: str) -> str:
        """The only name with this ending."""
        (name,) = (name for name in self.names() if name.endswith(ending))
        return name


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Staging and copies of remote stores lie here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ss4d" / "store"


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        (tmp_path / "store").mkdir()
        return Place(open_store(tmp_path / "store"), LocalStore(tmp_path / "store"))
    if request.param == "memory":
        objects = MemoryStore()
        return Place(ArtifactStore(ObjectPlace(objects, "memory://")), objects)
    url = request.getfixturevalue("s3").new_url()
    return Place(open_store(url), objects_at(url))


def objects_at(url: str) -> obstore.store.ObjectStore:
    return from_url(url, client_options={"allow_http": True})


def put(store: ArtifactStore, ref: ArtifactRef = REF, *, value: float = 1, replace: bool = False) -> None:
    with store.create(ref, replace=replace) as writer:
        writer.write("feats", ArrayData(np.full((4, 2), value, np.float32), ("t", "c")))
        writer.write("feats_too", ArrayData(np.arange(6).reshape(2, 3), ("n", "c")))
        writer.write("empty", ArrayData(np.zeros((0, 5), np.int32), ("n", "5")))
        (writer.folder / "frames").mkdir()
        (writer.folder / "frames" / "a b.ply").write_text(str(value))
        writer.commit({"seconds": 1.5})


def test_what_is_written_comes_back(place: Place) -> None:
    store = place.store
    assert not store.contains(REF)
    assert list(store.refs()) == []
    assert store.size(REF) == 0
    with pytest.raises(DamageError, match=r"slat/\w+ is missing in .*; a run with --force slat makes it again"):
        store.open(REF)
    put(store)
    put(store, OTHER)
    artifact = store.open(REF)
    assert artifact.arrays() == ("feats", "feats_too", "empty")
    assert artifact.array("feats")[1:3].tolist() == [[1, 1], [1, 1]]
    assert artifact.read("feats_too").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert artifact.read("empty").shape == (0, 5)
    assert {name: path.read_text() for name, path in artifact.files().items()} == {"frames/a b.ply": "1"}
    assert artifact.attributes["seconds"] == 1.5
    assert list(store.refs()) == sorted([REF, OTHER], key=str)
    files = [name for name in place.names() if f"{REF.key}/" in name or f"{REF.key}.zarr/" in name]
    assert store.size(REF) == sum(len(place.read(name)) for name in files) > 2000
    assert abs(store.place.modified(REF) - time.time()) < 600
    assert (store.place.unexpected(), store.place.abandoned(0)) == ([], {})


def test_one_file_comes_without_the_others(place: Place, cache: Path) -> None:
    with place.store.create(REF) as writer:
        for name in ("large", "small"):
            (writer.folder / name).write_text(name)
        writer.commit({})
    artifact = place.store.open(REF)
    assert artifact.file("small").read_text() == "small"
    copies = [path.name for path in cache.rglob("*") if path.is_file()]
    assert copies == ([] if isinstance(place.objects, LocalStore) else ["small"])
    with pytest.raises(StoreError, match="has no file 'other'; it has large, small"):
        artifact.file("other")


def test_nothing_is_there_until_commit(place: Place) -> None:
    with place.store.create(REF) as writer:
        writer.write("feats", ArrayData(np.zeros(2), ("n",)))
        assert not place.store.contains(REF)
    with pytest.raises(RuntimeError, match="stage failed"), place.store.create(REF):
        raise RuntimeError("stage failed")
    assert place.names() == []


def test_the_first_of_two_writers_wins(place: Place) -> None:
    with place.store.create(REF) as first:
        first.write("feats", ArrayData(np.full(2, 2), ("n",)))
        put(place.store)
        before = place.names()
        first.commit({})
    assert place.store.open(REF).read("feats")[0, 0] == 1
    assert place.names() == before


def test_replacing_and_removing_leave_nothing_behind(place: Place) -> None:
    put(place.store)
    count = len(place.names())
    old = place.store.open(REF)
    put(place.store, value=2, replace=True)
    assert place.store.open(REF).read("feats")[0, 0] == 2
    assert len(place.names()) == count
    if place.store.location != str(getattr(place.store.place, "_root", None)):
        with pytest.raises(DamageError, match=r"ss4d verify .+ --repair"):
            old.read("feats")  # an error, not zeros
    place.store.remove(REF)
    place.store.remove(REF)
    assert place.names() == []


def test_a_chunk_that_vanishes_is_an_error_not_zeros(place: Place) -> None:
    put(place.store)
    array = place.store.open(REF).array("feats")
    obstore.delete(place.objects, place.name("feats/c.1.0"))
    assert array[0].tolist() == [1, 1]
    with pytest.raises(DamageError, match=r"c\.1\.0 is missing"):
        array[1]
    with pytest.raises(DamageError, match="lacks chunks: it has 3 of 4"):
        place.store.open(REF).array("feats")


DESCRIPTIONS = ("zarr.json", "feats/zarr.json", "empty/zarr.json", "files/zarr.json")


def flip(place: Place, name: str) -> None:
    data = place.read(name)
    middle = len(data) // 2
    obstore.put(place.objects, name, data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :])


def test_any_damage_is_found(place: Place) -> None:
    put(place.store)
    root = place.name("/feats/zarr.json").removesuffix("feats/zarr.json")
    files = [
        "feats/c.2.0",
        "feats/zarr.json",
        "files/frames/a b.ply",
        "zarr.json",
        "empty/zarr.json",
        "files/zarr.json",
    ]
    for name in (root + file for file in files):
        good = place.read(name)
        flip(place, name)
        assert problems(place.store, REF), f"{name} flipped"
        obstore.delete(place.objects, name)
        assert problems(place.store, REF), f"{name} deleted"
        obstore.put(place.objects, name, good)
        obstore.put(place.objects, f"{name}x", b"unexpected")
        assert problems(place.store, REF), f"{name}x added"
        obstore.delete(place.objects, f"{name}x")
    assert problems(place.store, REF) == []


def test_verify_names_the_damaged(place: Place) -> None:
    put(place.store, OTHER)
    assert verify(place.store, lambda *_: None).damaged == {}
    flip(place, place.name("a b.ply"))
    put(place.store)
    told: list[tuple[int, int]] = []
    findings = verify(place.store, lambda done, total: told.append((done, total)))
    assert findings.damaged == {OTHER: ["files/frames/a b.ply is not what it was"]}
    assert (findings.num_artifacts, told) == (2, [(1, 2), (2, 2)])
    assert findings.num_bytes == sum(map(place.store.size, (REF, OTHER)))
    place.store.remove(OTHER)
    assert verify(place.store, lambda *_: None).damaged == {}


def test_chunks_in_the_wrong_order_are_found(place: Place) -> None:
    with place.store.create(REF) as writer:
        writer.write("feats", ArrayData(np.arange(4.0).reshape(2, 2), ("t", "c")))
        writer.commit({})
    first, second = (place.name(f"feats/c.{number}.0") for number in (0, 1))
    a, b = place.read(first), place.read(second)
    obstore.put(place.objects, first, b)
    obstore.put(place.objects, second, a)
    (problems,) = verify(place.store, lambda *_: None).damaged.values()
    assert problems == ["feats: its zarr.json or the order of its chunks is not what it was"]


def test_what_is_no_artifact_is_named(place: Place) -> None:
    put(place.store)
    for name in ("slat/00/notes.txt", "slat/lost.txt", "top.txt", f"slat/11/{'0' * 64}.zarr.json"):
        obstore.put(place.objects, name, b"x")
    assert sorted(place.store.place.unexpected()) == [
        "slat/00/notes.txt",
        f"slat/11/{'0' * 64}.zarr.json",
        "slat/lost.txt",
        "top.txt",
    ]
    assert list(place.store.refs()) == [REF]


# ---- what only object stores have ----


@pytest.fixture
def remote(s3: "S3") -> Place:
    url = s3.new_url()
    return Place(open_store(url), objects_at(url))


def test_any_flipped_byte_of_a_pointer_is_found(remote: Place) -> None:
    put(remote.store)
    name = remote.name(f"{REF.key}.json")
    good = remote.read(name)
    for position in range(0, len(good), 7):
        obstore.put(remote.objects, name, good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        assert not remote.store.contains(REF)
        assert list(verify(remote.store, lambda *_: None).damaged) == [REF]
    put(remote.store, value=2)
    assert remote.store.open(REF).read("feats")[0, 0] == 2


@pytest.mark.parametrize(
    "target", ["../../elsewhere", "/etc", ".attempts/slat/../../x", f".attempts/slat/{OTHER.key}/"]
)
def test_a_pointer_cannot_lead_elsewhere(remote: Place, target: str) -> None:
    obstore.put(remote.objects, f"slat/{REF.key[:2]}/{REF.key}.json", f'{{"artifact": "{target}"}}\n'.encode())
    assert not remote.store.contains(REF)
    with pytest.raises(DamageError, match="pointer is damaged"):
        remote.store.open(REF)


def test_copies_are_checked_and_stay_with_the_process(remote: Place, cache: Path, tmp_path: Path) -> None:
    put(remote.store)
    path = remote.store.open(REF).files()["frames/a b.ply"]
    assert path.is_relative_to(cache)
    dead = cache / owned_name().replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
    dead.mkdir()
    open_store("s3://bucket/anything")
    assert (path.exists(), dead.exists()) == (True, False)
    obstore.put(remote.objects, remote.name("a b.ply"), b"2")
    with pytest.raises(DamageError, match=r"'files/frames/a b.ply' is not what it was"):
        open_store(remote.store.location).open(REF).files()


def test_what_cannot_be_reached_is_no_missing_artifact(s3: "S3", monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match=r"s3://nowhere/x cannot be written.*nowhere"):
        put(open_store("s3://nowhere/x"))
    for url in ("nonsense://x", "s3://"):
        with pytest.raises(StoreError, match="cannot be used"):
            open_store(url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:1")
    unreachable = ArtifactStore(
        ObjectPlace(from_url("s3://bucket/x", retry_config={"max_retries": 0}), "s3://bucket/x")
    )
    for use in (unreachable.contains, unreachable.open, unreachable.remove, put_to(unreachable)):
        with pytest.raises(StoreError, match=r"s3://bucket/x cannot be used: .*credentials") as caught:
            use(REF)
        assert not isinstance(caught.value, DamageError)


def put_to(store: ArtifactStore) -> Callable[[ArtifactRef], None]:
    return lambda ref: put(store, ref)


def test_an_endpoint_for_s3_alone(s3: "S3", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.environment["AWS_ENDPOINT_URL"])
    store = open_store(s3.new_url())
    put(store)
    assert store.contains(REF)


# ---- processes that collide and die ----


def fill(store: ArtifactStore, number: int, ready: Callable[[], object], *, replace: bool = False) -> None:
    ref = ArtifactRef("slat", artifact_key({"number": number}))
    with store.create(ref, replace=replace) as writer:
        rng = np.random.default_rng(number)
        writer.write("frames", ArrayData(rng.integers(1, 255, (16, 16, 16), np.uint8), ("t", "y", "x")))
        (writer.folder / "a.ply").write_bytes(bytes([number]) * 1000)
        ready()
        writer.commit({})


def write(environment: dict[str, str], url: str, number: int, replace: bool, ready: Connection) -> None:
    """What a child does: tells before it commits, and at the end."""
    os.environ.update(environment)
    fill(open_store(url), number, lambda: ready.send(time.monotonic()), replace=replace)
    ready.send(time.monotonic())


def start(environment: dict[str, str], url: str, number: int, replace: bool = False) -> tuple[BaseProcess, Connection]:
    """A child that is about to commit."""
    here, there = FORKS.Pipe()
    child = FORKS.Process(target=write, args=(environment, url, number, replace, there))
    child.start()
    assert here.poll(60), "the child did not start"
    return child, here


def assert_whole(store: ArtifactStore, number: int) -> None:
    artifact = store.open(ArtifactRef("slat", artifact_key({"number": number})))
    wanted = np.random.default_rng(number).integers(1, 255, (16, 16, 16), np.uint8)
    assert np.array_equal(artifact.read("frames"), wanted)
    assert artifact.files()["a.ply"].read_bytes() == bytes([number]) * 1000


def test_a_killed_writer_leaves_all_or_nothing(s3: "S3", cache: Path) -> None:
    url = s3.new_url()
    environment = {**s3.environment, "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}
    for _ in range(2):
        child, pipe = start(environment, url, 0, replace=True)
        seconds = -float(pipe.recv()) + float(pipe.recv())
        child.join()
    store = open_store(url)
    rng = random.Random(0)
    for number in range(1, 7):
        replace = number % 2 == 0
        if replace:
            fill(store, number, lambda: None)
        child, _ = start(environment, url, number, replace)
        time.sleep(seconds * 1.1 * (number - 1) / 6 * rng.uniform(0.8, 1.2))
        child.kill()
        child.join()
        ref = ArtifactRef("slat", artifact_key({"number": number}))
        assert store.contains(ref) or not replace, "the old one stays until the new one is whole"
        if store.contains(ref):
            assert_whole(store, number)
    assert store.place.abandoned(0), "no kill came in the middle of an upload, so nothing was tested"
    assert store.place.abandoned(3600) == {}, "what is young may still be on its way"
    assert verify(store, lambda *_: None).damaged == {}
    for name in store.place.abandoned(0):
        store.place.discard(name)
    assert store.place.abandoned(0) == {}
    for number in range(7):
        fill(open_store(url), number, lambda: None)
        assert_whole(store, number)
    assert [name for name in os.listdir(cache) if f"-{os.getpid()}-" not in name] == []


@pytest.mark.parametrize("replace", [False, True])
def test_writers_of_the_same_artifact_all_succeed(s3: "S3", replace: bool) -> None:
    url = s3.new_url()
    started = [start(s3.environment, url, 1, replace) for _ in range(3)]
    for child, _pipe in started:
        child.join(60)
    assert [child.exitcode for child, _ in started] == [0, 0, 0]
    store = open_store(url)
    assert_whole(store, 1)
    if not replace:  # of several that replace at once, one may be lost to gc
        assert store.place.abandoned(0) == {}
