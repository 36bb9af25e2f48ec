"""A run in one zip file: whole, readable in place and unpacked, the same every time; unsafe archives are refused."""

import io
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.inspect.opened import OpenedRun, open_run
from ss4d.pipelines.store.housekeeping import collect, pack_run, verify_store
from ss4d.storage.archive import Archive, write_archive
from ss4d.storage.codec import ArrayData
from ss4d.storage.errors import DamageError, StoreError
from ss4d.storage.files import check_name
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore, open_store
from ss4d.storage.verify import verify

REF = ArtifactRef("slat", "0" * 64)


def silent(_done: int, _total: int) -> None: ...


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def packed(finished_run: Path, tmp_path: Path) -> Path:
    pack_run(finished_run, tmp_path / "run.zip", silent)
    return tmp_path / "run.zip"


def assert_same(first: OpenedRun, second: OpenedRun) -> None:
    assert list(first.stages) == list(second.stages)
    for name, stage in first.stages.items():
        twin = second[name]
        assert stage.artifact.attributes == twin.artifact.attributes
        for array in stage.arrays():
            assert np.array_equal(stage.artifact.read(array), twin.artifact.read(array), equal_nan=True)
            assert np.array_equal(stage[array][:1], twin[array][:1], equal_nan=True)
        assert {n: p.read_bytes() for n, p in stage.files().items()} == {
            n: p.read_bytes() for n, p in twin.files().items()
        }


def test_a_packed_run_is_the_run(finished_run: Path, packed: Path, tmp_path: Path) -> None:
    run = open_run(finished_run)
    assert_same(open_run(packed), run)
    findings = verify_store(str(packed), repair=False, progress=silent)
    assert (findings.damaged, findings.unexpected, findings.num_artifacts) == ({}, [], len(run.stages))
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "unpacked")
    unpacked = open_run(tmp_path / "unpacked" / "runs" / finished_run.name)
    assert unpacked.record.store == "../../store"
    assert_same(unpacked, run)


def test_the_same_run_makes_the_same_file(finished_run: Path, packed: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["pack", str(finished_run), str(tmp_path / "again.zip")])
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    assert "segmentation" in done.stderr
    assert Archive(packed).names() == zipfile.ZipFile(packed).namelist()


def test_a_damaged_run_is_not_packed(finished_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack_run(finished_run, tmp_path / "run.zip", silent)
    with zipfile.ZipFile(tmp_path / "run.zip") as archive:
        archive.extractall(out)
    run = out / "runs" / finished_run.name
    before = (tmp_path / "run.zip").read_bytes()
    chunk = next((out / "store" / "slat").glob("*/*.zarr/feats/c.0.0"))
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(StoreError, match=r"slat/\w+ is damaged .*--repair.*then pack"):
        pack_run(run, tmp_path / "run.zip", silent)
    chunk.write_bytes(data)
    ArtifactStore(out / "store").remove(open_run(run)["conditioning"].ref)
    packed = pack_run(run, tmp_path / "smaller.zip", silent)
    assert packed.left_out == ["conditioning"]
    assert "conditioning" not in packed.sizes
    assert not open_run(tmp_path / "smaller.zip")["conditioning"].stored
    assert (tmp_path / "run.zip").read_bytes() == before
    for bad_run, target, error in ((run, "run.tar", ConfigError), (tmp_path / "run.zip", "a.zip", ConfigError)):
        with pytest.raises(error):
            pack_run(bad_run, tmp_path / target, silent)


def test_an_interrupted_archive_is_not_there(tmp_path: Path) -> None:
    def interrupt() -> bytes:
        raise KeyboardInterrupt

    target = tmp_path / "a.zip"
    write_archive(target, {"one": lambda: b"1"})
    before = target.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_archive(target, {"one": lambda: b"2", "two": interrupt})
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.glob("*.*")] == ["a.zip"]


def test_an_archive_is_only_read(packed: Path, finished_run: Path) -> None:
    store = open_store(packed)
    ref = next(iter(store.refs()))

    def create() -> None:
        with store.create(REF):
            pass

    for change in (
        create,
        lambda: store.remove(ref),
        lambda: verify_store(str(packed), repair=True, progress=silent),
        lambda: collect(str(packed), runs=[finished_run], min_age=0, dry_run=True, progress=silent),
    ):
        with pytest.raises(StoreError, match="can only be read"):
            change()
    assert (store.contains(ref), store.contains(REF)) == (True, False)
    with pytest.raises(DamageError, match="is missing in"):
        store.open(REF)


