"""Submanifold convolution over any of (t, x, y, z): outputs only at active cells, and only active cells contribute.

out_i = bias + sum_k W_k x_{n(i, k)}, where n(i, k) is the active cell at offset k from cell i, if there is one.
It is a cross-correlation (docs/model.md, section 7); kernels are stored (out, k..., in): 4 axes are (t, x, y, z), 3 are
(x, y, z) inside a frame.

Two ways give the same sum, and `_by_pairs` chooses:
- pairs: offset by offset, the neighbors that exist are multiplied and added to the cells that see them. No cell is
  listed twice at an offset, so nothing depends on the order of additions.
- gathered: all neighbors, absent ones as zeros, are gathered block by block into a matrix (rows, K C_in) that fits the
  cache, and multiplied at once.

Cells may also be copies of the merged cells that they lie in, as after a doubling: then each merged row is multiplied
once, and the products, which are narrower, are copied.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ss4d.stages.ops.coords import PerAxis, Sites
from ss4d.stages.ops.neighbors import Block, blocks, density, neighbors
from ss4d.stages.ops.pooling import NOT_MERGED, pooling, sum_children

# Cells of a block of pairs: few calls, and on a CPU rows that stay in the third-level cache.
BLOCK_ROWS = {"cpu": 1 << 12, "cuda": 1 << 16}
# Of a gathered block: on a CPU 2 MB, what the second-level caches of two cores hold; on a GPU 512 MB, few calls.
BLOCK_FLOATS = {"cpu": 1 << 19, "cuda": 1 << 27}
MIN_BLOCK_ROWS = 256  # fewer rows waste a matrix product
LONGEST_SUM = 512  # of a gathered product in float32 on a CPU
# What pairs cost besides their products, measured on a CPU (docs/benchmarks.md): to read and add the rows of a pair, as
# much as so many channels more of its product; to begin with an offset, as much as so many products of two numbers.
PAIR_CHANNELS, OFFSET_PRODUCTS = 30, 400_000


class Convolution(Protocol):
    """What every convolution is called like; see `conv`."""

    def __call__(
        self, feats: Tensor, sites: Sites, weight: Tensor, bias: Tensor, stride: PerAxis = NOT_MERGED, /
    ) -> Tensor: ...


def conv(feats: Tensor, sites: Sites, weight: Tensor, bias: Tensor, stride: PerAxis = NOT_MERGED) -> Tensor:
    """Submanifold convolution, differentiable, deterministic.

    Args:
        feats: (N, C_in); with a stride (M, C_in), rows of the M cells that `sites` are merged to by it, of which every
            cell has the features of the one it lies in.
        sites: the N cells.
        weight: (C_out, k..., C_in) with 3 or 4 odd kernel axes.
        bias: (C_out).
        stride: cells merged along (t, x, y, z).

    Returns:
        (N, C_out).

    Raises:
        ModelError: if a kernel extent is even.
    """
    kernel = kernel_extents(weight)
    result: Tensor = _Conv.apply(feats, weight.flatten(1, -2), bias, sites, kernel, stride)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return result


def kernel_extents(weight: Tensor) -> PerAxis:
    """The kernel (t, x, y, z) of a weight (C_out, k..., C_in); three axes are space inside one frame."""
    t, x, y, z = (1,) * (6 - weight.ndim) + tuple(weight.shape[1:-1])
    return t, x, y, z


class _Conv(torch.autograd.Function):
    """Rows (N or M, C_in), weight (C_out, K, C_in), bias (C_out), sites, kernel, stride -> (N, C_out).

    If cell j is at offset k from i, then i is at offset K - 1 - k from j: the gradient of the input is the same
    convolution with the kernel reversed.
    """

    @staticmethod
    def forward(
        ctx: Any, feats: Tensor, weight: Tensor, bias: Tensor, sites: Sites, kernel: PerAxis, stride: PerAxis
    ) -> Tensor:
        ctx.save_for_backward(feats, weight)
        ctx.cells = sites, kernel, stride
        return _convolve(feats, weight, bias, sites, kernel, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        feats, weight = ctx.saved_tensors
        sites, kernel, stride = ctx.cells
        wants_feats, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        grad_feats = None
        if wants_feats:
            reverse = weight.flip(1).permute(2, 1, 0)
            grad_feats = _convolve(grad, reverse, grad.new_zeros(len(reverse)), sites, kernel, NOT_MERGED)
            if stride != NOT_MERGED:
                grad_feats = sum_children(grad_feats, pooling(sites, stride).children)
        grad_weight = _weight_gradient(feats, grad, weight, sites, kernel, stride) if wants_weight else None
        return grad_feats, grad_weight, grad.sum(0) if wants_bias else None, None, None, None


def _by_pairs(sites: Sites, kernel: PerAxis, stride: PerAxis, weight: Tensor) -> bool:
    """Whether the pairs that exist are the faster way for a weight (C_out, K, C_in)."""
    if stride != NOT_MERGED:
        return True
    channels = min(len(weight), weight.shape[2])
    offset_channels = OFFSET_PRODUCTS / max(len(sites) * len(weight), 1)
    faster: bool = density(sites, kernel) * (channels + PAIR_CHANNELS) + offset_channels <= channels
    return faster


def _pair_blocks(sites: Sites, kernel: PerAxis, stride: PerAxis) -> tuple[Block, ...]:
    return blocks(sites, kernel, stride, BLOCK_ROWS[sites.device.type])


def _convolve(feats: Tensor, weight: Tensor, bias: Tensor, sites: Sites, kernel: PerAxis, stride: PerAxis) -> Tensor:
    out = feats.new_empty(len(sites), len(weight))
    if not _by_pairs(sites, kernel, stride, weight):
        matrix = weight.flatten(1).t()
        for rows, gathered in _gathered(feats, neighbors(sites, kernel)):
            _multiply(gathered, matrix, bias, out[rows])
        return out
    wide = torch.promote_types(feats.dtype, torch.float32)  # so that a sum over offsets does not round each time
    for block in _pair_blocks(sites, kernel, stride):
        total = bias.to(wide).repeat(block.rows.stop - block.rows.start, 1)
        for k, offset in enumerate(block.offsets):
            products = _product(feats.index_select(0, offset.sources), weight[:, k].t()).to(wide)
            if offset.taken is not None:
                products = products.index_select(0, offset.taken)
            total.index_add_(0, offset.cells, products)
        out[block.rows] = total
    return out


def _weight_gradient(
    feats: Tensor, grad: Tensor, weight: Tensor, sites: Sites, kernel: PerAxis, stride: PerAxis
) -> Tensor:
    """Gradient of the weight, (C_out, K, C_in) as this is."""
    _, num_offsets, channels = weight.shape
    if not _by_pairs(sites, kernel, stride, weight):
        flat = feats.new_zeros(grad.shape[1], num_offsets * channels)
        for rows, gathered in _gathered(feats, neighbors(sites, kernel)):
            flat.addmm_(grad[rows].t(), gathered)
        return flat.view(-1, num_offsets, channels)
    total = feats.new_zeros(num_offsets, grad.shape[1], channels)
    for block in _pair_blocks(sites, kernel, stride):
        seeing = grad[block.rows]
        for k, offset in enumerate(block.offsets):
            seen = feats.index_select(0, offset.sources)
            if offset.taken is not None:
                seen = seen.index_select(0, offset.taken)
            total[k].addmm_(seeing.index_select(0, offset.cells).t(), seen)
    return total.transpose(0, 1)


def _multiply(gathered: Tensor, matrix: Tensor, bias: Tensor, out: Tensor) -> None:
    """Writes bias + gathered @ matrix to `out`."""
    # Longer sums are shared out over threads by some CPUs' libraries, and then round as the number of threads wants.
    longest = LONGEST_SUM if gathered.dtype == torch.float32 and gathered.device.type == "cpu" else len(matrix)
    torch.addmm(bias, gathered[:, :longest], matrix[:longest], out=out)
    for start in range(longest, len(matrix), longest):
        out.addmm_(gathered[:, start : start + longest], matrix[start : start + longest])


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    # Into memory of this type, as autocast would else compute in another.
    return torch.mm(rows, matrix, out=rows.new_empty(len(rows), matrix.shape[1]))


def _gathered(feats: Tensor, table: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Slices of rows, each with its gathered neighbors (rows, K C_in), in memory that the next reuses."""
    num_offsets, channels = table.shape[1], feats.shape[1]
    padded = torch.cat([feats, feats.new_zeros(1, channels)])  # the last row is the missing neighbor
    size = min(len(feats), max(MIN_BLOCK_ROWS, BLOCK_FLOATS[feats.device.type] // (num_offsets * channels)))
    memory = feats.new_empty(size * num_offsets, channels)
    for start in range(0, len(feats), max(size, 1)):
        index = table[start : start + size].flatten()
        block = torch.index_select(padded, 0, index, out=memory[: len(index)])
        yield slice(start, start + size), block.view(-1, num_offsets * channels)
