"""Convolutional residual blocks on sparse voxels; features are (n, c) on sites (b, t, x, y, z).

Space, time and 4D blocks are one class: they differ in the kernel's shape alone.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ss4d.stages.nn.block import modulate
from ss4d.stages.nn.norm import LayerNorm, layer_norm
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.coords import PerAxis, Sites, SparseTensor
from ss4d.stages.ops.pooling import NOT_MERGED, pooling, unpool
from ss4d.stages.ops.windows import Frames

SPACE_KERNEL = (3, 3, 3)  # (x, y, z) inside a frame
TIME_KERNEL = (3, 1, 1, 1)  # (t, x, y, z), as all four-dimensional ones
SPACE_TIME_KERNEL = (3, 3, 3, 3)


class Kernel(nn.Module):
    """Weight (C_out, k..., C_in) and bias (C_out) of a sparse convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, *kernel, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels))
        bound = 1 / math.sqrt(in_channels * math.prod(kernel))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)


class SubmanifoldConv(nn.Module):
    """A convolution whose outputs lie on the cells of its inputs, or on those that these were merged from."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, ...], ops: Ops) -> None:
        super().__init__()
        self.conv = Kernel(in_channels, out_channels, kernel)
        self.ops = ops

    def forward(self, feats: Tensor, sites: Sites, stride: PerAxis = NOT_MERGED) -> Tensor:
        """Rows (N, C_out) on `sites` of rows (N, C_in), or of those (M, C_in) of the cells merged by `stride`."""
        return self.ops.conv(feats, sites, self.conv.weight, self.conv.bias, stride)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, the second modulated by the flow time, plus the input (docs/model.md, section 7).

    Halving comes before the block: see `ss4d.stages.ops.pooling`. A doubling is part of it: norm, SiLU and matrix
    products give the same for all copies of a row, so they are made of the rows before they are copied.

    Args:
        in_channels: of the rows given.
        out_channels: of the rows returned.
        time_channels: width of the time embedding.
        kernel: of both convolutions.
        ops: kernels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, time_channels: int, kernel: tuple[int, ...], ops: Ops
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(in_channels)
        self.conv1 = SubmanifoldConv(in_channels, out_channels, kernel, ops)
        self.conv2 = SubmanifoldConv(out_channels, out_channels, kernel, ops)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, 2 * out_channels))
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Linear(in_channels, out_channels)

    def forward(
        self, x: SparseTensor, time: Tensor, frames: Frames, sites: Sites, stride: PerAxis = NOT_MERGED
    ) -> SparseTensor:
        """Features (N, C_in) to (N, C_out) on the same sites, or on those that `x` was merged from.

        Args:
            x: features.
            time: (frames, time channels) embedding of each frame's flow time.
            frames: the rows of each frame of the result.
            sites: cells of the result, of which each has the features of the one of `x` that it lies in.
            stride: how many of them were merged along (t, x, y, z) to one of `x`.
        """
        scale, shift = self.emb_layers(time).chunk(2, dim=1)
        h = self.conv1(functional.silu(self.norm1(x.feats)), sites, stride)
        h = self.conv2(functional.silu(modulate(layer_norm(h), shift, scale, frames)), sites)
        skipped = x.replace(self.skip_connection(x.feats))
        if stride != NOT_MERGED:
            skipped = unpool(skipped, pooling(sites, stride))
        return skipped.replace(h + skipped.feats)
