"""Run commands and measure them from their start to their end; print what came out as Markdown."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from ss4d.stages.processors import num_processors
from tests.helpers.places import ROOT

INTERVAL = 0.05  # seconds between two looks at a process


@dataclass(frozen=True)
class Took:
    """What a command took: seconds, bytes of memory of its own process, and what it said."""

    seconds: float
    memory: int
    said: str


def say(text: str) -> None:
    """Tells whoever waits what is going on, beside the table."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@contextmanager
def started(words: Sequence[str], site: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that finds the package in `site`; what it says goes to a file beside that. It does not outlive this."""
    path = os.pathsep.join([str(site), str(ROOT)])
    with (
        site.with_suffix(".said").open("wb") as said,
        subprocess.Popen(words, stdout=said, stderr=said, env={**os.environ, "PYTHONPATH": path}) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def took(words: Sequence[str], site: Path, watch: Callable[[], None] = lambda: None) -> Took:
    """Runs a command to its end; `watch` is called now and then meanwhile."""
    begun, memory = time.perf_counter(), 0
    with started(words, site) as process:
        while process.poll() is None:
            memory = max(memory, resident(process.pid))
            watch()
            time.sleep(INTERVAL)
    seconds, said = time.perf_counter() - begun, site.with_suffix(".said").read_text()
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}:\n{said}")
    return Took(seconds, memory, said)


def resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def ss4d(*words: object) -> list[str]:
    return [sys.executable, "-m", "ss4d.cli.entry", "dataset", *map(str, words)]


def sets(values: Sequence[str]) -> list[str]:
    return [word for value in values for word in ("--set", value)]


@contextmanager
def processors(count: int) -> Iterator[None]:
    """This process, and what it starts, may use so many processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def median_of(takes: Sequence[Took]) -> Took:
    """The one in the middle."""
    return sorted(takes, key=lambda take: take.seconds)[len(takes) // 2]


def seconds_of(taken: Took) -> str:
    return f"{taken.seconds:.1f} s"


def print_table(title: str, rows: dict[str, str]) -> None:
    """Prints a Markdown table."""
    print(f"\n### {title}\n\n| | |\n|---|---:|")
    print("\n".join(f"| {name} | {value} |" for name, value in rows.items()), flush=True)


def machine() -> str:
    """On what it is measured."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    return (
        f"{num_processors()} processors ({model}), {psutil.virtual_memory().total / 2**30:.0f} GiB of memory, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
