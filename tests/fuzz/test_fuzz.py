"""Some damaged files of every kind, always the same ones; `make fuzz` reads thousands of others."""

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import cases
from tests.fuzz.kinds import KINDS
from tests.fuzz.mutations import mutate
from tests.helpers.places import ROOT

PER_KIND = 3


def test_damaged_files_end_in_a_result_or_a_sentence(tmp_path: Path) -> None:
    words = ("--seed", "1", "--cases", str(PER_KIND), "--jobs", "1", "--keep", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{PER_KIND * len(KINDS)} cases" in done.stdout


@pytest.mark.parametrize(
    ("code", "output", "notes", "memory", "expected"),
    [
        (0, b"done\n", "", 0, None),
        (1, b"ss4d: a sentence\n", "", 0, None),
        (70, b"", "KeyError at a.py:1 in f\n", 0, "KeyError at a.py:1 in f"),
        (70, b"", "", 0, "ended with 70"),
        (-11, b"", "", 0, "ended by SIGSEGV"),
        (-24, b"", "", 0, "took more than 10 s of a processor"),
        (-9, b"", "", 0, "was not done after 120 s"),
        (0, b"", "", 2 << 30, "took more than 1024 MiB"),
        (1, b"Traceback (most recent call last):\n", "", 0, "printed a traceback"),
        (1, b"\x1b[31mred\n", "", 0, "printed control characters"),
        (0, b"", "changed what is outside its folder: open\n/etc/x\n", 0, "changed what is outside its folder: open"),
    ],
)
def test_what_a_case_must_not_do_is_seen(
    code: int, output: bytes, notes: str, memory: int, expected: str | None
) -> None:
    assert cases.judged(code, output, notes, memory) == expected


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_number_makes_the_same_file_again(kind: str) -> None:
    data = b'{"a": [1, 2, {"b": "c"}]}' * 3
    changes = KINDS[kind].changes
    first, again = (mutate(Random("1"), data, changes) for _ in range(2))
    assert first == again
    assert len({mutate(Random(number), data, changes) for number in range(20)}) > 10
