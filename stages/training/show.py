"""Pictures of a training run; all are (s, s, 3) or (h, w, 3) uint8 on the CPU."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


def beside(pictures: Sequence[Tensor]) -> Tensor:
    """Pictures of one height in a row."""
    return torch.cat(list(pictures), dim=1)


def picture(frame: Tensor, size: int) -> Tensor:
    """A straight RGBA frame (s, s, 4) uint8 over white, every pixel repeated or left out to fit `size`."""
    alpha = frame[..., 3:].float() / 255
    rgb = frame[..., :3].float() * alpha + 255 * (1 - alpha)
    rows = torch.arange(size) * len(frame) // size
    return rgb.round().byte().cpu()[rows][:, rows]


def voxel_picture(grid: Tensor, side: Literal["front", "side"], size: int) -> Tensor:
    """Occupied cells (r, r, r), bool, as seen along an axis: the nearer, the lighter, over white.

    Args:
        grid: cells by (x, y, z), z up.
        side: from the front, which faces -y, or from +x.
        size: pixels along each side of the picture.
    """
    cells = grid.cpu()
    along = cells.permute(1, 2, 0) if side == "front" else cells.permute(0, 2, 1).flip(0)  # (depth, z, columns)
    r = len(cells)
    depth = torch.where(along.any(0), along.int().argmax(0), r).float()  # the first occupied one
    gray = torch.where(depth < r, 235 - 190 * depth / r, 255.0).byte().flip(0)
    rows = torch.arange(size) * r // size
    return gray[rows][:, rows, None].expand(-1, -1, 3).contiguous()
