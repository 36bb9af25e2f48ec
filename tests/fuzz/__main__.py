"""Reads thousands of damaged files, each in a process of its own: `python -m tests.fuzz --help`.

Ends with 1 if a case failed. A case is made by its kind and number alone, so both make it again; its file is kept,
too.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from time import monotonic

from tests.fuzz.cases import Failure, Room
from tests.fuzz.kinds import KINDS
from tests.helpers.places import ROOT
from tests.helpers.served import load


def main() -> int:
    """Runs cases until the time is up or enough are done; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--kind", action="append", choices=sorted(KINDS), help="only this kind of file; repeatable")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(10**9), help="number of the first case"
    )
    parser.add_argument(
        "--cases", type=int, default=None, help="how many of each kind; by default as many as there is time"
    )
    parser.add_argument("--seconds", type=float, default=60, help="to end after, unless --cases says how many")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at the same time")
    parser.add_argument("--keep", type=Path, default=ROOT / "output" / "fuzz", help="where failing cases are kept")
    given = parser.parse_args()
    kinds = sorted(given.kind or KINDS)
    print(f"seed {given.seed}: python -m tests.fuzz --seed {given.seed}", flush=True)
    context = get_context("fork")
    found: SimpleQueue[Failure | Counter[str]] = context.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        load(Path(folder, "site"))
        started = monotonic()
        ends = None if given.cases is not None else started + given.seconds
        jobs = []
        for job in range(given.jobs):
            last = None if given.cases is None else given.seed + given.cases
            numbers = (given.seed + job, last, given.jobs)
            jobs.append(
                context.Process(target=_work, args=(Path(folder, str(job)), kinds, numbers, ends, given.keep, found))
            )
        for process in jobs:
            process.start()
        counts, failures = _listen(found, len(jobs))
    seconds = monotonic() - started
    print(f"{counts.total()} cases in {seconds:.0f} s, {counts.total() / seconds * 60:.0f} a minute:", end=" ")
    print(", ".join(f"{kind} {counts[kind]}" for kind in kinds))
    for what, number in failures.most_common():
        print(f"{number} times: {what}")
    return 1 if failures or any(process.exitcode for process in jobs) else 0


def _numbers(first: int, last: int | None, step: int) -> Iterator[int]:
    while last is None or first < last:
        yield first
        first += step


def _work(
    folder: Path,
    kinds: list[str],
    numbers: tuple[int, int | None, int],
    ends: float | None,
    keep: Path,
    found: "SimpleQueue[Failure | Counter[str]]",
) -> None:
    """What one of the processes does: cases of all kinds in turn; tells of failures at once, of numbers at the end."""
    room, counts, seen = Room(folder), Counter[str](), set[str]()
    try:
        for number in _numbers(*numbers):
            for kind in kinds:
                if ends is not None and monotonic() > ends:
                    return
                counts[kind] += 1
                failure = room.run(kind, number)
                if failure is not None:
                    if failure.what not in seen:
                        seen.add(failure.what)
                        _keep(room, failure, keep)
                    found.put(failure)
    finally:
        found.put(counts)


def _keep(room: Room, failure: Failure, keep: Path) -> None:
    """Keeps the case as it was before it was read, and what was printed."""
    target = keep / f"{failure.kind}-{failure.number}"
    shutil.rmtree(target, ignore_errors=True)
    file, _ = room.prepare(failure.kind, failure.number)
    target.mkdir(parents=True)
    shutil.copyfile(file, target / file.name)
    (target / "failure.txt").write_text(f"{failure.what}\n{failure.command}\n\n{failure.output}")


def _listen(found: "SimpleQueue[Failure | Counter[str]]", jobs: int) -> tuple[Counter[str], Counter[str]]:
    """Prints each new failure; cases by kind, and failures by what went wrong."""
    counts, failures = Counter[str](), Counter[str]()
    while jobs:
        told = found.get()
        if isinstance(told, Counter):
            counts += told
            jobs -= 1
            continue
        what = f"{told.kind}: {told.what}"
        failures[what] += 1
        if failures[what] == 1:
            again = f"python -m tests.fuzz --kind {told.kind} --seed {told.number} --cases 1"
            print(f"\n{what}\n    {told.command}\n    again: {again}\n{told.output[-1200:]}", flush=True)
    return counts, failures


if __name__ == "__main__":
    sys.exit(main())
