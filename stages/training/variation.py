"""Clips as they might have been as well: mirrored, and with their color channels in another order.

A network that sees the same clips for many epochs learns them by heart; varied ones are as true, and cost nothing.
"""

from dataclasses import replace

import torch
from torch import Generator, Tensor

from ss4d.stages.data.clip import SOURCE_SIZE, TrainingClip

MIRRORED = 0.5  # share of clips


def varied(clip: TrainingClip, generator: Generator) -> TrainingClip:
    """The clip, mirrored or not, with its color channels in a random order."""
    mirror = float(torch.rand((), generator=generator)) < MIRRORED
    order = torch.randperm(3, generator=generator)
    return recolored(mirrored(clip) if mirror else clip, order)


def recolored(clip: TrainingClip, order: Tensor) -> TrainingClip:
    """The clip under other names of its colors: channel i is what was channel `order[i]`."""
    channels = torch.cat([order, torch.tensor([3])])
    rest = torch.arange(3, clip.feats.shape[1])
    return replace(
        clip,
        frames=clip.frames[..., channels],
        views=clip.views[..., channels],
        feats=clip.feats[:, torch.cat([order, rest])],
    )


def mirrored(clip: TrainingClip) -> TrainingClip:
    """The clip of the object, the light and the cameras on the other side of the plane x = 0, which the front faces."""
    b, t, x, y, z = clip.coords.unbind(1)
    coords = torch.stack([b, t, clip.resolution - 1 - x, y, z], 1)
    frame, turned_x, y, z = (column.long() for column in coords[:, 1:].unbind(1))
    order = (((frame * clip.resolution + turned_x) * clip.resolution + y) * clip.resolution + z).argsort()
    signs = clip.feats.new_tensor([1, 1, 1, -1, 1, 1, -1, 1, 1])  # of color, normal and offset
    left, top, right, bottom = clip.crop.unbind()
    return replace(
        clip,
        frames=clip.frames.flip(2),
        crop=torch.stack([SOURCE_SIZE - right, top, SOURCE_SIZE - left, bottom]),
        input_camera=_mirrored(clip.input_camera),
        views=clip.views.flip(3),
        view_cameras=_mirrored(clip.view_cameras),
        coords=coords[order],
        feats=(clip.feats * signs)[order],
        upright=clip.upright * clip.upright.new_tensor([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]]),
        yaw=-clip.yaw,
    )


def _mirrored(world_to_camera: Tensor) -> Tensor:
    """The cameras (..., 4, 4) whose pictures are flipped from left to right."""
    flip = torch.diag(world_to_camera.new_tensor([-1, 1, 1, 1]))
    return flip @ world_to_camera @ flip
