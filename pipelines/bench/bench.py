"""Measures each stage's networks on this machine, beside the naive way, and what the machine could do at most."""

import json
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

import ss4d
from ss4d.pipelines.bench.clock import ceilings, costs, counts_processor, peak_memory, seconds_of
from ss4d.pipelines.bench.report import Report, Row
from ss4d.pipelines.bench.subjects import STAGES, Inputs, SizeName, Subject, num_subjects, subjects
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.output_file import check_output_file
from ss4d.stages.ops.device import resolve_device
from ss4d.stages.ops.kernel_choice import Use, choose_kernels
from ss4d.stages.types import Progress, silent


class Extent(NamedTuple):
    """How much is measured where nobody says otherwise: frames, voxels of each, repeats of each measurement."""

    frames: int
    voxels: int
    repeats: int


# By size and device, so that a run takes minutes: on a CPU one guided step of the published structure flow is
# 5 TFLOP a frame.
EXTENTS: dict[tuple[SizeName, str], Extent] = {
    ("tiny", "cpu"): Extent(8, 300, 3),
    ("tiny", "cuda"): Extent(32, 300, 3),
    ("published", "cpu"): Extent(1, 3000, 1),
    ("published", "cuda"): Extent(32, 20_000, 3),
}


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What is measured.

    None is what `EXTENTS` says, for the precision float16 on CUDA and float32 elsewhere, and all stages.
    """

    size: SizeName = "tiny"
    device: str = "auto"
    precision: Literal["float32", "float16", "bfloat16"] | None = None
    frames: int | None = None
    voxels: int | None = None
    repeats: int | None = None
    stages: Sequence[str] | None = None
    out: Path | None = None


def run_bench(options: BenchOptions, progress: Progress = silent) -> Report:
    """Measures, and writes the report to `options.out` as JSON.

    Raises:
        InputError: there is no such device, or a frame cannot have so many voxels.
        ConfigError: the report's folder is not there, or nothing of a stage is measured.
    """
    stages = options.stages or STAGES
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise ConfigError(f"--stage {unknown[0]}: measured are {', '.join(STAGES)}")
    if options.out is not None and not options.out.parent.is_dir():
        raise ConfigError(f"--out {options.out}: there is no folder {options.out.parent}; make it first")
    if options.out is not None:
        check_output_file(options.out)
    name = resolve_device(options.device)
    device = torch.device(name)
    extent = EXTENTS[options.size, name]
    repeats = options.repeats or extent.repeats
    dtype: torch.dtype = getattr(torch, options.precision or ("float16" if name == "cuda" else "float32"))
    chosen = choose_kernels(Use(device=device, dtypes=frozenset({dtype})))
    given = Inputs(
        size=options.size,
        frames=options.frames or extent.frames,
        voxels=options.voxels or extent.voxels,
        device=device,
        dtype=dtype,
        ops=chosen.ops,
        rasterize=chosen.rasterize,
    )
    reached = ceilings(device, dtype)
    rows: list[Row] = []
    calls = _Calls(progress, num_subjects(stages) * (repeats + 2))
    calls.done(0)
    with torch.no_grad():
        for subject in subjects(given, stages):
            rows += _measured(subject, given, reached, repeats, calls.done)
    facts = {
        "ss4d": ss4d.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if name == "cuda" else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "seconds": "of the processor" if counts_processor(device) else "of the wall clock",
        "size": given.size,
        "frames": given.frames,
        "voxels": given.voxels,
        "precision": _name(dtype),
        "kernels": chosen.recorded(),
        "ceilings": reached,
        "repeats": repeats,
    }
    report = Report(facts=facts, rows=rows)
    if options.out is not None:
        options.out.write_text(json.dumps(report.plain(), indent=1) + "\n", encoding="utf-8")
    return report


@dataclass
class _Calls:
    """Counts what is measured, and tells it."""

    progress: Progress
    total: int
    count: int = 0

    def done(self, more: int = 1) -> None:
        self.count += more
        self.progress(self.count, self.total)


def _measured(
    subject: Subject, given: Inputs, reached: dict[str, float], repeats: int, done: Callable[[], None]
) -> Iterator[Row]:
    """The row of all the work, then those of its kinds of layers; `done` hears of each call or pair of calls."""
    memory = peak_memory(subject.fast, given.device)  # this first call builds the tables that a run keeps
    done()
    seconds, ratios = [], []
    for _ in range(repeats):
        seconds.append(seconds_of(subject.fast, given.device))
        if subject.plain is not None:  # one after the other, so that both see the same disturbances
            ratios.append(seconds_of(subject.plain, given.device) / seconds[-1])
        done()
    flop, layers = costs(subject.fast, subject.network, given.device)
    done()
    most = reached[subject.products] if subject.products else None
    median = statistics.median(seconds)
    yield Row(
        stage=subject.stage,
        work=subject.work,
        layers="",
        seconds=median,
        flop=flop,
        share=flop / median / most if flop and most else None,
        peak_memory=memory,
        ratio=statistics.median(ratios) if ratios else None,
    )
    for kind, cost in layers.items():
        yield Row(
            stage=subject.stage,
            work=subject.work,
            layers=kind,
            seconds=cost.seconds,
            flop=cost.flop,
            share=cost.flop / cost.seconds / most if cost.flop and most else None,
            peak_memory=None,
            ratio=None,
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
