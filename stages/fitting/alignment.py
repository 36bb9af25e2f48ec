"""The camera of the input once more, by the asset itself: where its outlines are those of the masks.

Voxels tell place and size in the picture to about half a cell. The Gaussians that were made of them tell more, and it
is these that are painted from there.

Axes: t frame, k some frames, n Gaussian, s pixel along one side.
"""

import logging
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ss4d.stages.evaluation.metrics import iou
from ss4d.stages.fitting.config import CameraFitConfig
from ss4d.stages.fitting.pictures import FRAMES_AT_ONCE, drawn, resized, targets, unpacked
from ss4d.stages.input_camera import focal_of, in_grid, opening
from ss4d.stages.ops.splat import Gaussians
from ss4d.stages.types import Camera, Clip, GaussianClip, InputCamera, Progress, silent

LOG = logging.getLogger("ss4d")
FRAMES = 4  # compared, at most, spread over the clip
FINER = 2  # times as many pixels as the loss compares: what is judged in the end, in all frames
SOLID = 0.5  # alpha of what counts as covered


def fit_camera(
    config: CameraFitConfig,
    gaussians: GaussianClip,
    clip: Clip,
    camera: InputCamera,
    device: torch.device | str,
    *,
    progress: Progress = silent,
) -> InputCamera:
    """The camera, its shift and its field of view changed so that the outlines of the asset are those of the masks.

    Direction and distance stay. The camera stays as it is if outlines and masks do not overlap better on average over
    all frames, in finer pictures than were compared; the log says which. `overlap` is that of the Gaussians' outlines.

    Args:
        config: how.
        gaussians: of the clip, in the model's grid; a frame may have none.
        clip: the input.
        camera: that was found.
        device: to draw on.
        progress: told after every step.
    """
    if len(gaussians.means) == 0:
        return camera
    asset, offsets = unpacked(gaussians, torch.device(device))
    fine = targets(clip, FINER * config.size, torch.device(device))[..., 3]
    before = _overlap(asset, offsets, fine, in_grid(camera, FINER * config.size))
    some = torch.linspace(0, gaussians.num_frames - 1, min(FRAMES, gaussians.num_frames)).round().long()
    moved = _moved(config, asset, offsets, some, clip, camera, progress)
    after = _overlap(asset, offsets, fine, in_grid(moved, FINER * config.size))
    told = f"outlines and masks overlap by {after.mean():.3f} and not by {before.mean():.3f}"
    if after.mean() <= before.mean():
        LOG.info("camera_fit: %s; the camera stays as it was", told)
        return camera
    size, (right, down) = focal_of(moved) / focal_of(camera) - 1, (moved.shift - camera.shift).tolist()
    LOG.info(
        "camera_fit: %.1f %% larger, %.1f %% right, %.1f %% down; %s", *(100 * x for x in (size, right, down)), told
    )
    return replace(moved, overlap=after)


@dataclass(frozen=True, eq=False)
class Rays:
    """The Gaussians as the camera sees them, so that they can be moved across its picture instead of the camera.

    Attributes:
        places: (n, 3) in camera space.
        inverse: (3, 3), from there to the grid.
        origin: (3), what the camera adds.
        focal: in sides of the picture.
    """

    places: Tensor
    inverse: Tensor
    origin: Tensor
    focal: float

    @classmethod
    def of(cls, means: Tensor, camera: Camera) -> "Rays":
        """Those of centers (n, 3)."""
        matrix = means.new_tensor(camera.world_to_camera)
        turn, origin = matrix[:3, :3], matrix[:3, 3]
        return cls(means @ turn.T + origin, turn.inverse(), origin, camera.focal / camera.width)

    def moved(self, by: Tensor) -> Tensor:
        """Centers (n, 3) that show exp(by[0]) times as large about the picture's middle, then by[1:] sides further."""
        across = by[0].exp() * self.places[:, :2] + by[1:] / self.focal * self.places[:, 2:]
        places = torch.cat([across, self.places[:, 2:]], dim=1)
        centers: Tensor = (places - self.origin) @ self.inverse.T
        return centers


def _moved(
    config: CameraFitConfig,
    asset: Gaussians,
    offsets: Tensor,
    some: Tensor,
    clip: Clip,
    camera: InputCamera,
    progress: Progress,
) -> InputCamera:
    """The camera after all steps on the outlines of some frames (k)."""
    seen = in_grid(camera, config.size)
    masks = targets(clip, config.size, asset.means.device)[some.to(asset.means.device), ..., 3]
    rays = Rays.of(asset.means, seen)
    by = torch.zeros(3, device=asset.means.device, requires_grad=True)
    free = by.new_tensor([float(config.fov), 1.0, 1.0])
    adam = torch.optim.Adam([by], lr=config.rate)
    for step in range(config.steps):
        for group in adam.param_groups:
            group["lr"] = config.rate * (1 - step / config.steps)
        adam.zero_grad()
        pictures = drawn(replace(asset, means=rays.moved(free * by)), offsets, some, [seen] * len(some))
        (pictures[..., 3] - masks).abs().mean().backward(inputs=[by])  # type: ignore[no-untyped-call]
        adam.step()
        progress(step + 1, config.steps)
    grown, right, down = (free * by.detach()).cpu().tolist()
    times = math.exp(grown)
    return replace(
        camera,
        fov=torch.tensor(opening(focal_of(camera) * times)),
        shift=times * camera.shift + torch.tensor([right, down]),
    )


def _overlap(asset: Gaussians, offsets: Tensor, masks: Tensor, camera: Camera) -> Tensor:
    """Intersection over union (t) of the asset's outlines and of the masks (t, s, s), on the CPU; 1 of nothing."""
    seen = resized(camera, masks.shape[1])
    with torch.no_grad():
        outlines = [
            drawn(asset, offsets, frames, [seen] * len(frames))[..., 3] > SOLID
            for frames in torch.split(torch.arange(len(masks)), FRAMES_AT_ONCE)
        ]
    return iou(torch.cat(outlines), masks > SOLID).cpu()
