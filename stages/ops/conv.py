"""Submanifold convolution over any of (t, x, y, z): outputs only at active cells, and only active cells contribute.

out_i = bias + sum_k W_k x_{n(i, k)}, where n(i, k) is the active cell at offset k from cell i, if there is one.
It is a cross-correlation (docs/model.md, section 7); kernels are stored (out, k..., in): 4 axes are (t, x, y, z), 3 are
(x, y, z) inside a frame.

Rows are gathered block by block into a matrix (rows, K C_in) that fits the cache, and multiplied at once: nothing is
scattered, so the result does not depend on threads. If cell j is at offset k from i, then i is at offset K - 1 - k
from j: the gradient of the input is the same convolution with the kernel reversed.
"""

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ss4d.stages.errors import ModelError
from ss4d.stages.ops.coords import PerAxis, Sites, linear_keys

# Of a gathered block: on a CPU 2 MB, what the second-level caches of two cores hold; on a GPU 512 MB, few calls.
BLOCK_FLOATS = {"cpu": 1 << 19, "cuda": 1 << 27}
MIN_BLOCK_ROWS = 256  # fewer rows waste a matrix product

Convolution = Callable[[Tensor, Sites, Tensor, Tensor], Tensor]  # what every convolution is called like, see `conv`


def neighbors(sites: Sites, kernel: PerAxis) -> Tensor:
    """The active cell at each offset of a kernel from each cell, never in another clip; built once per kernel.

    Args:
        sites: N active cells.
        kernel: odd extents over (t, x, y, z).

    Returns:
        (N, K) int32 rows, K the product of the kernel, offsets in the kernel's order (z fastest); N where no cell is.

    Raises:
        ModelError: if an extent is even.
    """
    return sites.derived(("neighbors", kernel), lambda s: _neighbors(s.coords, kernel))


def _neighbors(coords: Tensor, kernel: PerAxis) -> Tensor:
    if any(size % 2 == 0 for size in kernel):
        raise ModelError(f"a submanifold convolution needs odd kernel extents, got {kernel}")
    radius = [size // 2 for size in kernel]
    keys, (_, *steps) = linear_keys(coords, (0, *radius))
    table = coords.new_empty(len(coords), math.prod(kernel), dtype=torch.int32)
    last = max(len(coords) - 1, 0)
    for k, offset in enumerate(product(*(range(-r, r + 1) for r in radius))):
        wanted = keys + sum(o * step for o, step in zip(offset, steps, strict=True))
        row = torch.searchsorted(keys, wanted, out_int32=True).clamp_(max=last)
        table[:, k] = torch.where(keys[row] == wanted, row, len(coords))
    return table


def conv(feats: Tensor, sites: Sites, weight: Tensor, bias: Tensor) -> Tensor:
    """Submanifold convolution, differentiable, deterministic.

    Args:
        feats: (N, C_in).
        sites: the N cells of the rows.
        weight: (C_out, k..., C_in) with 3 or 4 odd kernel axes.
        bias: (C_out).

    Returns:
        (N, C_out).

    Raises:
        ModelError: if a kernel extent is even.
    """
    table = neighbors(sites, kernel_extents(weight))
    result: Tensor = _Gemm.apply(feats, table, weight.flatten(1, -2), bias)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return result


def kernel_extents(weight: Tensor) -> PerAxis:
    """The kernel (t, x, y, z) of a weight (C_out, k..., C_in); three axes are space inside one frame."""
    t, x, y, z = (1,) * (6 - weight.ndim) + tuple(weight.shape[1:-1])
    return t, x, y, z


class _Gemm(torch.autograd.Function):
    """Gathered matrix products: feats (N, C_in), table (N, K), weight (C_out, K, C_in), bias (C_out) -> (N, C_out)."""

    @staticmethod
    def forward(ctx: Any, feats: Tensor, table: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(feats, table, weight)
        return _convolve(feats, table, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None]:
        feats, table, weight = ctx.saved_tensors
        wants_feats, _, wants_weight, wants_bias = ctx.needs_input_grad
        reverse = weight.flip(1).permute(2, 1, 0)
        grad_feats = _convolve(grad, table, reverse, grad.new_zeros(len(reverse))) if wants_feats else None
        grad_weight = _weight_gradient(feats, table, grad).view_as(weight) if wants_weight else None
        return grad_feats, None, grad_weight, grad.sum(0) if wants_bias else None


def _convolve(feats: Tensor, table: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    out = feats.new_empty(len(feats), len(weight))
    matrix = weight.flatten(1).t()
    for rows, block in _blocks(feats, table):
        torch.addmm(bias, block, matrix, out=out[rows])
    return out


def _weight_gradient(feats: Tensor, table: Tensor, grad: Tensor) -> Tensor:
    total = feats.new_zeros(grad.shape[1], table.shape[1] * feats.shape[1])
    for rows, block in _blocks(feats, table):
        total.addmm_(grad[rows].t(), block)
    return total


def _blocks(feats: Tensor, table: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Slices of rows, each with its gathered neighbors (rows, K C_in), in memory that the next reuses."""
    num_offsets, channels = table.shape[1], feats.shape[1]
    padded = torch.cat([feats, feats.new_zeros(1, channels)])  # the last row is the missing neighbor
    size = min(len(feats), max(MIN_BLOCK_ROWS, BLOCK_FLOATS[feats.device.type] // (num_offsets * channels)))
    memory = feats.new_empty(size * num_offsets, channels)
    for start in range(0, len(feats), max(size, 1)):
        index = table[start : start + size].flatten()
        block = torch.index_select(padded, 0, index, out=memory[: len(index)])
        yield slice(start, start + size), block.view(-1, num_offsets * channels)
