"""Gaussians as what a fit changes: colors, opacities, places and sizes, without any network.

Axes: n Gaussian, t frame.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ss4d.stages.fitting.descent import Piece
from ss4d.stages.fitting.groups import Groups, grouped
from ss4d.stages.fitting.pictures import unpacked
from ss4d.stages.ops.splat import Gaussians
from ss4d.stages.types import GaussianClip

# How far a step of the optimizer moves each part, over how far it moves a color.
COLOR, OPACITY, PLACE, SIZE = 1.0, 5.0, 3.0, 2.0
LARGEST_GROWTH = 2.0  # of a Gaussian's size, and the inverse of its least
FAINTEST = 1e-4
DETAIL = 0.5  # standard deviation of the smallest Gaussian, in pixels of the pictures compared


@dataclass(frozen=True, eq=False)
class GaussianStart:
    """Gaussians as they were, and how far each may go."""

    gaussians: Gaussians
    offsets: Tensor
    groups: Groups
    reach: float  # world units
    least: float  # standard deviation, world units
    channels: int = 10  # color, opacity, place, size

    @classmethod
    def of(cls, clip: GaussianClip, reach: float, pixel: float, device: torch.device) -> "GaussianStart":
        """Those of a clip, each of which may move by `reach`, over the distance between neighbors.

        None is smaller than what pictures with pixels of `pixel` world units tell: a smaller one hardly shows in them,
        so that the optimizer paints it at random, and larger pictures have specks. What is enlarged is as much fainter
        as it covers more (the smoothing filter of Mip-Splatting, face on).
        """
        gaussians, offsets = unpacked(clip, device)
        groups, least = grouped(gaussians.means, offsets), DETAIL * pixel
        shares = (gaussians.scales / (gaussians.scales.square() + least**2).sqrt()).sort(dim=1).values
        fainter = replace(gaussians, opacities=gaussians.opacities * shares[:, 1:].prod(1, keepdim=True))
        return cls(fainter, offsets, groups, reach * groups.spacing, least)

    def moved(self, by: Tensor, piece: Piece) -> tuple[Gaussians, Tensor]:
        """The Gaussians of some frames, changed `by` (n, 10); where each frame begins."""
        start, rows = self.gaussians, piece.rows
        color, opacity, place, size = torch.split(by, [3, 1, 3, 3], dim=1)
        logits = start.opacities[rows].clamp(FAINTEST, 1 - FAINTEST).logit()
        moved = Gaussians(
            means=start.means[rows] + self.reach * torch.tanh(PLACE * place),
            scales=(start.scales[rows] * torch.exp(math.log(LARGEST_GROWTH) * torch.tanh(SIZE * size)))
            .square()
            .add(self.least**2)
            .sqrt(),
            quats=start.quats[rows],
            colors=start.colors[rows] + COLOR * color,
            opacities=torch.sigmoid(logits + OPACITY * opacity),
        )
        return moved, self.offsets[piece.frames.start : piece.frames.stop + 1] - rows.start

    def all_moved(self, clip: GaussianClip, by: Tensor) -> GaussianClip:
        """The clip that this is the start of, changed."""
        whole = Piece(slice(0, clip.num_frames), slice(0, len(clip.means)))
        with torch.no_grad():
            moved, _ = self.moved(by, whole)
        return replace(
            clip,
            means=moved.means.cpu(),
            scales=moved.scales.cpu(),
            colors=moved.colors.cpu(),
            opacities=moved.opacities.squeeze(1).cpu(),
        )
