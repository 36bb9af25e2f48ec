"""Gaussians that show beside the object: no camera that sees the masks can be right about them, so they fade away.

Axes: t frame, n Gaussian.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from ss4d.stages.types import Camera, GaussianClip

TOUCHED = 0.05  # alpha of a pixel that the object covers at all
MARGIN = 1 / 32  # of a side of the crop: about how far a camera that was found may be off


def within_masks(gaussians: GaussianClip, masks: Tensor, camera: Camera) -> GaussianClip:
    """The clip, its Gaussians whose centers show further than `MARGIN` from the object made transparent.

    What shows beside the picture, of which the masks tell nothing, and frames without any object stay as they are.

    Args:
        gaussians: of the clip.
        masks: alpha (t, s, s) of what `camera` saw, 0 to 1.
        camera: in the frame of the Gaussians.
    """
    size = masks.shape[1]
    reach = max(round(MARGIN * size), 1)
    touched = (masks.cpu() > TOUCHED).float()
    near = functional.max_pool2d(touched[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0] > 0
    near = near | (near.flatten(1).sum(1) == 0)[:, None, None]
    frames = torch.arange(gaussians.num_frames).repeat_interleave(gaussians.offsets[1:] - gaussians.offsets[:-1])
    matrix = torch.tensor(camera.world_to_camera)
    points = gaussians.means @ matrix[:3, :3].T + matrix[:3, 3]
    places = camera.focal / camera.width * points[:, :2] / points[:, 2:].clamp(min=1e-3) + 0.5
    x, y = (places * size).floor().long().unbind(1)
    inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
    kept = near[frames, y.clamp(0, size - 1), x.clamp(0, size - 1)] | ~inside
    return replace(gaussians, opacities=torch.where(kept, gaussians.opacities, 0.0))
