"""Draw Gaussians from many cameras at once with gradients, on any device.

The picture is the one of `ss4d.stages.ops.rasterize` up to rounding. As there, alpha is capped at 0.99, alpha under
1/255 is skipped and a pixel is finished before its transmittance would fall under 1e-4; gradients take these choices
as given. There are two ways: loops that are compiled for a CPU (`ss4d.stages.ops.splat_loops`), and long sorted lists
in plain torch, as a GPU likes it (`ss4d.stages.ops.splat_sorted`).

Axes: n Gaussian, k image; images are (k, row, column) with pixel centers at half integers; camera space is x right, y
down, z forward.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ss4d.stages.ops.rasterize import MIP_SPLATTING, ScreenFilter


@dataclass(frozen=True, eq=False, kw_only=True)
class Gaussians:
    """Gaussians ready to draw.

    Attributes:
        means: (n, 3) centers in world space, the object fills [-0.5, 0.5]^3.
        scales: (n, 3) standard deviations along their own axes, world units.
        quats: (n, 4) unit rotations (w, x, y, z).
        colors: (n, 3) RGB.
        opacities: (n, 1) in 0 to 1.
    """

    means: Tensor
    scales: Tensor
    quats: Tensor
    colors: Tensor
    opacities: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Views:
    """Images to draw.

    Attributes:
        frames: (k) int64, the frame that each image shows.
        world_to_camera: (k, 4, 4).
        focals: (k) in pixels.
        backgrounds: (k, 3) RGB behind the Gaussians.
        height: pixels from top to bottom.
        width: pixels from left to right.
    """

    frames: Tensor
    world_to_camera: Tensor
    focals: Tensor
    backgrounds: Tensor
    height: int
    width: int


class Draw(Protocol):
    """A way to draw: RGB over black and transmittance (k height width, 4) of Gaussians, with gradients to these."""

    def __call__(self, gaussians: Gaussians, offsets: Tensor, views: Views, screen_filter: ScreenFilter) -> Tensor: ...


def splat(
    gaussians: Gaussians,
    offsets: Tensor,
    views: Views,
    draw: Draw,
    *,
    screen_filter: ScreenFilter = MIP_SPLATTING,
) -> tuple[Tensor, Tensor]:
    """Color and coverage of every image, with gradients to all five parts of the Gaussians.

    Args:
        gaussians: of all frames, packed, float32 or float64; autocast leaves them alone.
        offsets: (frames + 1) int64, first row of each frame, then the number of rows.
        views: k images, on the device of the Gaussians.
        draw: the way to draw there, see `ss4d.stages.ops.kernel_choice.draw_on`.
        screen_filter: as in `ss4d.stages.ops.rasterize`.

    Returns:
        RGB (k, height, width, 3) and alpha (k, height, width), of the Gaussians' dtype.
    """
    with torch.autocast(gaussians.means.device.type, enabled=False):
        blended = draw(gaussians, offsets, views, screen_filter)
        light = blended[:, 3].view(-1, views.height, views.width)
        rgb = blended[:, :3].view(-1, views.height, views.width, 3)
        return rgb + light[..., None] * views.backgrounds[:, None, None].to(rgb.dtype), 1 - light
