"""Gaussians grouped by the cell of a grid that holds them, so that what is near in space or time can move alike.

Axes: n Gaussian, m group (cells of a frame that hold Gaussians), p pair of groups.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

PER_CELL = 4.0  # Gaussians that a cell should hold on average, of cells that hold any
RESOLUTIONS = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True, eq=False)
class Groups:
    """Which Gaussians belong together.

    Attributes:
        member: (n) int64, the group of each Gaussian.
        counts: (m, 1), Gaussians of each group.
        later: (2, p) int64, groups of one cell in a frame and in the next.
        spacing: side of a cell, world units: about twice as far as neighbors are apart.
    """

    member: Tensor
    counts: Tensor
    later: Tensor
    spacing: float

    def mean(self, values: Tensor) -> Tensor:
        """The mean (m, c) of values (n, c) over each group."""
        sums = values.new_zeros(len(self.counts), values.shape[1]).index_add(0, self.member, values)
        return sums / self.counts

    def unevenness(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """How far values (n, c) differ from those beside them, and from those before and after: mean squares."""
        means = self.mean(values)
        # Not means[member]: on a CPU, the gradient of that is added up in an order that depends on the load.
        around = means.index_select(0, self.member)
        apart = (values - around).square().sum() / max(len(values), 1)
        change = means.index_select(0, self.later[0]) - means.index_select(0, self.later[1])
        return apart, change.square().sum() / max(self.later.shape[1], 1)


def grouped(means: Tensor, offsets: Tensor) -> Groups:
    """Groups Gaussians with centers `means` (n, 3), wherever they lie; frame t owns rows offsets[t] to offsets[t + 1].

    The grid is the coarsest whose cells hold at most `PER_CELL` of them on average, those that hold none left out.
    """
    frames = torch.arange(len(offsets) - 1, device=means.device).repeat_interleave(offsets[1:] - offsets[:-1])
    for resolution in RESOLUTIONS:
        cells = ((means + 0.5) * resolution).floor().clamp(-(2**9), 2**9 - 1).long() + 2**9
        places = (cells[:, 0] * 2**10 + cells[:, 1]) * 2**10 + cells[:, 2]
        keys, member, counts = torch.unique(frames * 2**30 + places, return_inverse=True, return_counts=True)
        if len(member) <= PER_CELL * len(keys):
            break
    following = torch.searchsorted(keys, keys + 2**30).clamp(max=max(len(keys) - 1, 0))
    both = keys[following] == keys + 2**30
    later = torch.stack([torch.arange(len(keys), device=keys.device)[both], following[both]])
    return Groups(member, counts[:, None].to(means.dtype), later, 1 / resolution)
