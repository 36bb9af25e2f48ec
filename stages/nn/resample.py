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
from ss4d.stages.ops.coords import SparseTensor
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
    """A convolution whose outputs lie on the cells of its inputs."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, ...], ops: Ops) -> None:
        super().__init__()
        self.conv = Kernel(in_channels, out_channels, kernel)
        self.ops = ops

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.replace(self.ops.conv(x.feats, x.sites, self.conv.weight, self.conv.bias))


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, the second modulated by the flow time, plus the input (docs/model.md, section 7).

    Halving and doubling come before the block and have no weights: see `ss4d.stages.ops.pooling`.

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

    def forward(self, x: SparseTensor, time: Tensor, frames: Frames) -> SparseTensor:
        """Features (N, C_in) to (N, C_out) on the same sites.

        Args:
            x: features.
            time: (frames, time channels) embedding of each frame's flow time.
            frames: the rows of each frame.
        """
        scale, shift = self.emb_layers(time).chunk(2, dim=1)
        h = self.conv1(x.replace(functional.silu(self.norm1(x.feats))))
        h = h.replace(functional.silu(modulate(layer_norm(h.feats), shift, scale, frames)))
        return x.replace(self.conv2(h).feats + self.skip_connection(x.feats))
