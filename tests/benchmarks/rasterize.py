"""Time the rasterizer: `python tests/benchmarks/rasterize.py`."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from ss4d.stages.ops import rasterize, rasterize_reference
from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.types import GaussianClip


def shell(count: int, seed: int = 0) -> GaussianClip:
    """Flat Gaussians on a bumpy closed surface, as dense as the decoder makes them."""
    draw = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=draw), dim=-1)
    radii = 0.35 + 0.1 * torch.sin(8 * directions).mean(dim=-1, keepdim=True)
    return GaussianClip(
        means=directions * radii,
        scales=0.004 + 0.008 * torch.rand(count, 3, generator=draw),
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=draw), dim=-1),
        colors=torch.rand(count, 3, generator=draw),
        opacities=0.1 + 0.85 * torch.rand(count, generator=draw),
        offsets=torch.tensor([0, count]),
    )


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    function()  # compiles, warms caches
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    print(f"{torch.get_num_threads()} threads")
    for count, size in ((10_000, 512), (100_000, 512), (500_000, 512), (100_000, 1024)):
        scene, camera = shell(count), orbit_camera(30, 20, size=size)
        seconds = median_seconds(partial(rasterize.rasterize, scene, camera), repeats=9)
        print(f"{count:8d} Gaussians at {size} x {size}: {seconds * 1000:8.1f} ms")
    scene, camera = shell(2_000), orbit_camera(30, 20, size=96)
    fast = median_seconds(lambda: rasterize.rasterize(scene, camera), repeats=9)
    slow = median_seconds(lambda: rasterize_reference.rasterize(scene, camera), repeats=3)
    print(f"    2000 Gaussians at 96 x 96: {fast * 1000:.2f} ms, reference {slow * 1000:.0f} ms, {slow / fast:.0f} x")
    rgb = rasterize.rasterize(scene, camera)[0]
    error = (rgb - rasterize_reference.rasterize(scene, camera)[0]).abs()
    print(f"    largest difference {error.max():.1e}, mean {error.mean():.1e}")


if __name__ == "__main__":
    main()
