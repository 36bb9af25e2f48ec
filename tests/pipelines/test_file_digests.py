"""A kept digest saves reading a file again, and is never that of another content."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from ss4d.pipelines import file_digests
from ss4d.pipelines.file_digests import kept_sha256
from ss4d.stages.errors import ModelError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is large enough, and changed long enough ago."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_digests, "KEPT_FROM", 4)
    monkeypatch.setattr(file_digests, "SETTLED", -1.0)
    (tmp_path / "weights").write_bytes(b"content")
    return tmp_path / "weights"


def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read from now on."""
    read: list[Path] = []
    monkeypatch.setattr(file_digests, "sha256_of", lambda path: read.append(path) or digest(path))
    return read


def digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def test_a_file_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = reads(monkeypatch)
    assert [kept_sha256(file) for _ in range(3)] == [digest(file)] * 3
    assert read == [file]
    shutil.rmtree(user_cache_path("ss4d"))  # may be deleted
    assert kept_sha256(file) == digest(file)
    assert len(read) == 2


def test_a_change_is_seen_even_if_size_and_time_are_put_back(file: Path) -> None:
    before, times = kept_sha256(file), file.stat()
    file.write_bytes(b"changed")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert kept_sha256(file) == digest(file) != before
    other = file.with_name("other")
    other.write_bytes(b"another")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(file)
    assert kept_sha256(file) == digest(file)


def test_of_a_file_that_may_still_change_nothing_is_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_digests, "SETTLED", 3.0)
    for content in (b"content", b"CONTENT"):  # perhaps within one tick of the file system's clock
        file.write_bytes(content)
        assert kept_sha256(file) == digest(file)
    assert not user_cache_path("ss4d").exists()


def test_a_note_that_is_damaged_or_cannot_be_written_costs_a_reading(file: Path) -> None:
    kept_sha256(file)
    (note,) = (user_cache_path("ss4d") / "sha256").iterdir()
    for damage in (b"", b"[]", b"{}", note.read_bytes()[:-9], note.read_bytes().replace(b'"size": 7', b'"size": 8')):
        note.write_bytes(damage)
        assert kept_sha256(file) == digest(file)
    shutil.rmtree(user_cache_path("ss4d"))
    user_cache_path("ss4d").write_text("no folder")
    assert kept_sha256(file) == digest(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read .*nothing: No such file"):
        kept_sha256(tmp_path / "nothing")
