"""Treat rows a piece at a time where no gradient is recorded, so that what is in between exists for a piece alone.

At the published size, in half precision, rows in float32 or of a feed-forward's hidden width are what memory peaks at.
"""

from collections.abc import Callable

import torch
from torch import Tensor

PIECE = 1 << 15  # rows: many enough for any device to be busy


def by_rows(function: Callable[..., Tensor], *rows: Tensor, into: Tensor | None = None) -> Tensor:
    """`function` of rows, piece by piece.

    Args:
        function: treats every row alone; gives as many rows as it takes.
        rows: its arguments, (N, ...) each.
        into: (N, ...) takes the results of more than one piece; may be one of `rows`, which are then lost.

    Returns:
        (N, ...) as `function` gives it for all rows at once; in one piece where gradients are recorded, since autograd
        would keep what is in between anyway.
    """
    count = len(rows[0])
    if count <= PIECE or torch.is_grad_enabled():
        return function(*rows)
    for start in range(0, count, PIECE):
        piece = slice(start, start + PIECE)
        result = function(*(x[piece] for x in rows))
        if into is None:
            into = result.new_empty(count, *result.shape[1:])
        into[piece] = result
    assert into is not None, "there is at least one piece"
    return into
