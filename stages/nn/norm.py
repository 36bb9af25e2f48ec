"""Normalization in float32 whatever the precision of the rows; the last axis is the channels."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ss4d.stages.nn.pieces import by_rows

BLOCK_EPS = 1e-6  # inside blocks (docs/model.md, section 5)
FINAL_EPS = 1e-5  # before output layers


def layer_norm(x: Tensor, eps: float = BLOCK_EPS) -> Tensor:
    """Layer norm over the last axis without weights, computed in float32, given back in the precision of `x`."""
    # Of half precision torch itself computes it in float32, without a copy of the rows in that: three times faster.
    return functional.layer_norm(x, x.shape[-1:], eps=eps).to(x.dtype)


class LayerNorm(nn.LayerNorm):
    """Layer norm with weights that stay in float32; computed in float32, given back in the precision of the rows."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=BLOCK_EPS)

    def forward(self, x: Tensor) -> Tensor:
        forward = super().forward
        return by_rows(lambda rows: forward(rows.float()).to(rows.dtype), x)


class HeadNorm(nn.Module):
    """RMS norm of each head's channels: x / |x| sqrt(D) gamma; rows are (n, h, d), the result is float32."""

    def __init__(self, heads: int, head_channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(heads, head_channels))

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x.float(), dim=-1) * (self.gamma * math.sqrt(x.shape[-1]))
