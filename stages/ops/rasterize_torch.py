"""The rasterizer that training draws with, `ss4d.stages.ops.splat`, called like every other: one frame, one camera."""

import torch
from torch import Tensor

from ss4d.stages.ops.rasterize import BLACK, MIP_SPLATTING, Color, Rasterize, ScreenFilter
from ss4d.stages.ops.splat import Draw, Gaussians, Views, splat
from ss4d.stages.types import Camera, GaussianClip


def torch_rasterizer(device: torch.device, draw: Draw) -> Rasterize:
    """A rasterizer that draws on `device` in the given way."""

    @torch.no_grad()
    def rasterize(
        gaussians: GaussianClip,
        camera: Camera,
        *,
        background: Color = BLACK,
        screen_filter: ScreenFilter = MIP_SPLATTING,
    ) -> tuple[Tensor, Tensor]:
        parts = Gaussians(
            means=gaussians.means.to(device),
            scales=gaussians.scales.to(device),
            quats=gaussians.quats.to(device),
            colors=gaussians.colors.to(device),
            opacities=gaussians.opacities.to(device)[:, None],
        )
        views = Views(
            frames=torch.zeros(1, dtype=torch.int64, device=device),
            world_to_camera=torch.tensor([camera.world_to_camera], device=device),
            focals=torch.tensor([camera.focal], device=device),
            backgrounds=torch.tensor([background], device=device),
            height=camera.height,
            width=camera.width,
        )
        rgb, alpha = splat(parts, gaussians.offsets.to(device), views, draw, screen_filter=screen_filter)
        return rgb[0], alpha[0]

    return rasterize
