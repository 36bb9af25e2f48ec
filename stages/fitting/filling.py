"""Cells that no ray of the masks can do without, put where their neighbors are; and cells that hang on to nothing.

Axes: t frame, n cell of the whole grid, k ray, p pair of a cell and a ray through it.
"""

import torch
from torch import Tensor
from torch.nn import functional

LEAST_PART = 0.03  # of a frame's cells: what hangs together and is less stands for nothing


def without_crumbs(solid: Tensor, side: int) -> Tensor:
    """The cells (t, n) of a grid of `side`, without parts of a frame that hold less than `LEAST_PART` of its cells.

    Cells that touch, if only at a corner, are of one part.
    """
    grid = solid.view(-1, 1, side, side, side).float()
    labels = torch.ones_like(solid, dtype=torch.float32).cumsum(1).view_as(grid) * grid
    while True:
        grown = functional.max_pool3d(labels, 3, stride=1, padding=1) * grid
        if torch.equal(grown, labels):
            break
        labels = grown
    parts = labels.flatten(1).long()
    sizes = grid.new_zeros(len(parts), side**3 + 1).scatter_add(1, parts, solid.float())
    return solid & (sizes.gather(1, parts) >= LEAST_PART * solid.sum(1, keepdim=True))


def filled(solid: Tensor, inside: Tensor, pairs: tuple[Tensor, Tensor], depths: Tensor) -> Tensor:
    """The cells (t, n), and one more for each ray inside the mask that meets none: as deep as those of rays beside it.

    Args:
        solid: (t, n) which cells are occupied; a frame without any stays so.
        inside: (t, k, k) which rays must hit something.
        pairs: cells (p) and rays (p) that meet.
        depths: (n), of the cells before the camera.
    """
    cells, rays = pairs
    count = inside.shape[1]
    met = solid[:, cells].float()
    hits = met.new_zeros(len(solid), count**2).index_add(1, rays, met)
    sums = met.new_zeros(len(solid), count**2).index_add(1, rays, met * depths[cells])
    wanted = spread(sums.view(-1, count, count), hits.view(-1, count, count), inside).flatten(1)
    missed = inside.flatten(1) & (hits == 0) & (wanted > 0)
    after = solid.clone()
    off = (depths[cells] - wanted[:, rays]).abs()
    nearest = off.new_full(hits.shape, torch.inf).scatter_reduce(1, rays.expand_as(off), off, "amin")
    frames, chosen = torch.nonzero((off == nearest[:, rays]) & missed[:, rays]).unbind(1)
    after[frames, cells[chosen]] = True
    return after


def spread(sums: Tensor, weights: Tensor, inside: Tensor) -> Tensor:
    """Means sums / weights (t, k, k) where there is a weight, handed on from ray to ray inside; 0 where none comes."""
    known = weights > 0
    values = torch.where(known, sums / weights.clamp(min=1), 0.0)
    while True:
        near, count = beside(values), beside(known.float())
        new = inside & known.logical_not() & (count > 0)
        if not new.any():
            return values
        values = torch.where(new, near / count.clamp(min=1), values)
        known = known | new


def beside(x: Tensor) -> Tensor:
    """Sums (t, k, k) over each ray and the eight around it."""
    size, padded = x.shape[1], functional.pad(x, (1, 1, 1, 1))
    squares = [padded[:, down : down + size, right : right + size] for down in range(3) for right in range(3)]
    return torch.stack(squares).sum(0)
