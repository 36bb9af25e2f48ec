"""Embed positions (x, y, z) and flow times as sines and cosines, in float32."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

NUM_TIME_FREQUENCIES = 128


def constant(shape: tuple[int, ...], compute: Callable[[], Tensor]) -> Tensor:
    """What `compute` gives, of this shape and in float32, for a buffer on the device that networks are being built on.

    Computed on the CPU, and not at all for the meta device, whose tensors have no values.
    """
    place = torch.empty(0).device
    if place.type == "meta":
        return torch.empty(shape)
    with torch.device("cpu"):
        values = compute()
    return values.to(place)


def absolute_position(positions: Tensor, channels: int) -> Tensor:
    """Sines and cosines of each coordinate at F = channels // 6 frequencies 10000^(-i / F) (docs/model.md, section 5).

    Args:
        positions: (N, 3) whole numbers (x, y, z).
        channels: C of the result; what 6 F leaves over is zeros.

    Returns:
        (N, C) float32: [sin, cos] of x, of y, of z.
    """
    count = channels // 6
    index = torch.arange(count, dtype=torch.float32, device=positions.device)
    frequency = 1.0 / 10000.0 ** (index / count)
    angle = positions.to(torch.float32).unsqueeze(-1) * frequency
    waves = torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(1)
    return nn.functional.pad(waves, (0, channels - waves.shape[1]))


class TimestepEmbedder(nn.Module):
    """Flow time 1000 t to a vector: [cos, sin] at 128 frequencies, then an MLP (docs/model.md, section 5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * NUM_TIME_FREQUENCIES, channels), nn.SiLU(), nn.Linear(channels, channels)
        )

    def forward(self, t: Tensor) -> Tensor:
        """Embeds t (..., float32, already x 1000) as (..., C)."""
        index = torch.arange(NUM_TIME_FREQUENCIES, dtype=torch.float32, device=t.device)
        # In exactly this order of operations: at t = 1000 one rounding more is visible in the result.
        frequency = torch.exp(-math.log(10000) * index / NUM_TIME_FREQUENCIES)
        angle = t.to(torch.float32).unsqueeze(-1) * frequency
        embedded: Tensor = self.mlp(torch.cat([angle.cos(), angle.sin()], dim=-1))
        return embedded
