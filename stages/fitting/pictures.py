"""Pictures of a clip of Gaussians with gradients, and what the input looks like at their size.

Axes: t frame, k image, images are (row, column, channel) with RGB over black, multiplied by alpha, and then alpha.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from ss4d.stages.ops.kernel_choice import draw_on
from ss4d.stages.ops.splat import Gaussians, Views, splat
from ss4d.stages.types import Camera, Clip, GaussianClip

FRAMES_AT_ONCE = 8  # drawn together: bounds memory
OTHER_VIEWS = ((60.0, 20.0), (120.0, 0.0), (180.0, 20.0), (240.0, 0.0), (300.0, 20.0), (0.0, 70.0))
# None of these is one of those above: what a fit does from there, its loss does not see.
KEPT_ASIDE = ((45.0, 10.0), (95.0, 35.0), (150.0, -10.0), (210.0, 35.0), (265.0, 10.0), (315.0, -10.0))


def targets(clip: Clip, size: int, device: torch.device) -> Tensor:
    """The input (t, size, size, 4) at 0 to 1, as means over pixels."""
    layers = torch.cat([clip.rgb, clip.alpha[..., None]], dim=-1)
    frames = [functional.interpolate(_channels_first(frame), (size, size), mode="area") for frame in layers]
    return torch.cat(frames).movedim(1, -1).to(device)


def _channels_first(frame: Tensor) -> Tensor:
    return frame.movedim(-1, 0)[None].float() / 255


def around(yaw: float, views: Sequence[tuple[float, float]], size: int) -> list[Camera]:
    """Cameras of (degrees further round than `yaw`, degrees above the horizon)."""
    return [orbit_camera(FRONT_YAW + yaw + turn, pitch, size=size) for turn, pitch in views]


def resized(camera: Camera, size: int) -> Camera:
    """The same view in a square picture of `size` pixels."""
    return Camera(
        world_to_camera=camera.world_to_camera, focal=camera.focal * size / camera.width, width=size, height=size
    )


def drawn(gaussians: Gaussians, offsets: Tensor, frames: Tensor, cameras: Sequence[Camera]) -> Tensor:
    """Pictures (k, s, s, 4) of the frames (k), each from one of as many cameras of one size, with gradients."""
    device = gaussians.means.device
    views = Views(
        frames=frames.to(device),
        world_to_camera=torch.tensor([camera.world_to_camera for camera in cameras], device=device),
        focals=torch.tensor([camera.focal for camera in cameras], device=device),
        backgrounds=torch.zeros(len(cameras), 3, device=device),
        height=cameras[0].height,
        width=cameras[0].width,
    )
    rgb, alpha = splat(gaussians, offsets, views, draw_on(device))
    return torch.cat([rgb, alpha[..., None]], dim=-1)


def unpacked(clip: GaussianClip, device: torch.device) -> tuple[Gaussians, Tensor]:
    """The Gaussians as networks give them, and where each frame begins, on `device`."""
    gaussians = Gaussians(
        means=clip.means.to(device),
        scales=clip.scales.to(device),
        quats=clip.quats.to(device),
        colors=clip.colors.to(device),
        opacities=clip.opacities[:, None].to(device),
    )
    return gaussians, clip.offsets.to(device)
