"""Run the published size from an image to its asset on a CPU, with random weights in a folder of the published layout.

Usage: python tests/published.py [--precision bfloat16]

One frame, one sampler step a stage. Takes minutes, 4 GB of the temporary folder and less than 8 GiB of memory.
"""

import json
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that the file runs from anywhere

from ss4d.stages.published import PUBLISHED, VOXELS, write_random_model
from ss4d.stages.roles import GAUSSIAN_DECODER
from ss4d.storage.artifact import Artifact
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import open_store
from tests.conftest import draw_frames, save_frames

MOST_MEMORY = 8 * 2**30
MOST_MINUTES = 20


def run(folder: Path, precision: str) -> Path:
    """The folder of a finished run on a model of the published size."""
    started = time.monotonic()
    encoder = write_random_model(folder / "model", seed=0)
    print(f"a model folder with random weights: {time.monotonic() - started:.0f} s", flush=True)
    source = save_frames(folder / "disc", draw_frames(1, size=256))
    options = (
        f"model={folder / 'model'}",
        f"image_encoder={encoder}",
        f"precision={precision}",
        "sparse_structure.sampler.steps=1",
        "slat.sampler.steps=1",
        "export.frames=2",
    )
    sets = [word for option in options for word in ("--set", option)]
    words = ["run", str(source), "--config", "ss4d", "--device", "cpu", "--engine", "direct", "--out", str(folder)]
    subprocess.run([sys.executable, "-m", "ss4d.cli.entry", *words, *sets], check=True)
    return folder / "runs" / "disc"


def check(finished: Path, out: Path) -> None:
    """Whether the run gave what it should, in the memory and time it may take."""
    record = json.loads((finished / "run.json").read_text())
    assert record["state"] == "complete", record["state"]
    for stage, entry in record["stages"].items():
        print(f"{stage:<16} {entry['seconds']:8.1f} s  {entry['peak_memory_mib'] / 1024:5.2f} GiB")
    store = open_store(str(out / "store"))

    def made(stage: str) -> Artifact:
        return store.open(ArtifactRef(stage, record["stages"][stage]["key"]))

    cells = made("sparse_structure").read("coords")
    assert VOXELS / 4 < len(cells) < VOXELS * 4, f"{len(cells)} voxels"
    gaussians = made("decoding")
    count = PUBLISHED[GAUSSIAN_DECODER].args["representation_config"]["num_gaussians"] * len(cells)
    for name in ("means", "scales", "quats", "colors", "opacities"):
        values = gaussians.read(name)
        assert len(values) == count, f"{len(values)} {name}"
        assert np.isfinite(values).all(), name
    peak = max(entry["peak_memory_mib"] for entry in record["stages"].values()) * 2**20
    minutes = record["wall_seconds"] / 60
    print(f"{len(cells)} voxels, {count} Gaussians, {minutes:.1f} minutes, {peak / 2**30:.2f} GiB")
    assert peak < MOST_MEMORY, "too much memory"
    assert minutes < MOST_MINUTES, "too slow: is the machine busy?"


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    with tempfile.TemporaryDirectory() as folder:
        check(run(Path(folder), parser.parse_args().precision), Path(folder))


if __name__ == "__main__":
    main()
