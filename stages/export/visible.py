"""The Gaussians of an asset that show the most: what a cap on their number keeps."""

import torch
from torch import Tensor

from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.ops.rasterize import contributions
from ss4d.stages.types import GaussianClip, Progress, silent

SIDE = 256  # pixels of the pictures in which they are counted
PITCHES = (-35.0, 0.0, 35.0)  # degrees above the horizon
YAWS = 6  # directions at each


def most_visible(gaussians: GaussianClip, at_most: int, progress: Progress = silent) -> GaussianClip:
    """The clip with at most so many Gaussians in each frame, those that show the most, in the order they had.

    Args:
        gaussians: the clip.
        at_most: Gaussians of a frame, at least 1.
        progress: told after each frame.
    """
    kept, counts = [], []
    for t in range(gaussians.num_frames):
        frame = gaussians.frame(t)
        rows = torch.arange(len(frame.means))
        if len(rows) > at_most:
            rows = shown(frame).topk(at_most).indices.sort().values
        kept.append(rows + int(gaussians.offsets[t]))
        counts.append(len(rows))
        progress(t + 1, gaussians.num_frames)
    chosen = torch.cat(kept)
    return gaussians.chosen(chosen, torch.tensor([0, *counts]).cumsum(0))


def shown(frame: GaussianClip) -> Tensor:
    """How many pixels each Gaussian (n) of a clip of one frame makes up, in pictures from all around."""
    total = torch.zeros(len(frame.means), dtype=torch.float64)
    for row, pitch in enumerate(PITCHES):
        for turn in range(YAWS):
            yaw = 360 / YAWS * (turn + row / len(PITCHES))
            total += contributions(frame, orbit_camera(yaw, pitch, size=SIDE))
    return total
