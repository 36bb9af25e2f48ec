"""What a case has changed in its sample is put right, whatever it is, and nothing else is copied again."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz import reused
from tests.fuzz.reused import ReusedSample


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    folder = tmp_path / "whole"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "one").write_bytes(b"1111")
    (folder / "a" / "b" / "two").write_bytes(b"2222")
    (folder / "link").symlink_to("a/one")
    return folder


def told(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        held = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (state.st_mode, None if held is None else state.st_mtime_ns, held)
    return found


def same_size(used: Path) -> None:
    (used / "a" / "one").write_bytes(b"1x11")


def same_size_and_time(used: Path) -> None:
    state = (used / "a" / "one").stat()
    (used / "a" / "one").write_bytes(b"1x11")
    os.utime(used / "a" / "one", ns=(state.st_atime_ns, state.st_mtime_ns))


def a_folder_for_a_file(used: Path) -> None:
    (used / "a" / "one").unlink()
    (used / "a" / "one" / "deep").mkdir(parents=True)
    (used / "a" / "one" / "deep" / "x").write_text("x")


def a_file_for_a_folder(used: Path) -> None:
    (used / "a" / "b" / "two").rename(used / "more")
    (used / "a" / "b").rmdir()
    (used / "a" / "b").write_text("x")


def a_link_for_a_file(used: Path) -> None:
    (used / "a" / "one").rename(used / "elsewhere")
    (used / "a" / "one").symlink_to("../elsewhere")


def another_link(used: Path) -> None:
    (used / "link").unlink()
    (used / "link").symlink_to("a/b/tw")


def another_mode(used: Path) -> None:
    (used / "a" / "one").chmod(0o600)


CHANGES = (
    *(same_size, same_size_and_time, a_folder_for_a_file, a_file_for_a_folder, a_link_for_a_file),
    *(another_link, another_mode),
)


@pytest.mark.parametrize("tick", [reused.TICK, -(10**12)], ids=["young", "settled"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_it_is_put_right(
    sample: Path, tmp_path: Path, change: Callable[[Path], None], tick: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that were just copied are compared by their bytes, others by what the file system says of them."""
    monkeypatch.setattr(reused, "TICK", tick)
    again = ReusedSample(sample, tmp_path / "used")
    again.put_right()
    assert told(tmp_path / "used") == told(sample)
    two = tmp_path / "used" / "a" / "b" / "two"
    copied = two.stat().st_ctime_ns
    if tick < 0:  # as if it had been some time ago, which the clock has to show
        while (tmp_path / "used" / "a" / "one").stat().st_ctime_ns == _touched(tmp_path / "clock"):
            pass
    change(tmp_path / "used")
    again.put_right()
    assert told(tmp_path / "used") == told(sample)
    assert (two.stat().st_ctime_ns == copied) == (change is not a_file_for_a_folder)


def _touched(path: Path) -> int:
    path.write_bytes(b"")
    return path.stat().st_ctime_ns
