"""Rotate pairs of channels by an angle that grows with the frame index; rows are (n, h, d), pairs are (2i, 2i + 1)."""

import torch
from torch import Tensor


def phases(positions: Tensor, head_channels: int, base: float) -> Tensor:
    """Angles of the rotation as unit complex numbers exp(i t base^(-2i/D)), computed in float32.

    Args:
        positions: (N) whole numbers t.
        head_channels: D, even.
        base: 10000 in the published models (docs/model.md, section 5).

    Returns:
        (N, 1, D / 2) complex64; the axis of one is the heads.
    """
    pair = torch.arange(head_channels // 2, dtype=torch.float32, device=positions.device)
    frequency = 1.0 / base ** (2 * pair / head_channels)
    angle = torch.outer(positions.to(torch.float32), frequency)
    return torch.polar(torch.ones_like(angle), angle).unsqueeze(1)


def rotate(x: Tensor, phase: Tensor) -> Tensor:
    """Turns each pair of channels by its phase, in float32.

    Args:
        x: (N, H, D).
        phase: (N, 1, D / 2) complex, from `phases`.

    Returns:
        (N, H, D) float32.
    """
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], x.shape[-1] // 2, 2))
    return torch.view_as_real(pairs * phase).flatten(-2)
