"""Gaussians that the camera hardly sees, made so large that they close to a surface, which else is a net from behind.

Where networks are unsure of a surface they make it of small Gaussians with gaps between. A fit closes the gaps that its
camera sees; behind, what they hold is spread over larger and fainter ones.

Axes: t frame, n Gaussian.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ss4d.stages.fitting.groups import grouped
from ss4d.stages.fitting.pictures import FRAMES_AT_ONCE, drawn, resized, unpacked
from ss4d.stages.types import Camera, GaussianClip

SEEN = 0.2  # of what it would cover alone, what one that the camera sees covers
# Least standard deviation of a hidden Gaussian along the second of its axes, over the side of a cell of `groups`, which
# is about twice as long as neighbors are apart: a surface has no gaps at a third of how far they are.
WIDTH = 0.175


def smoothed(gaussians: GaussianClip, camera: Camera, size: int, device: torch.device) -> GaussianClip:
    """The clip, with hidden Gaussians no smaller than what closes the gaps between neighbors, and fainter for it.

    Args:
        gaussians: of the clip.
        camera: that sees the rest, in the frame of the Gaussians.
        size: pixels a side of the pictures in which it does.
        device: to draw on.
    """
    if len(gaussians.means) == 0:
        return gaussians
    least = WIDTH * grouped(gaussians.means, gaussians.offsets).spacing
    growth = least / gaussians.scales.median(dim=1).values
    hidden = (growth > 1) & (shown(gaussians, camera, size, device) < SEEN * alone(gaussians, camera, size))
    # Optical depth times area, face on, stays. Spread so, it hides more than before: gaps hid nothing.
    fainter = 1 - (1 - gaussians.opacities).clamp(min=1e-3) ** growth.pow(-2)
    return replace(
        gaussians,
        scales=torch.where(hidden, growth, 1.0)[:, None] * gaussians.scales,
        opacities=torch.where(hidden, fainter, gaussians.opacities),
    )


def shown(gaussians: GaussianClip, camera: Camera, size: int, device: torch.device) -> Tensor:
    """How many pixels (n) of a picture of `size` pixels a side `camera` sees of each Gaussian, on the CPU."""
    asset, offsets = unpacked(gaussians, device)
    white = torch.ones_like(asset.colors).requires_grad_()
    seen = resized(camera, size)
    for frames in torch.split(torch.arange(gaussians.num_frames), FRAMES_AT_ONCE):
        picture = drawn(replace(asset, colors=white), offsets, frames, [seen] * len(frames))
        picture[..., :3].sum().backward(inputs=[white])  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert white.grad is not None
    return white.grad.mean(1).cpu()


def alone(gaussians: GaussianClip, camera: Camera, size: int) -> Tensor:
    """The same (n) of each if nothing hid it and it faced the camera."""
    *toward, away = camera.world_to_camera[2]
    depths = (gaussians.means @ torch.tensor(toward) + away).clamp(min=1e-3)
    unit = camera.focal / camera.width * size / depths  # pixels of a world unit there
    area = 2 * math.pi * gaussians.scales.sort(dim=1).values[:, 1:].prod(1) * unit.square()
    return gaussians.opacities * area
