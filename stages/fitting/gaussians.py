"""Fit Gaussians to the frames they should look like: colors, opacities, places and sizes, without any network.

Axes: n Gaussian, t frame, v other view; images as in `ss4d.stages.fitting.pictures`.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ss4d.stages.evaluation.metrics import ssim
from ss4d.stages.fitting.groups import Groups, grouped
from ss4d.stages.fitting.pictures import OTHER_VIEWS, around, drawn, resized, unpacked
from ss4d.stages.ops.splat import Gaussians
from ss4d.stages.types import Camera, GaussianClip, Progress, silent

FRAMES_AT_ONCE = 8  # drawn together: bounds memory
# How far a step of the optimizer moves each part, over how far it moves a color.
COLOR, OPACITY, PLACE, SIZE = 1.0, 5.0, 3.0, 2.0
LEAST_RATE = 0.2  # of the last step, over that of the first
LARGEST_GROWTH = 2.0  # of a Gaussian's size, and the inverse of its least
FAINTEST = 1e-4


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the terms of the loss weigh; absolute differences of color and of alpha weigh 1."""

    ssim: float
    temporal: float
    spatial: float
    others: float


@dataclass(frozen=True, eq=False)
class Start:
    """Gaussians as they were, and how far each may go."""

    gaussians: Gaussians
    offsets: Tensor
    groups: Groups
    reach: float  # world units

    def moved(self, by: Tensor) -> Gaussians:
        """The Gaussians changed `by` (n, 10), zero for no change: color, opacity, place, size."""
        start = self.gaussians
        color, opacity, place, size = torch.split(by, [3, 1, 3, 3], dim=1)
        logits = start.opacities.clamp(FAINTEST, 1 - FAINTEST).logit()
        return Gaussians(
            means=start.means + self.reach * torch.tanh(PLACE * place),
            scales=start.scales * torch.exp(math.log(LARGEST_GROWTH) * torch.tanh(SIZE * size)),
            quats=start.quats,
            colors=start.colors + COLOR * color,
            opacities=torch.sigmoid(logits + OPACITY * opacity),
        )


def fitted(
    clip: GaussianClip,
    wanted: Tensor,
    camera: Camera,
    yaw: float,
    *,
    steps: int,
    rate: float,
    reach: float,
    terms: Terms,
    progress: Progress = silent,
) -> tuple[GaussianClip, list[float]]:
    """The Gaussians after `steps` steps toward the pictures that they should look like, and the loss of each step.

    Args:
        clip: the Gaussians, a frame may have none.
        wanted: (t, s, s, 4) on the device that computes, what `camera` should see.
        camera: of the input.
        yaw: of that camera, degrees from the front; the other views are chosen by it.
        steps: of the optimizer.
        rate: of its first step, for colors.
        reach: how far a center may move, over the distance between neighbors.
        terms: weights.
        progress: told after every step.
    """
    gaussians, offsets = unpacked(clip, wanted.device)
    groups = grouped(gaussians.means, offsets)
    start = Start(gaussians, offsets, groups, reach * groups.spacing)
    by = torch.zeros(len(clip.means), 10, device=wanted.device, requires_grad=True)
    adam = torch.optim.Adam([by], lr=rate)
    size = wanted.shape[1]
    seen, others = resized(camera, size), around(yaw, OTHER_VIEWS, size)
    batches = torch.split(torch.arange(len(wanted)), FRAMES_AT_ONCE)
    before = [[_still(start, batch, other) for batch in batches] for other in others]
    losses = []
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = rate * (LEAST_RATE + (1 - LEAST_RATE) * (1 + math.cos(math.pi * step / steps)) / 2)
        adam.zero_grad()
        # What the object does not cover is black and white by turns: always black, specks beside it would be painted
        # black, which looks right there and nowhere else, instead of fading away.
        light, total = float(step % 2), 0.0
        for number, batch in enumerate(batches):
            view = (step + number) % len(others)
            moved = start.moved(by)
            pictures = drawn(
                moved, offsets, torch.cat([batch, batch]), [seen] * len(batch) + [others[view]] * len(batch)
            )
            loss = picture_loss(pictures[: len(batch)], wanted[batch], light, terms.ssim)
            loss = loss + terms.others * picture_loss(pictures[len(batch) :], before[view][number], light, terms.ssim)
            share = loss * (len(batch) / len(wanted))
            share.backward()  # type: ignore[no-untyped-call]
            total += share.item()
        apart, change = groups.unevenness(by)
        smooth = terms.spatial * apart + terms.temporal * change
        smooth.backward()  # type: ignore[no-untyped-call]
        adam.step()
        losses.append(total + smooth.item())
        progress(step + 1, steps)
    with torch.no_grad():
        moved = start.moved(by)
    return replace(
        clip,
        means=moved.means.cpu(),
        scales=moved.scales.cpu(),
        colors=moved.colors.cpu(),
        opacities=moved.opacities.squeeze(1).cpu(),
    ), losses


def _still(start: Start, frames: Tensor, camera: Camera) -> Tensor:
    with torch.no_grad():
        return drawn(start.gaussians, start.offsets, frames, [camera] * len(frames))


def picture_loss(pictures: Tensor, wanted: Tensor, light: float, structure: float) -> Tensor:
    """L1 of color, L1 of alpha, and `structure` times 1 - SSIM, of pictures (k, s, s, 4) over gray; a scalar."""
    alpha = (pictures[..., 3] - wanted[..., 3]).abs().mean()
    ours, theirs = (x[..., :3] + light * (1 - x[..., 3:]) for x in (pictures, wanted))
    return (ours - theirs).abs().mean() + alpha + structure * (1 - ssim(ours, theirs)).mean()
