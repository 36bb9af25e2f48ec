"""Halve and double sparse grids along any of (t, x, y, z); strides are (t, x, y, z), cells merge by //."""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ss4d.stages.ops.coords import PerAxis, Sites, SparseTensor, linear_keys

NOT_MERGED: PerAxis = (1, 1, 1, 1)  # the stride of cells that stay themselves


@dataclass(frozen=True, eq=False)
class Pooling:
    """How a fine and a coarse set of cells belong together.

    Attributes:
        fine: N cells.
        coarse: M cells, those with at least one fine cell in them.
        parent: (N) int64, the coarse cell of each fine one.
        children: (M, S) int64, the fine cells of each coarse one by their place in it, N where none is;
            S is the product of the stride.
    """

    fine: Sites
    coarse: Sites
    parent: Tensor
    children: Tensor


def pooling(sites: Sites, stride: PerAxis) -> Pooling:
    """The cells merged by `stride`; built once per stride, so the coarse sites are shared too."""
    return sites.derived(("pooling", stride), lambda s: _pooling(s, stride))


def _pooling(sites: Sites, stride: PerAxis) -> Pooling:
    steps = torch.tensor((1, *stride), dtype=torch.int32, device=sites.device)
    merged = sites.coords // steps
    keys, order = linear_keys(merged)[0].sort(stable=True)
    _, inverse, counts = torch.unique_consecutive(keys, return_inverse=True, return_counts=True)
    parent = torch.empty_like(order)
    parent[order] = inverse
    first = order[counts.cumsum(0) - counts]
    place = torch.zeros_like(parent)
    for axis, step in enumerate(stride, start=1):
        place = place * step + sites.coords[:, axis] % step
    children = parent.new_full((len(counts), prod(stride)), len(sites))
    children[parent, place] = torch.arange(len(sites), device=sites.device)
    return Pooling(sites, Sites(merged[first]), parent, children)


def pool(x: SparseTensor, stride: PerAxis) -> tuple[SparseTensor, Pooling]:
    """Merges cells: sum of the children / (their number + 1).

    Plus one because the published weights were trained with it (docs/model.md, section 7).

    Args:
        x: features (N, C).
        stride: cells merged along (t, x, y, z).

    Returns:
        Features (M, C) on the coarse cells, and the way back for `unpool`.
    """
    merged = pooling(x.sites, stride)
    divisor = (merged.children < len(x.sites)).sum(1, keepdim=True).add_(1).to(x.feats.dtype)
    total: Tensor = _Sum.apply(x.feats, merged.children, merged.parent)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return SparseTensor(merged.coarse, total / divisor), merged


def unpool(x: SparseTensor, merged: Pooling) -> SparseTensor:
    """Gives every fine cell its parent's feature: (M, C) on coarse cells to (N, C) on the remembered fine ones."""
    feats: Tensor = _Take.apply(x.feats, merged.children, merged.parent)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return SparseTensor(merged.fine, feats)


def sum_children(feats: Tensor, children: Tensor) -> Tensor:
    """The sum (M, C) of each coarse cell's rows among `feats` (N, C); see `Pooling.children`."""
    # Slot by slot in a fixed order: deterministic on every device, and without an (M, S, C) intermediate.
    padded = torch.cat([feats, feats.new_zeros(1, feats.shape[1])])
    total = padded.index_select(0, children[:, 0])
    for slot in range(1, children.shape[1]):
        total += padded.index_select(0, children[:, slot])
    return total


class _Sum(torch.autograd.Function):
    """Sum over children; its gradient is `_Take`, so that neither direction scatters."""

    @staticmethod
    def forward(ctx: Any, feats: Tensor, children: Tensor, parent: Tensor) -> Tensor:
        ctx.save_for_backward(parent)
        return sum_children(feats, children)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class _Take(torch.autograd.Function):
    """Parent of each child; its gradient is `_Sum`."""

    @staticmethod
    def forward(ctx: Any, feats: Tensor, children: Tensor, parent: Tensor) -> Tensor:
        ctx.save_for_backward(children)
        return feats.index_select(0, parent)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return sum_children(grad, ctx.saved_tensors[0]), None, None
