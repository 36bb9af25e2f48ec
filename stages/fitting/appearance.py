"""The appearance fit: Gaussians toward the frames of the clip, frame by frame left alone where that makes it no better.

Axes: t frame, n Gaussian, v view; images as in `ss4d.stages.fitting.pictures`.
"""

import logging

import torch
from torch import Tensor

from ss4d.stages.evaluation.metrics import iou, psnr
from ss4d.stages.fitting.config import AppearanceFitConfig
from ss4d.stages.fitting.gaussians import Terms, fitted
from ss4d.stages.fitting.guard import said
from ss4d.stages.fitting.pictures import KEPT_ASIDE, around, drawn, resized, targets, unpacked
from ss4d.stages.input_camera import in_grid, yaw_in_grid
from ss4d.stages.types import Camera, Clip, FittedGaussians, GaussianClip, InputCamera, Progress, silent

LOG = logging.getLogger("ss4d")
FINER = 2  # times as many pixels as the loss compares: what a frame's gain is measured with
LEAST_OVERLAP = 0.72  # of outline and mask after the fit
LEAST_LIKENESS = 0.82  # of outlines before and after, from views that the loss does not see


def fit_appearance(
    config: AppearanceFitConfig,
    gaussians: GaussianClip,
    clip: Clip,
    camera: InputCamera,
    device: torch.device | str,
    *,
    progress: Progress = silent,
) -> FittedGaussians:
    """The Gaussians, fitted to the frames as `camera` saw them; see `fit_seen`."""
    seen = in_grid(camera, config.size)
    return fit_seen(config, gaussians, clip, seen, yaw_in_grid(camera), device, progress=progress)


def fit_seen(
    config: AppearanceFitConfig,
    gaussians: GaussianClip,
    clip: Clip,
    camera: Camera,
    yaw: float,
    device: torch.device | str,
    *,
    progress: Progress = silent,
) -> FittedGaussians:
    """The Gaussians, fitted to the frames; those of a frame that the fit does not make better are as they were.

    A frame is kept only if, measured by what the loss does not see, it gained: in finer pictures than were fitted it
    looks more like the input, its outline is that of the mask, which no fit reaches with a wrong camera or with the
    masks of another object, and its outline from other sides is still much what it was.

    Args:
        config: how.
        gaussians: of the clip; a frame may have none.
        clip: the input.
        camera: that saw it, in the frame of the Gaussians.
        yaw: of that camera, degrees from the front.
        device: to compute on.
        progress: told after every step.
    """
    device = torch.device(device)
    wanted = targets(clip, config.size, device)
    terms = Terms(ssim=0.2, temporal=config.temporal, spatial=config.spatial, others=config.others)
    moved, losses = fitted(
        gaussians,
        wanted,
        camera,
        yaw,
        steps=config.steps,
        rate=config.rate,
        reach=config.reach,
        terms=terms,
        progress=progress,
    )
    finer = targets(clip, FINER * config.size, device)
    better = _better(gaussians, moved, finer, camera, yaw, config)
    LOG.info("appearance_fit: %s", said(better))
    return FittedGaussians(
        **_of_frames(gaussians, moved, better),
        offsets=gaussians.offsets,
        loss=torch.tensor(losses, dtype=torch.float32),
        fitted=better.to(torch.uint8),
    )


def _better(
    before: GaussianClip, after: GaussianClip, wanted: Tensor, camera: Camera, yaw: float, config: AppearanceFitConfig
) -> Tensor:
    """Which frames (t) the fit made better, on the CPU; none if it made no more than half of them better."""
    size, found = wanted.shape[1], []
    for t in range(len(wanted)):
        (old, old_sides), (new, new_sides) = (
            _seen(clip, t, camera, yaw, size, wanted.device) for clip in (before, after)
        )
        target = wanted[t : t + 1]
        mask = target[..., 3] > 0.5
        found.append(
            bool(psnr(new[..., :3], target[..., :3]) > psnr(old[..., :3], target[..., :3]))
            and float(iou(old[..., 3] > 0.5, mask)) >= config.overlap
            and float(iou(new[..., 3] > 0.5, mask)) >= LEAST_OVERLAP
            and float(iou(old_sides[..., 3] > 0.5, new_sides[..., 3] > 0.5).mean()) >= LEAST_LIKENESS
        )
    better = torch.tensor(found)
    return better if better.float().mean() > 0.5 else torch.zeros_like(better)


def _seen(
    clip: GaussianClip, t: int, camera: Camera, yaw: float, size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """A frame (1, s, s, 4) as the input camera sees it, and (v, s / 2, s / 2, 4) from the sides that are kept aside."""
    gaussians, offsets = unpacked(clip.frame(t), device)
    sides = around(yaw, KEPT_ASIDE, size // FINER)
    with torch.no_grad():
        front = drawn(gaussians, offsets, torch.zeros(1, dtype=torch.int64), [resized(camera, size)])
        return front, drawn(gaussians, offsets, torch.zeros(len(sides), dtype=torch.int64), sides)


def _of_frames(before: GaussianClip, after: GaussianClip, chosen: Tensor) -> dict[str, Tensor]:
    """The arrays of `after` for the chosen frames (t), and those of `before` for the others."""
    counts = before.offsets[1:] - before.offsets[:-1]
    rows = chosen.repeat_interleave(counts)[:, None]
    both = {
        name: torch.where(rows, getattr(after, name).view(len(rows), -1), getattr(before, name).view(len(rows), -1))
        for name in ("means", "scales", "quats", "colors", "opacities")
    }
    return {**both, "opacities": both["opacities"].squeeze(1)}
