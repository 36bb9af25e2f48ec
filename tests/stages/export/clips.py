"""An asset that shows what a wrong file would get wrong: lopsided, of needles in every direction, bright and faint."""

import torch

from ss4d.stages.export.asset import as_scene
from ss4d.stages.export.config import ExportConfig
from ss4d.stages.export.scene import Scene
from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import Clip, GaussianClip, InputCamera

FPS = 12.0
COUNTS = (600, 500, 700)


def lopsided(*counts: int) -> GaussianClip:
    """Frames of so many Gaussians, which grow upward from frame to frame; no side looks like another."""
    clouds, offsets = [], [0]
    for t, count in enumerate(counts):
        draw = torch.Generator().manual_seed(t)
        place = torch.rand(count, 3, generator=draw)
        place = place * torch.tensor([0.7, 0.3, 0.3 + 0.15 * t]) + torch.tensor([-0.3, -0.1, -0.4])
        clouds.append(place)
        offsets.append(offsets[-1] + count)
    means = torch.cat(clouds)
    size = len(means)
    draw = torch.Generator().manual_seed(99)
    return GaussianClip(
        means=means,
        scales=torch.tensor([0.05, 0.012, 0.006]) * (0.5 + torch.rand(size, 1, generator=draw)),
        quats=torch.nn.functional.normalize(torch.randn(size, 4, generator=draw), dim=1),
        colors=(means + 0.5).clamp(0, 1) * torch.tensor([1.0, 0.7, 0.9]),
        opacities=0.05 + 0.94 * torch.rand(size, generator=draw),
        offsets=torch.tensor(offsets),
    )


def scene_of(gaussians: GaussianClip, camera: InputCamera | None = None, clip: Clip | None = None) -> Scene:
    return as_scene(ExportConfig(size=48, frames=6), gaussians, FPS, camera, clip=clip)


def psnr(first: GaussianClip, second: GaussianClip) -> float:
    """Of two clips of one frame, drawn from the front and a side, over the worse of the two."""
    worst = float("inf")
    for yaw, pitch in ((180.0, 15.0), (110.0, 30.0)):
        camera = orbit_camera(yaw, pitch, size=160)
        one, two = (rasterize(gaussians, camera, background=(1.0, 1.0, 1.0))[0] for gaussians in (first, second))
        worst = min(worst, float(-10 * (one - two).square().mean().log10()))
    return worst
