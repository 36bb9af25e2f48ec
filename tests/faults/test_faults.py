"""Some calls that fail, always the same ones; `make faults` lets every call of a run fail."""

import subprocess
import sys

import pytest

from tests.faults.__main__ import Sample
from tests.helpers.places import ROOT


def test_one_call_is_chosen_of_each_way_that_leads_to_some() -> None:
    sites = [7, 7, 5, 7, 9, 9]
    chosen = [Sample(None, True, seed).of(sites) for seed in range(20)]
    assert all(sorted(sites[number - 1] for number in numbers) == [5, 7, 9] for numbers in chosen)
    assert {number for numbers in chosen for number in numbers} == {1, 2, 3, 4, 5, 6}, "which of them is up to chance"
    assert len(Sample(2, True, 0).of(sites)) == 2
    assert Sample(None, False, 0).of(sites) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("place", "some", "more"), [("folder", 3, ("--sites",)), ("s3", 1, ())])
def test_the_run_after_one_with_failing_calls_makes_what_an_undisturbed_one_makes(
    place: str, some: int, more: tuple[str, ...]
) -> None:
    words = ("--place", place, "--some", str(some), "--seed", "1", *more)
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()[1:]
    assert len(lines) == (4 if place == "folder" else 3)
    assert sum(f": {some} of " in line for line in lines) == len(lines)
    assert any(f"calls, {some} runs stopped" in line for line in lines), "no fault did anything"
