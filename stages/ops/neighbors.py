"""Which cells of a sparse grid see which at each offset of a kernel; cells are (b, t, x, y, z), offsets z fastest.

If cell j is at offset k from i, then i is at offset K - 1 - k from j, K the number of offsets.
"""

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from ss4d.stages.errors import ModelError
from ss4d.stages.ops.coords import PerAxis, Sites, linear_keys
from ss4d.stages.ops.pooling import NOT_MERGED, Pooling, pooling


@dataclass(frozen=True, eq=False)
class Offset:
    """What the cells of a block see at one offset of a kernel.

    Attributes:
        sources: (P) int32, the rows seen, each listed once.
        taken: (Q) int32, which of them each seeing cell sees; None where P is Q and cell q sees source q.
        cells: (Q) int64, the cells that see one, counted from the first of the block, each listed once.
    """

    sources: Tensor
    taken: Tensor | None
    cells: Tensor


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive cells and what they see at each of the K offsets."""

    rows: slice
    offsets: tuple[Offset, ...]


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


def density(sites: Sites, kernel: PerAxis) -> float:
    """The share of cells' neighbors at a kernel's offsets that are active, 0 to 1; counted once per kernel."""

    def count(s: Sites) -> float:
        table = neighbors(s, kernel)
        return int((table < len(s)).sum()) / max(table.numel(), 1)

    return sites.derived(("density", kernel), count)


def blocks(sites: Sites, kernel: PerAxis, stride: PerAxis, size: int) -> tuple[Block, ...]:
    """The pairs of cells and neighbors that exist, block by block and offset by offset; built once for given arguments.

    Args:
        sites: N active cells.
        kernel: odd extents over (t, x, y, z).
        stride: what is seen are rows of the cells merged by it (`ss4d.stages.ops.pooling`); `NOT_MERGED` for the cells
            themselves.
        size: cells of a block, at most; blocks are equally long, but for the last one, which lacks a few.

    Raises:
        ModelError: if an extent is even.
    """
    return sites.derived(("blocks", kernel, stride, size), lambda s: _blocks(s, kernel, stride, size))


def _blocks(sites: Sites, kernel: PerAxis, stride: PerAxis, size: int) -> tuple[Block, ...]:
    table = neighbors(sites, kernel)
    num_cells, num_offsets = table.shape
    size = math.ceil(num_cells / max(math.ceil(num_cells / size), 1))
    starts = range(0, num_cells, max(size, 1))
    padded = functional.pad(table, (0, 0, 0, len(starts) * size - num_cells), value=num_cells)
    seen = padded.view(len(starts), size, num_offsets).transpose(1, 2)
    block, offset, cell = (seen < num_cells).nonzero().unbind(1)  # all pairs, by block, offset and cell
    part, num_parts = block * num_offsets + offset, len(starts) * num_offsets
    lengths = torch.bincount(part, minlength=num_parts).tolist()
    cells = torch.split(cell, lengths)
    source = seen[block, offset, cell]
    if stride == NOT_MERGED:
        offsets = [Offset(rows, None, seeing) for rows, seeing in zip(torch.split(source, lengths), cells, strict=True)]
    else:
        sources, taken = _merged(pooling(sites, stride), source, part, num_parts)
        triples = zip(sources, torch.split(taken, lengths), cells, strict=True)
        offsets = [Offset(rows, take, seeing) for rows, take, seeing in triples]
    return tuple(
        Block(slice(start, min(start + size, num_cells)), tuple(offsets[i * num_offsets : (i + 1) * num_offsets]))
        for i, start in enumerate(starts)
    )


def _merged(merged: Pooling, source: Tensor, part: Tensor, num_parts: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """The merged cells that each part sees, each once, and which of them each pair takes, counted inside its part."""
    num_merged = max(len(merged.coarse), 1)
    distinct, taken = torch.unique(part * num_merged + merged.parent[source], return_inverse=True)
    lengths = torch.bincount(distinct // num_merged, minlength=num_parts)
    first = lengths.cumsum(0) - lengths
    return torch.split((distinct % num_merged).int(), lengths.tolist()), (taken - first[part]).int()
