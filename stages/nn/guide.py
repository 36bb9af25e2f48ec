"""What the tokens of a column encoder tell of each cell, for flows that take it beside the noise.

A flow that takes more channels than it gives takes a guide in the others: features of the very cell it is about, where
attention to tokens would first have to find them. Without a condition the guide is zero, as the tokens are.

Axes: b clip, t frame, l token, c channel, k features of a cell, x y z cells; sparse rows are (b, t, x, y, z).
"""

from math import isqrt

import torch
from torch import Tensor

from ss4d.stages.errors import ModelError
from ss4d.stages.nn.block import KeptTokens
from ss4d.stages.nn.column_encoder import lifted
from ss4d.stages.nn.latent_flow import SLatFlow4DModel
from ss4d.stages.nn.structure_flow import SparseStructureFlow4DModel
from ss4d.stages.ops.coords import Sites, SparseTensor


class GuidedStructureFlow:
    """The flow of occupancy latents, which finds its guide in the tokens it is conditioned on."""

    def __init__(self, flow: SparseStructureFlow4DModel) -> None:
        self._flow = flow

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None, kept: KeptTokens | None = None) -> Tensor:
        """Velocity (b, t, c, r, r, r) at `x`, c the flow's output channels; arguments are those of the flow."""
        args = self._flow.args
        width = args.in_channels - args.out_channels
        if width:
            guide = _no_guide(x, 2, width) if cond is None else _grid_guide(cond, args.resolution, width)
            x = torch.cat([x, guide.to(x.dtype)], 2)
        velocity: Tensor = self._flow(x, t, cond, kept)
        return velocity


class GuidedLatentFlow:
    """The flow of structured latents as a function of rows on given voxels, with its guide."""

    def __init__(self, flow: SLatFlow4DModel, sites: Sites) -> None:
        self._flow, self._sites = flow, sites

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None, kept: KeptTokens | None = None) -> Tensor:
        """Velocity (n, c) at rows `x`, c the flow's output channels; arguments are those of the flow."""
        args = self._flow.args
        width = args.in_channels - args.out_channels
        if width:
            guide = _no_guide(x, 1, width) if cond is None else _row_guide(cond, self._sites, width)
            x = torch.cat([x, guide.to(x.dtype)], 1)
        velocity: SparseTensor = self._flow(SparseTensor(self._sites, x), t, cond, kept)
        return velocity.feats

    def with_and_without(
        self, x: Tensor, t: Tensor, cond: Tensor, kept: KeptTokens | None = None
    ) -> tuple[Tensor, Tensor]:
        """Velocities at rows `x` under `cond` and under no condition, as two calls give them."""
        if self._flow.args.in_channels != self._flow.args.out_channels:  # their guides differ
            return self(x, t, cond, kept), self(x, t, None)
        both = self._flow.with_and_without(SparseTensor(self._sites, x), t, cond, kept)
        return both[0].feats, both[1].feats


def _no_guide(x: Tensor, axis: int, width: int) -> Tensor:
    """The guide beside `x` that tokens of zeros give: zeros, `width` of them along `axis`."""
    return x.new_zeros([width if i == axis else size for i, size in enumerate(x.shape)])


def _grid_guide(tokens: Tensor, resolution: int, width: int) -> Tensor:
    """Features (b, t, `width`, r, r, r) of all the cells that each cell of a coarser grid covers."""
    volume = _volume(tokens)
    side = volume.shape[2]
    share = side // resolution
    if resolution * share != side or share**3 * volume.shape[-1] != width:
        raise ModelError(
            f"image tokens for a grid of {side} cells with {volume.shape[-1]} features each do not fit a flow that "
            f"takes {width} beside the noise on a grid of {resolution}: image encoder and flow are not of one model"
        )
    cells = volume.reshape(*volume.shape[:2], *(resolution, share) * 3, volume.shape[-1])
    return cells.permute(0, 1, 3, 5, 7, 8, 2, 4, 6).flatten(2, 5)


def _row_guide(tokens: Tensor, sites: Sites, width: int) -> Tensor:
    """Features (n, `width`) of the cells of `sites`."""
    volume = _volume(tokens)
    if volume.shape[-1] != width:
        raise ModelError(
            f"image tokens with {volume.shape[-1]} features a cell do not fit a flow that takes {width} beside the "
            "noise: image encoder and flow are not of one model"
        )
    return volume[sites.coords.long().unbind(1)]


def _volume(tokens: Tensor) -> Tensor:
    """The features (b, t, x, y, z, k) of every cell that tokens (b, t, l, c) of its column hold."""
    side = isqrt(tokens.shape[2])
    if side**2 != tokens.shape[2] or tokens.shape[3] % side:
        raise ModelError(f"{tokens.shape[2]} image tokens of {tokens.shape[3]} channels are not those of columns")
    return lifted(tokens, side)
