"""What it costs to compare an array with its SHA-256 while it is read: CPU seconds of both ways, by turns.

`python -m tests.benchmarks.reading` makes a store in the temporary folder.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from ss4d.storage.artifact import Artifact
from ss4d.storage.codec import ArrayData, read_array
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore

TIMES = 15


def arrays() -> dict[str, ArrayData]:
    """What stages make of a clip of 32 frames: pictures, image tokens, cells and their latents."""
    chance = np.random.default_rng(0)
    shade = np.linspace(0, 255, 256, dtype=np.uint8)
    return {
        "rgb": ArrayData(np.broadcast_to(shade[:, None], (32, 256, 256, 3)).copy(), ("t", "y", "x", "c")),
        "tokens": ArrayData(chance.standard_normal((32, 257, 1024), np.float32), ("t", "l", "c")),
        "coords": ArrayData(chance.integers(0, 64, (300_000, 5), np.int32), ("n", "c")),
        "feats": ArrayData(chance.standard_normal((300_000, 8), np.float32), ("n", "c")),
    }


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all its threads together."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def measure(artifact: Artifact, name: str) -> tuple[float, float]:
    """Median CPU seconds without and with the comparison."""
    without, compared = [], []
    for _ in range(TIMES):
        without.append(seconds(lambda: read_array(artifact.array(name))))
        compared.append(seconds(lambda: artifact.read(name)))
    return median(without), median(compared)


def main() -> None:
    """Prints a line for each array."""
    with tempfile.TemporaryDirectory() as folder:
        ref = ArtifactRef("any", "0" * 64)
        store = ArtifactStore(Path(folder) / "store")
        with store.create(ref) as writer:
            for name, array in arrays().items():
                writer.write(name, array)
            writer.commit({})
        for name, array in arrays().items():
            without, compared = measure(store.open(ref), name)
            size = array.data.nbytes / 1e6
            print(
                f"{name:8} {size:6.1f} MB  {1e3 * without:7.1f} ms  {1e3 * compared:7.1f} ms  {compared / without:.2f}"
            )


if __name__ == "__main__":
    main()
