"""Slow, plain twins of the kernels in `ss4d.stages.ops`, written with dictionaries and loops from docs/model.md."""

from itertools import product

import torch
from torch import Tensor

from ss4d.stages.ops.coords import PerAxis
from ss4d.stages.ops.windows import Extent


def conv(coords: Tensor, feats: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Submanifold convolution: for each cell and offset, look the neighbor up."""
    kernel = (1,) * (6 - weight.ndim) + tuple(weight.shape[1:-1])
    weight = weight.reshape(len(weight), *kernel, -1)
    rows = {tuple(cell): row for row, cell in enumerate(coords.tolist())}
    outs = []
    for b, *cell in coords.tolist():
        out = bias
        for index in product(*map(range, kernel)):
            there = (b, *(c + i - k // 2 for c, i, k in zip(cell, index, kernel, strict=True)))
            if there in rows:
                out = out + weight[(slice(None), *index)] @ feats[rows[there]]
        outs.append(out)
    return torch.stack(outs)


def pool(coords: Tensor, feats: Tensor, stride: PerAxis) -> tuple[Tensor, Tensor]:
    """Merged cells in lexicographic order, and the sum of each one's features / (their number + 1)."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, (b, *cell) in enumerate(coords.tolist()):
        groups.setdefault((b, *(c // s for c, s in zip(cell, stride, strict=True))), []).append(row)
    cells = sorted(groups)
    means = [sum(feats[row] for row in groups[cell]) / (len(groups[cell]) + 1) for cell in cells]
    return torch.tensor(cells, dtype=torch.int32), torch.stack(means)


def same_window(coords: Tensor, extent: Extent, shift: PerAxis) -> Tensor:
    """Which cells attend to each other: (N, N) bool."""

    def window(cell: list[int]) -> tuple[int, ...]:
        b, *axes = cell
        return (b, *((a + s) // w for a, w, s in zip(axes, extent, shift, strict=True) if w is not None))

    windows = [window(cell) for cell in coords.tolist()]
    return torch.tensor([[one == other for other in windows] for one in windows])


def attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """Row by row, head by head; zeros for a row that sees nothing."""
    out = torch.zeros_like(q)
    for row in range(len(q)):
        for head in range(q.shape[1]):
            seen = visible[row]
            if seen.any():
                scores = k[seen, head] @ q[row, head] / q.shape[2] ** 0.5
                out[row, head] = scores.softmax(0) @ v[seen, head]
    return out