def test_damage_is_found(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    with store.create(REF) as writer:
        writer.write("feats", ArrayData(np.arange(6.0).reshape(3, 2), ("n", "c")))
        (writer.folder / "a.txt").write_text("hello")
        writer.commit({})
    parts = store.place.parts(REF)
    assert parts is not None
    path = tmp_path / "a.zip"
    prefix = f"store/slat/00/{REF.key}.zarr"
    write_archive(path, {f"{prefix}/{name}": (lambda name=name: parts.read(name)) for name in parts.sizes()})
    assert verify(open_store(path), silent).damaged == {}
    good = path.read_bytes()
    archive = zipfile.ZipFile(path)
    for entry in archive.infolist():
        position = entry.header_offset + 30 + len(entry.filename) + entry.file_size // 2
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        assert list(verify(open_store(path), silent).damaged) == [REF], entry.filename
    path.write_bytes(good.replace(b"hello", b"hullo"))
    with pytest.raises(DamageError, match="damaged entry"):
        open_store(path).open(REF).files()
    for rest in (good[: len(good) // 2], b"", b"PK"):
        path.write_bytes(rest)
        with pytest.raises(StoreError, match="no zip file that can be read"):
            open_store(path)
    path.unlink()
    with pytest.raises(StoreError, match="is missing"):
        open_store(path)


# ---- archives from anybody ----


def archive_of(path: Path, *entries: zipfile.ZipInfo | str, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for entry in entries:
            archive.writestr(entry, b"x" * 1000)
    return path


def special(kind: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("store/link")
    entry.external_attr = (kind | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    "name", ["../x", "store/../../x", "/etc/x", "//x", "a//b", "./x", "store\\..\\x", "C:/x", "C:x", "store/a\nb", ".."]
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DamageError, match="leads somewhere else"):
        check_name(name)
    with pytest.raises(DamageError, match="leads somewhere else"):
        write_archive(tmp_path / "new.zip", {name: lambda: b""})
    with pytest.raises(StoreError, match=r"a.zip is not safe to read: .*leads somewhere else"):
        open_store(archive_of(tmp_path / "a.zip", name))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: archive_of(path, special(stat.S_IFLNK)), "is a link"),
        (lambda path: archive_of(path, special(stat.S_IFIFO)), "no plain file"),
        (lambda path: archive_of(path, "a", compression=zipfile.ZIP_DEFLATED), "is compressed"),
        (lambda path: archive_of(path, "a", "a"), "twice"),
        (lambda path: encrypted(archive_of(path, "a")), "encrypted"),
        (lambda path: overlapping(path), "overlap"),
        (lambda path: nameless(path), "''"),
    ],
)
def test_what_a_careful_writer_never_makes_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], reason: str
) -> None:
    with pytest.raises(StoreError, match=rf"is not safe to read: .*{reason}"):
        open_store(make(tmp_path / "a.zip"))


def encrypted(path: Path) -> Path:
    """The same archive, with the flag of encryption in its directory."""
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    return path


def nameless(path: Path) -> Path:
    """An archive with an entry that has no name in the directory."""
    archive_of(path, "a")
    data = bytearray(path.read_bytes())
    entry, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    del data[entry + 46]
    struct.pack_into("<H", data, entry + 28, 0)
    struct.pack_into("<L", data, end - 1 + 12, end - 1 - entry)
    path.write_bytes(data)
    assert zipfile.ZipFile(path).infolist()[0].filename == ""
    return path


def overlapping(path: Path) -> Path:
    """A directory of a hundred entries that all lie in the same thousand bytes."""
    archive_of(path, "aa")
    data = path.read_bytes()
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    rows = [data[start:end].replace(b"aa", f"{number:02}".encode()) for number in range(100)]
    directory = b"".join(rows)
    tail = bytearray(data[end:])
    struct.pack_into("<HHL", tail, 8, len(rows), len(rows), len(directory))
    path.write_bytes(data[:start] + directory + tail)
    assert len(zipfile.ZipFile(io.BytesIO(path.read_bytes())).infolist()) == 100
    return path
