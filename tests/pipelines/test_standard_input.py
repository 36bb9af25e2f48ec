"""What comes through standard input becomes a file of its content, whole or not at all."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from ss4d.pipelines.standard_input import keep_standard_input
from ss4d.stages.errors import InputError


def test_it_is_kept_by_its_content(tmp_path: Path) -> None:
    kept = [keep_standard_input(io.BytesIO(data), tmp_path) for data in (b"one", b"two", b"one")]
    assert [path.read_bytes() for path in kept] == [b"one", b"two", b"one"]
    assert kept[0] == kept[2]
    assert sorted((tmp_path / "inputs").iterdir()) == sorted({*kept})


class Breaking(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise KeyboardInterrupt
        return super().read(size)


def test_what_breaks_off_or_is_empty_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        keep_standard_input(Breaking(b"some"), tmp_path)
    with pytest.raises(InputError, match="gave nothing"):
        keep_standard_input(io.BytesIO(), tmp_path)
    assert list((tmp_path / "inputs").iterdir()) == []


def test_the_command_takes_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ss4d.cli.entry", "run", "-", "--out", str(tmp_path / "out")]
    result = subprocess.run(command, input=b"no video at all", capture_output=True, timeout=120)
    assert result.returncode == 1
    assert b"is not a video or an image that can be read" in result.stderr
    assert b"Traceback" not in result.stderr
    assert len(list((tmp_path / "out" / "inputs").iterdir())) == 1
