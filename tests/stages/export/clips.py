"""An asset that shows what a wrong file would get wrong: lopsided, of needles in every direction, bright and faint."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ss4d.stages.export.asset import as_scene
from ss4d.stages.export.config import ExportConfig
from ss4d.stages.export.scene import Scene
from ss4d.stages.meshing.draw import draw_mesh
from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import Clip, GaussianClip, InputCamera, MeshClip

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


def scene_of(
    gaussians: GaussianClip, camera: InputCamera | None = None, clip: Clip | None = None, *, meshed: bool = True
) -> Scene:
    meshes = boxes(gaussians.num_frames) if meshed else None
    return as_scene(ExportConfig(size=48, frames=6), gaussians, FPS, camera, clip=clip, meshes=meshes)


def boxes(num_frames: int) -> MeshClip:
    """A box in each frame, whose sides are six colorful parts of the texture; it grows, and no side looks like another.

    One frame, the third, is empty.
    """
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3)
    sides = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    square = torch.tensor([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]])
    uv = torch.cat([(square + torch.tensor([side % 3, side // 3])) / 3 for side in range(6)])
    faces = torch.tensor([[4 * s, 4 * s + a, 4 * s + a + 1] for s in range(6) for a in (1, 2)], dtype=torch.int32)
    row, column = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    texture = torch.stack([5 * row, 5 * column, 255 - 5 * row], dim=-1).to(torch.uint8)
    frames = []
    for t in range(num_frames):
        size = torch.tensor([0.7, 0.3, 0.3 + 0.15 * t])
        some = 0 if t == 2 else 24
        frames.append(
            MeshClip(
                vertices=(corners * size)[torch.tensor(sides).reshape(-1)][:some],
                uv=uv[:some],
                faces=faces[: some // 2],
                texture=texture[None],
                deviation=torch.zeros(1),
                vertex_offsets=torch.tensor([0, some]),
                face_offsets=torch.tensor([0, some // 2]),
            )
        )
    return MeshClip.joined(frames)


def psnr(first: GaussianClip, second: GaussianClip) -> float:
    """Of two clips of one frame, drawn from the front and a side, over the worse of the two."""
    return _least_psnr(rasterize, first, second)


def mesh_psnr(first: MeshClip, second: MeshClip) -> float:
    """The same of meshes."""
    return _least_psnr(draw_mesh, first, second)


def _least_psnr(draw: Callable[..., tuple[Tensor, Tensor]], first: Any, second: Any) -> float:
    worst = float("inf")
    for yaw, pitch in ((180.0, 15.0), (110.0, 30.0)):
        camera = orbit_camera(yaw, pitch, size=160)
        one, two = (draw(frame, camera, background=(1.0, 1.0, 1.0))[0] for frame in (first, second))
        worst = min(worst, float(-10 * (one - two).square().mean().log10()))
    return worst
