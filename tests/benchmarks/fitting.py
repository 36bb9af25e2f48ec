"""CPU seconds and memory of whole runs with and without fits: `python -m tests.benchmarks.fitting [FRAMES ...]`.

The input is the plain example clip, played forward and backward for as many frames as are asked for. CPU seconds of all
threads, not seconds of a clock: on two quiet cores a run takes no longer than they say, and as a rule less.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ss4d.pipelines.plan import Step
from ss4d.pipelines.prepare import RunOptions
from ss4d.pipelines.run import run_clip
from ss4d.pipelines.stage_result import StageResult
from ss4d.stages.input_files import InputConfig
from ss4d.stages.video_io import read_video

CLIP = Path(__file__).parents[2] / "examples/clips/bird.mp4"
FRAMES = (32,)
FITS = (
    "camera.method=auto",
    "structure_fit.method=masks",
    "camera_fit.method=auto",
    "appearance_fit.method=gaussians",
)
MIB = 2**20


class Meter:
    """Notes the CPU seconds and the peak of memory of each stage of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak = 0
        self._stage, self._began = "", 0.0

    def message(self, text: str) -> None: ...

    def stage_started(self, step: Step) -> None:
        self._stage, self._began = step.stage, time.process_time()

    def stage_progress(self, done: int, total: int) -> None: ...

    def stage_finished(self, result: StageResult) -> None:
        self.seconds[self._stage] = time.process_time() - self._began
        self.peak = max(self.peak, result.peak_memory)


def write_frames(folder: Path, count: int) -> Path:
    """So many frames of the clip as PNG files, forward and backward by turns."""
    frames = read_video(CLIP, InputConfig()).frames[..., :3].numpy()
    order = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
    folder.mkdir()
    for t in range(count):
        Image.fromarray(np.ascontiguousarray(frames[order[t % len(order)]])).save(folder / f"{t}.png")
    return folder


def measured(source: Path, out: Path, overrides: tuple[str, ...]) -> Meter:
    """A run that finds nothing stored."""
    meter = Meter()
    run_clip(
        RunOptions(source=source, out=out, overrides=("input.frames=null", *overrides), device="cpu", engine="direct"),
        meter,
    )
    return meter


def main(counts: list[int]) -> None:
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            source = write_frames(folder / "clip", count)
            off = tuple(f"{name.partition('=')[0]}=none" for name in FITS)
            meters = {
                name: measured(source, folder / name, sets) for name, sets in (("without", off), ("fitted", FITS))
            }
        rows = {
            stage: [f"{m.seconds[stage]:.1f}" if stage in m.seconds else "-" for m in meters.values()]
            for stage in meters["fitted"].seconds
        }
        rows["together"] = [f"{sum(m.seconds.values()):.1f}" for m in meters.values()]
        rows["peak, MiB"] = [f"{m.peak / MIB:.0f}" for m in meters.values()]
        print(f"\n### {count} frames, CPU seconds\n\n| stage | {' | '.join(meters)} |\n|---|---:|---:|")
        print("\n".join(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()), flush=True)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or list(FRAMES))
