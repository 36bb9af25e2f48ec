"""Gaussians that the camera hardly sees, made to match the front, which a fit changes, and they do not.

Where networks are unsure of a surface they make it of small Gaussians with gaps between. A fit closes the gaps that its
camera sees; behind, what they hold is spread over larger and fainter ones. And where they are unsure of colors they
give dull ones, which a fit brightens in front.

Axes: t frame, n Gaussian, s pixel along one side.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ss4d.stages.fitting.dots import denser
from ss4d.stages.fitting.groups import grouped
from ss4d.stages.fitting.pictures import FRAMES_AT_ONCE, drawn, resized, unpacked
from ss4d.stages.types import Camera, GaussianClip

SEEN = 0.2  # of what it would cover alone, what one that the camera sees covers
# Least standard deviation of a hidden Gaussian along the second of its axes, over the side of a cell of `groups`, which
# is about twice as long as neighbors are apart: a surface has no gaps at a third of how far they are.
WIDTH = 0.175
COVERED, SOLID = 0.98, 0.8  # alpha of the input's pixels and of the asset's whose colors are compared
BRIGHTEST = 1.7  # times as bright as they were hidden Gaussians get, at most


def hidden_from(gaussians: GaussianClip, camera: Camera, size: int, device: torch.device) -> Tensor:
    """Which Gaussians (n) the camera hardly sees, on the CPU.

    Args:
        gaussians: of the clip.
        camera: in the frame of the Gaussians.
        size: pixels a side of the pictures in which it sees the others.
        device: to draw on.
    """
    return shown(gaussians, camera, size, device) < SEEN * alone(gaussians, camera, size)


def brightened(gaussians: GaussianClip, hidden: Tensor, wanted: Tensor, camera: Camera) -> GaussianClip:
    """The clip, with hidden Gaussians as much brighter as the input is, channel by channel, than the asset in front.

    They are never made darker: the camera saw the object in its light, with shadows, and networks give colors without.

    Args:
        gaussians: of the clip.
        hidden: which of them (n).
        wanted: what the camera saw (t, s, s, 4), RGB over black and alpha, on the device to draw on.
        camera: in the frame of the Gaussians.
    """
    asset, offsets = unpacked(gaussians, wanted.device)
    seen = resized(camera, wanted.shape[1])
    input_sum, asset_sum = wanted.new_zeros(3), wanted.new_zeros(3)
    for frames in torch.split(torch.arange(gaussians.num_frames), FRAMES_AT_ONCE):
        with torch.no_grad():
            picture = drawn(asset, offsets, frames, [seen] * len(frames))
        theirs = wanted[frames.to(wanted.device)]
        both = (theirs[..., 3] > COVERED) & (picture[..., 3] > SOLID)
        input_sum += theirs[both][:, :3].sum(0)
        asset_sum += (picture[both][:, :3] / picture[both][:, 3:]).sum(0)
    if not asset_sum.sum() > 0:
        return gaussians
    gain = (input_sum / asset_sum.clamp(min=1e-3)).clamp(1, BRIGHTEST).cpu()
    brighter = torch.maximum(gaussians.colors, (gaussians.colors * gain).clamp(max=1))
    return replace(gaussians, colors=torch.where(hidden[:, None], brighter, gaussians.colors))


def smoothed(gaussians: GaussianClip, hidden: Tensor) -> GaussianClip:
    """The clip, with hidden Gaussians no smaller than what closes the gaps between neighbors, and fainter for it.

    Args:
        gaussians: of the clip, one at least.
        hidden: which of them (n).
    """
    least = WIDTH * grouped(gaussians.means, gaussians.offsets).spacing
    growth = least / gaussians.scales.median(dim=1).values
    hidden = hidden & (growth > 1)
    # Optical depth times area, face on, stays. Spread so, it hides more than before: gaps hid nothing.
    fainter = denser(gaussians.opacities, growth.pow(-2))
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
