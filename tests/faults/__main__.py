"""Lets one call after the other of a small run fail, and looks at what it and the next run leave.

`python -m tests.faults --help`; ends with 1 if a fault was not survived.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tests.faults.injection import Fault
from tests.faults.runs import Bench, modes
from tests.helpers.s3_server import running
from tests.helpers.served import load


def main() -> int:
    """Goes through all calls, or through some; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--place", choices=("folder", "s3"), action="append", help="by default both")
    parser.add_argument("--fault", choices=get_args(Fault), action="append", help="by default all of that place")
    parser.add_argument("--some", type=int, help="so many calls of each kind of fault, instead of all")
    parser.add_argument(
        "--sites", action="store_true", help="one call for each way through the program that leads to such calls"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9), help="chooses them")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    failures = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        load(Path(folder, "site"))
        for place in given.place or ("folder", "s3"):
            with _stores(place) as new_store:
                bench = Bench(Path(folder, place), new_store)
                wanted = [mode for mode in modes(place == "s3") if mode[0] in (given.fault or get_args(Fault))]
                failures += all_calls(bench, wanted, Sample(given.some, given.sites, given.seed))
    return 1 if failures else 0


@contextmanager
def _stores(place: str) -> Iterator[Callable[[], str] | None]:
    if place == "folder":
        yield None
        return
    with running() as server:
        yield server.new_url


@dataclass(frozen=True)
class Sample:
    """Which calls fail: so many of them, one of each site, or all."""

    some: int | None
    sites: bool
    seed: int

    def of(self, sites: Sequence[int]) -> list[int]:
        """The numbers of those calls, in order, from 1 on."""
        chance, numbers = random.Random(self.seed), list(range(1, len(sites) + 1))
        chance.shuffle(numbers)
        if self.sites:
            numbers = list({sites[number - 1]: number for number in numbers}.values())
        return sorted(numbers[: self.some])


def all_calls(bench: Bench, wanted: Sequence[tuple[Fault, bool]], sample: Sample) -> int:
    """Lets all calls fail that each kind of fault may meet, or some of them; the number of faults not survived."""
    failures = 0
    for fault, lasting in wanted:
        undisturbed = bench.disturbed(fault, 0, lasting=False)
        assert undisturbed.problem is None, undisturbed.problem
        total, chosen = len(undisturbed.sites), sample.of(undisturbed.sites)
        what = f"{fault}, {'from then on' if lasting else 'once'}"
        stopped = 0
        for first in chosen:
            ended = bench.disturbed(fault, first, lasting=lasting)
            stopped += ended.stopped
            if ended.problem is not None:
                failures += 1
                print(f"{what}, at call {first} of {total}: {ended.problem}", flush=True)
        print(f"{what}: {len(chosen)} of {total} calls, {stopped} runs stopped in a sentence", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(main())
