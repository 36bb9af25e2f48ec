"""What each format of export takes of a finished run: megabytes, CPU seconds, and how its pictures then look.

python -m tests.benchmarks.formats output/runs/bird
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

from ss4d.pipelines.inspect.asset import MESH, scene_of_run
from ss4d.pipelines.inspect.opened import open_run
from ss4d.stages.export.config import OF_MESHES, ExportConfig
from ss4d.stages.export.formats import FORMATS
from ss4d.stages.export.scene import Scene
from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import silent
from tests.helpers.foreign_readers import read_with_gsply

SIZE = 512  # pixels of the pictures that are compared
TIMES = 3  # the least of so many tries is told
READ = ("ply", "compressed_ply", "spz")  # formats that gsply reads, a file a frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a finished run's folder")
    run = open_run(parser.parse_args().run)
    names = [name for name in FORMATS if MESH in run.stages or name not in OF_MESHES]
    scene = scene_of_run(run, ExportConfig(formats=tuple(names)))
    print(f"{scene.num_frames} frames, {len(scene.gaussians.means):,} Gaussians")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            tries = [_seconds(scene, name, Path(folder)) for _ in range(TIMES)]
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
            left = f"{_left(scene, name, Path(folder)):6.1f} dB" if name in READ else ""
        print(f"{name:15} {size / 1e6:6.2f} MB {min(tries):6.2f} s {left}", flush=True)


def _seconds(scene: Scene, name: str, folder: Path) -> float:
    before = time.process_time()
    FORMATS[name].write(scene, folder, progress=silent)  # type: ignore[index]
    return time.process_time() - before


def _left(scene: Scene, name: str, folder: Path) -> float:
    """How close pictures of what was read are to pictures of what was written, over all frames from the front."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    camera = orbit_camera(FRONT_YAW, 15.0, size=SIZE)
    squares = []
    for t, file in enumerate(files):
        shown = (read_with_gsply(file), scene.gaussians.frame(t))
        read, written = (rasterize(frame, camera)[0] for frame in shown)
        squares.append(float((read - written).square().mean()))
    return -10 * math.log10(max(sum(squares) / len(squares), 1e-12))


if __name__ == "__main__":
    main()
