"""Measure runs of datasets: `python -m tests.benchmarks.dataset`, alone on a machine.

Every measurement is one of whole commands, as a user gives them, from their start to their end.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from ss4d.pipelines.dataset.events import Attempt, EventWriter, now, read_events
from ss4d.pipelines.dataset.keys import Settings, open_keys
from ss4d.pipelines.dataset.layout import Dataset, create_dataset, open_dataset
from ss4d.pipelines.dataset.manifest import Row
from ss4d.pipelines.run_record import versions
from ss4d.stages.data.clip import ClipSpec, make_clip
from ss4d.stages.processors import num_processors
from ss4d.storage.manifest import write_rows
from tests.benchmarks.timing import (
    INTERVAL,
    Took,
    machine,
    median_of,
    print_table,
    processors,
    say,
    seconds_of,
    sets,
    ss4d,
    started,
    took,
)
from tests.helpers import noop_stages
from tests.helpers.unfitted import OFF

WORKERS = 2
SHARDS = 8
MIB = 2**20

# Real clips, small enough for a hundred of them to take minutes.
REAL_FRAMES, REAL_SIZE = 4, 128
REAL = ("segmentation.size=224", "export.size=256", "export.frames=12", *OFF)


@dataclass(frozen=True)
class Bench:
    """Where and how to measure.

    Attributes:
        folder: for everything that is made.
        clips: how many that cost nothing.
        real: how many that are computed.
        finished: how many of a dataset in which nothing is left to do.
        repeats: of what a median is taken of.
    """

    folder: Path
    clips: int
    real: int
    finished: int
    repeats: int


# Orchestration alone


def overhead(bench: Bench) -> None:
    """Clips that cost nothing, through all that is there to be measured."""
    folder, site = bench.folder / "overhead", bench.folder / "site"
    noop_stages.install(site)
    make_stills(folder / "clips", bench.clips)
    methods = sets(noop_stages.METHODS)
    target = folder / "dataset"
    measure = partial(took, site=site)

    def median(*words: object) -> Took:
        say(f"{words[0]}, {bench.repeats} times")
        return median_of([measure(ss4d(*words)) for _ in range(bench.repeats)])

    say(f"init of {bench.clips} clips")
    init = measure(ss4d("init", f"{folder}/clips/*.png", "--out", target))
    dataset = open_dataset(target)
    one = median("plan", target, *methods, "--limit", 1)
    plan = median("plan", target, *methods)
    run = ss4d("run", target, *methods, "--workers", WORKERS)
    say("run, killed after a tenth of the clips")
    kill_midway(run, site, dataset, bench.clips // 10)
    killed = num_artifacts(dataset)
    say("run to the end")
    first, whole = first_artifact(run, site, dataset)
    check_once(dataset, bench.clips)
    seconds, done = last_run(dataset)
    again = median("run", target, *methods, "--workers", WORKERS)
    change = median("plan", target, *methods, "--set", "export.variant=1")
    where = median("plan", target, *methods, "--where", "state = 'done' and gaussians > 0")
    catalog = median("catalog", target)
    failures = median("failures", target)
    rebuilt = median("catalog", "rebuild", target)
    clip_ms = 1000 * WORKERS * seconds / done
    print_table(
        f"Orchestration alone: {bench.clips:,} clips of {len(noop_stages.STAGES)} stages that compute nothing",
        {
            f"clips a second, {WORKERS} workers": f"{done / seconds:.1f}",
            "a worker's time per clip": f"{clip_ms:.1f} ms",
            "a worker's time per stage": f"{clip_ms / len(noop_stages.STAGES):.1f} ms",
            "peak memory of the coordinator": f"{whole.memory / MIB:.0f} MiB",
            "the same of a command about one clip": f"{one.memory / MIB:.0f} MiB",
            "`init`": seconds_of(init),
            "`plan` of one clip, which is what any command takes to start": seconds_of(one),
            "`plan` before anything is done": seconds_of(plan),
            "`plan` of a changed late parameter": seconds_of(change),
            "`run` when all is done": seconds_of(again),
            f"`run` after kill -9 with {killed:,} artifacts done, until its first artifact": f"{first:.1f} s",
            "artifacts made twice": "0",
            "`plan --where` with measured properties": seconds_of(where),
            f"`catalog`, {bench.clips * len(noop_stages.STAGES):,} rows": seconds_of(catalog),
            "`failures`": seconds_of(failures),
            "`catalog rebuild`, which reads every artifact": seconds_of(rebuilt),
        },
    )


def make_stills(folder: Path, count: int) -> None:
    """Images of 8 by 8 pixels, each another one."""
    folder.mkdir(parents=True)
    pixels = np.zeros((8, 8, 3), np.uint8)
    for number in range(count):
        pixels[0, 0] = (number % 256, number // 256 % 256, number >> 16)
        Image.fromarray(pixels).save(folder / f"{number:06}.png")


def kill_midway(words: Sequence[str], site: Path, dataset: Dataset, clips: int) -> None:
    """Starts a run and kills its coordinator once so many clips are through; waits until its workers are gone."""
    with started(words, site) as process:
        while num_artifacts(dataset) < clips * len(noop_stages.STAGES):
            if process.poll() is not None:
                raise SystemExit(f"the run ended before it could be killed: {site.with_suffix('.said').read_text()}")
            time.sleep(INTERVAL)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    psutil.wait_procs(children)


def num_artifacts(dataset: Dataset) -> int:
    """How many were made, as the events say; quick, for it is asked again and again."""
    return sum(path.read_bytes().count(b'"state": "done"') for path in dataset.events.iterdir())


def first_artifact(words: Sequence[str], site: Path, dataset: Dataset) -> tuple[float, Took]:
    """Seconds until a run makes its first artifact, and what it takes to its end."""
    before, begun = num_artifacts(dataset), time.perf_counter()
    first: list[float] = []

    def watch() -> None:
        if not first and num_artifacts(dataset) > before:
            first.append(time.perf_counter() - begun)

    whole = took(words, site, watch)
    return first[0], whole


def check_once(dataset: Dataset, clips: int) -> None:
    """Every clip was done, and no artifact was made twice; what the killed run could not write down was reused."""
    times: Counter[tuple[str, str]] = Counter()
    for batch in read_events(dataset.events, {}):
        times.update((one.clip, one.stage) for one in batch.attempts if one.state in ("done", "reused"))
    if len(times) != clips * len(noop_stages.STAGES) or set(times.values()) != {1}:
        raise SystemExit(f"not every artifact was made once: {times.most_common(3)}, {len(times)} in all")


def last_run(dataset: Dataset) -> tuple[float, int]:
    """Seconds and clips of the last run, without the start of its command."""
    line = json.loads(dataset.launches.read_text().splitlines()[-1])
    return line["seconds"], line["done"]


# A large dataset in which nothing is left to do


def relaunch(bench: Bench) -> None:
    """What commands take that find everything there; of clips that were never made, only written down as if."""
    site = bench.folder / "relaunch" / "site"
    site.mkdir(parents=True)
    dataset = written_down(site.with_name("dataset"), bench.finished)
    commands = {
        "`run`, which takes in the events and writes the catalog": ss4d("run", dataset.folder),
        "`run`": ss4d("run", dataset.folder),
        f"`run --shard 1/{SHARDS}`": ss4d("run", dataset.folder, "--shard", f"1/{SHARDS}"),
        "`plan` of a changed late parameter": ss4d("plan", dataset.folder, "--set", "export.frames=4"),
    }
    rows = {}
    for name, words in commands.items():
        say(name)
        times = 1 if "events" in name else bench.repeats
        takes = [took(words, site) for _ in range(times)]
        if "run" in name and "Nothing is left to do." not in takes[0].said:
            raise SystemExit(f"{name}: {takes[0].said}")
        rows[name] = seconds_of(median_of(takes))
    print_table(f"{bench.finished:,} clips with nothing left to do", rows)


def written_down(folder: Path, clips: int) -> Dataset:
    """A dataset whose records say that all is done."""
    dataset = create_dataset(folder)
    digests = [f"{number:064x}" for number in range(clips)]
    size = {"bytes": 1, "modified": 1, "frames": 16, "width": 64, "height": 64, "fps": 24.0}
    rows = [
        Row(id=f"clip{number}", source=f"/{number}.mp4", sha256=digest, tags="", error=None, **size)
        for number, digest in enumerate(digests)
    ]
    write_rows(dataset.manifest, Row, rows)
    Path(dataset.store).mkdir()
    keys, _ = open_keys(Settings())
    made = keys.of(digests)
    with EventWriter(dataset.events, versions()) as events:
        for number, row in enumerate(rows):
            for stage in keys.stages:
                events.write(Attempt(clip=row.id, stage=stage, key=made[stage][number], state="done", time=now()))
    return dataset


# Real clips


def plain(bench: Bench) -> None:
    """The throughput of `ss4d dataset run` as a share of that of a plain loop."""
    real = prepared(bench)
    loops: list[Pass] = []
    runs: list[Pass] = []
    for repeat in range(bench.repeats):
        both: list[Callable[[], None]] = [
            lambda: loops.append(real.loop()),
            lambda: runs.append(real.run(num_processors())),
        ]
        for measure in both if repeat % 2 == 0 else reversed(both):
            measure()
        say(f"plain loop {loops[-1].seconds:.1f} s, dataset {runs[-1].seconds:.1f} s")
    whole = [loop.seconds / run.seconds for loop, run in zip(loops, runs, strict=True)]
    working = [loop.working / run.working for loop, run in zip(loops, runs, strict=True)]
    print_table(
        f"{bench.real} real clips of {REAL_FRAMES} frames, {num_processors()} processors, medians of {bench.repeats}",
        {
            "plain loop over the stages, all in memory": clips_per_second(bench, loops),
            f"`ss4d dataset run`, {num_processors()} workers": clips_per_second(bench, runs),
            "throughput of the second as a share of the first": f"{statistics.median(whole):.2f}",
            "lowest and highest of these": f"{min(whole):.2f}, {max(whole):.2f}",
            "the share without what both take to start": f"{statistics.median(working):.2f}",
        },
    )


def clips_per_second(bench: Bench, passes: Sequence["Pass"]) -> str:
    return f"{bench.real / statistics.median(one.seconds for one in passes):.2f} clips/s"


def scaling(bench: Bench) -> None:
    """One worker on one processor, one on two, and two on two."""
    real = prepared(bench)
    cases = {"1 worker, 1 processor": (1, 1), "1 worker, 2 processors": (1, 2), "2 workers, 2 processors": (2, 2)}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(bench.repeats):
        for name in cases if repeat % 2 == 0 else reversed(cases):
            workers, count = cases[name]
            with processors(count):
                seconds[name].append(real.run(workers).seconds)
            say(f"{name}: {seconds[name][-1]:.1f} s")
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    slowest = next(iter(medians.values()))
    print_table(
        f"Scaling: {bench.real} real clips of {REAL_FRAMES} frames, medians of {bench.repeats}",
        {
            name: f"{bench.real / median:.2f} clips/s, {slowest / median:.2f} times the first"
            for name, median in medians.items()
        },
    )


@dataclass(frozen=True)
class Pass:
    """Seconds that it took to do all real clips once: the whole command, and without its start."""

    seconds: float
    working: float


@dataclass(frozen=True)
class Real:
    """Clips to compute, and an untouched dataset of them."""

    clips: Path
    dataset: Path
    site: Path

    def loop(self) -> Pass:
        """The plain loop, which says how long it worked."""
        return plain_loop(self.clips, self.site)

    def run(self, workers: int) -> Pass:
        """`ss4d dataset run` on a copy of the dataset."""
        copy = self.dataset.with_name("copy")
        shutil.copytree(self.dataset, copy)
        taken = took(ss4d("run", copy, *sets(REAL), "--workers", workers), self.site)
        working, (_, done) = working_seconds(open_dataset(copy)), last_run(open_dataset(copy))
        if done != len(list(self.clips.iterdir())):
            raise SystemExit(f"only {done} clips are done:\n{taken.said}")
        shutil.rmtree(copy)
        return Pass(taken.seconds, working)


def plain_loop(clips: Path, site: Path) -> Pass:
    out = site.with_name("loop")
    taken = took([sys.executable, "-m", "tests.benchmarks.plain_loop", str(clips), str(out), *REAL], site)
    shutil.rmtree(out)
    return Pass(taken.seconds, float(taken.said.split()[-1]))


def working_seconds(dataset: Dataset) -> float:
    """From the beginning of the first artifact to the end of the last."""
    attempts = [one for batch in read_events(dataset.events, {}) for one in batch.attempts]
    ends = [datetime.fromisoformat(one.time).timestamp() for one in attempts]
    return max(ends) - min(end - one.seconds for end, one in zip(ends, attempts, strict=True))


def prepared(bench: Bench) -> Real:
    """Makes the clips, unless they are there, and does one, so that all is compiled and in the page cache."""
    folder = bench.folder / "real"
    real = Real(folder / "clips", folder / "dataset", folder / "site")
    if not real.dataset.exists():
        say(f"makes {bench.real} clips")
        real.site.mkdir(parents=True)
        for seed in range(bench.real):
            save_clip(real.clips / f"clip-{seed:04}", seed)
        took(ss4d("init", real.clips, "--out", real.dataset), real.site)
        save_clip(folder / "warm" / "clip", bench.real)
        plain_loop(folder / "warm", real.site)
    return real


def save_clip(folder: Path, seed: int) -> None:
    """The input view of a procedural object, as PNG files with alpha."""
    clip = make_clip(ClipSpec(seed=seed, num_frames=REAL_FRAMES, input_size=REAL_SIZE, num_views=1, view_size=8))
    folder.mkdir(parents=True)
    for t, frame in enumerate(clip.frames.numpy()):
        Image.fromarray(frame).save(folder / f"{t}.png")


PARTS: dict[str, Callable[[Bench], None]] = {
    "overhead": overhead,
    "relaunch": relaunch,
    "plain": plain,
    "scaling": scaling,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures runs of datasets.")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--clips", type=int, default=10_000, help="that cost nothing (default: %(default)s)")
    parser.add_argument("--real", type=int, default=100, help="that are computed (default: %(default)s)")
    parser.add_argument("--finished", type=int, default=100_000, help="with nothing to do (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of what a median is taken of (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where everything is made and deleted again (default: temporary)")
    given = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        bench = Bench(Path(folder), given.clips, given.real, given.finished, given.repeats)
        for name in [given.only] if given.only else PARTS:
            PARTS[name](bench)


if __name__ == "__main__":
    main()
