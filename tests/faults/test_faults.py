"""Some calls that fail, always the same ones; `make faults` lets every call of a run fail."""

import subprocess
import sys

import pytest

from tests.helpers.places import ROOT


@pytest.mark.parametrize(("place", "some"), [("folder", 3), ("s3", 1)])
def test_the_run_after_one_with_failing_calls_makes_what_an_undisturbed_one_makes(place: str, some: int) -> None:
    words = ("--place", place, "--some", str(some), "--seed", "1")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()[1:]
    assert len(lines) == (4 if place == "folder" else 3)
    assert sum(f": {some} of " in line for line in lines) == len(lines)
    assert any(f"calls, {some} runs stopped" in line for line in lines), "no fault did anything"
