"""What meshes are like and cost: `python -m tests.benchmarks.meshing [RUN ...]`.

One frame of 60,000 Gaussians on the surface of a procedural quadruped, and the middle frame of each run that is named.
CPU seconds of all threads, after everything is compiled: on two quiet cores, which make two frames at a time, a frame
takes half of them.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ss4d.pipelines.inspect.asset import read_gaussians
from ss4d.pipelines.inspect.opened import open_run
from ss4d.stages.meshing.config import MeshConfig
from ss4d.stages.meshing.mesh import make_meshes
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import GaussianClip
from tests.helpers.true_gaussians import Doubles, likeness, surface_errors, true_gaussians

COUNT = 60_000
FINER = MeshConfig(grid=128, faces=20_000, texture=1024)
SETTINGS = {"default": MeshConfig(), "grid 128, 20,000 faces, texture 1024": FINER}
WARM = MeshConfig(grid=24, views=12, faces=400, texture=64)


def subjects(runs: list[str]) -> Iterator[tuple[str, GaussianClip, Doubles | None]]:
    """A name, a frame, and points on its true surface where that is known."""
    yield (f"quadruped, {COUNT:,} Gaussians", *true_gaussians(COUNT))
    for run in runs:
        gaussians = read_gaussians(open_run(run))
        yield Path(run).name, gaussians.frame(gaussians.num_frames // 2), None


def main(runs: list[str]) -> None:
    print(
        "| asset | settings | triangles | dB | Chamfer | F at 1 % | CPU seconds |\n|---|---|---:|---:|---:|---:|---:|"
    )
    for name, frame, truth in subjects(runs):
        make_meshes(WARM, frame, render=rasterize)
        for setting, config in SETTINGS.items():
            began = time.process_time()
            mesh = make_meshes(config, frame, render=rasterize)
            seconds = time.process_time() - began
            chamfer, score = surface_errors(mesh, truth, 0.01) if truth is not None else (None, None)
            errors = "- | -" if chamfer is None else f"{chamfer:.4f} | {score:.3f}"
            decibels = likeness(mesh, frame)
            cells = f"{len(mesh.faces):,} | {decibels:.1f} | {errors} | {seconds:.1f}"
            print(f"| {name} | {setting} | {cells} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
