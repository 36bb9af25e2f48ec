"""Gaussians with little around them: those that stand alone are loose dots, the others are of parts that are faint.

Axes: t frame, n Gaussian, m cell that holds Gaussians.
"""

import itertools
from dataclasses import replace

import torch
from torch import Tensor

from ss4d.stages.fitting.groups import grouped
from ss4d.stages.types import GaussianClip

VISIBLE = 0.1  # opacity of what counts
# Of the opacity that is usual around a Gaussian, what one that stands alone has around it. Twice as much takes the
# fringes of what networks are unsure of, too, which novel views then lack: measured on the tuning clips.
ALONE = 0.1
FAINT = 0.4  # of what is usual around a Gaussian, the least that a part of the object is given
STRONGER = 30.0  # times its optical depth, at most
PLACES = 2**10  # along each axis: cells further from the middle than half of that count as the last


def without_dots(gaussians: GaussianClip) -> GaussianClip:
    """The clip, with Gaussians that have hardly anything around them made transparent.

    What is around one is the opacity in its cell and the 26 beside it, in its frame, but for its own; cells are those
    of `ss4d.stages.fitting.groups`. What is usual is the median of that over the clip's visible Gaussians.
    """
    visible = gaussians.opacities > VISIBLE
    if not visible.any():
        return gaussians
    around = _opacity_around(gaussians) - gaussians.opacities
    alone = around < ALONE * around[visible].median()
    return replace(gaussians, opacities=torch.where(alone, 0.0, gaussians.opacities))


def strengthened(gaussians: GaussianClip) -> GaussianClip:
    """The clip, with more opaque Gaussians where networks left parts faint: up to `FAINT` of what is usual around one.

    What is around one, and what is usual, is told as in `without_dots`, but that its own opacity counts.
    """
    visible = gaussians.opacities > VISIBLE
    if not visible.any():
        return gaussians
    around = _opacity_around(gaussians)
    times = (FAINT * around[visible].median() / around.clamp(min=1e-3)).clamp(1, STRONGER)
    stronger = denser(gaussians.opacities, times)
    return replace(gaussians, opacities=torch.where(times > 1, stronger, gaussians.opacities))


def denser(opacities: Tensor, times: Tensor) -> Tensor:
    """Opacities (n) of what has so many times the optical depth."""
    return 1 - (1 - opacities).clamp(min=1e-3) ** times


def _opacity_around(gaussians: GaussianClip) -> Tensor:
    """The sum of opacities (n) in each Gaussian's cell and those beside it."""
    counts = gaussians.offsets[1:] - gaussians.offsets[:-1]
    frames = torch.arange(len(counts)).repeat_interleave(counts)
    spacing = grouped(gaussians.means, gaussians.offsets).spacing
    cells = ((gaussians.means / spacing).floor().long() + PLACES // 2).clamp(1, PLACES - 2)

    def keys(places: Tensor) -> Tensor:
        return ((frames * PLACES + places[:, 0]) * PLACES + places[:, 1]) * PLACES + places[:, 2]

    filled, member = torch.unique(keys(cells), return_inverse=True)
    held = gaussians.opacities.new_zeros(len(filled)).index_add(0, member, gaussians.opacities)
    total = torch.zeros_like(gaussians.opacities)
    for step in itertools.product((-1, 0, 1), repeat=3):
        beside = keys(cells + torch.tensor(step))
        found = torch.searchsorted(filled, beside).clamp(max=len(filled) - 1)
        total += torch.where(filled[found] == beside, held[found], 0.0)
    return total
