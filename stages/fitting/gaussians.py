"""Fit Gaussians to the frames they should look like: colors, opacities, places and sizes, without any network.

Axes: n Gaussian, t frame, v other view; images as in `ss4d.stages.fitting.pictures`.
"""

import math
from collections.abc import Sequence
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


@dataclass(frozen=True, eq=False)
class Aim:
    """What pictures of the Gaussians should look like, a few frames at a time.

    Attributes:
        wanted: (t, s, s, 4) from the input's camera.
        seen: that camera.
        others: other views.
        before: what each of these saw of each of the batches at the start.
        batches: frames that are drawn together.
    """

    wanted: Tensor
    seen: Camera
    others: Sequence[Camera]
    before: Sequence[Sequence[Tensor]]
    batches: Sequence[Tensor]

    def pull(self, start: Start, by: Tensor, step: int, terms: Terms) -> float:
        """Adds the gradient of the pictures' loss to `by`; gives that loss.

        What the object does not cover is black and white by turns: always black, specks beside it would be painted
        black, which looks right there and nowhere else, instead of fading away.
        """
        light, total = float(step % 2), 0.0
        for number, batch in enumerate(self.batches):
            view = (step + number) % len(self.others)
            cameras = [self.seen] * len(batch) + [self.others[view]] * len(batch)
            pictures = drawn(start.moved(by), start.offsets, torch.cat([batch, batch]), cameras)
            loss = picture_loss(pictures[: len(batch)], self.wanted[batch], light, terms.ssim)
            aside = picture_loss(pictures[len(batch) :], self.before[view][number], light, terms.ssim)
            loss = (loss + terms.others * aside) * (len(batch) / len(self.wanted))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total


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
    aim = _aim(start, wanted, camera, yaw)
    by = torch.zeros(len(clip.means), 10, device=wanted.device, requires_grad=True)
    adam = torch.optim.Adam([by], lr=rate)
    losses = []
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = rate * (LEAST_RATE + (1 - LEAST_RATE) * (1 + math.cos(math.pi * step / steps)) / 2)
        adam.zero_grad()
        total = aim.pull(start, by, step, terms)
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


def _aim(start: Start, wanted: Tensor, camera: Camera, yaw: float) -> Aim:
    size = wanted.shape[1]
    others = around(yaw, OTHER_VIEWS, size)
    batches = torch.split(torch.arange(len(wanted)), FRAMES_AT_ONCE)
    with torch.no_grad():
        before = [
            [drawn(start.gaussians, start.offsets, batch, [other] * len(batch)) for batch in batches]
            for other in others
        ]
    return Aim(wanted, resized(camera, size), others, before, batches)


def picture_loss(pictures: Tensor, wanted: Tensor, light: float, structure: float) -> Tensor:
    """L1 of color, L1 of alpha, and `structure` times 1 - SSIM, of pictures (k, s, s, 4) over gray; a scalar."""
    alpha = (pictures[..., 3] - wanted[..., 3]).abs().mean()
    ours, theirs = (x[..., :3] + light * (1 - x[..., 3:]) for x in (pictures, wanted))
    return (ours - theirs).abs().mean() + alpha + structure * (1 - ssim(ours, theirs)).mean()
