"""Steps downhill from an asset toward the frames that it should look like, whatever its pictures are made from.

Axes: t frame, n row of what is changed, c channel of it, v other view; images as in `ss4d.stages.fitting.pictures`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ss4d.stages.evaluation.metrics import ssim
from ss4d.stages.fitting.groups import Groups
from ss4d.stages.fitting.pictures import FRAMES_AT_ONCE, OTHER_VIEWS, around, drawn, resized
from ss4d.stages.ops.splat import Gaussians
from ss4d.stages.types import Camera, Progress, silent

LEAST_RATE = 0.2  # of the last step, over that of the first
COARSE = 0.5  # of the steps, the first ones, in pictures of half the size from the input's camera
AVERAGED = 3  # times that a picture from another side is averaged with the pixels around each
# Alpha that is taken for nothing then, and of what is missing. More leaves shorter fringes, and novel views lack what
# was there: chosen by looks from 60 degrees, for .05 dB of them on the tuning clips.
FRINGE = 0.35
LEAST_SIZE = 16  # of a picture that can be compared


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the terms of the loss weigh; absolute differences of color and of alpha weigh 1."""

    ssim: float
    temporal: float
    spatial: float
    others: float
    grain: float = 0.0
    stay: float = 0.0


@dataclass(frozen=True)
class Piece:
    """Some frames in succession, and their rows."""

    frames: slice
    rows: slice

    @property
    def count(self) -> int:
        """How many frames."""
        return int(self.frames.stop - self.frames.start)


class Start(Protocol):
    """An asset as it was, and what changes it."""

    @property
    def offsets(self) -> Tensor:
        """First row of each frame, then the number of rows: (t + 1) int64."""

    @property
    def groups(self) -> Groups:
        """Which rows should change alike."""

    @property
    def channels(self) -> int:
        """Numbers that change a row."""

    def moved(self, by: Tensor, piece: Piece) -> tuple[Gaussians, Tensor]:
        """The Gaussians of some frames, their rows changed `by` (n, c), zero for no change; where each frame begins."""


@dataclass(frozen=True, eq=False)
class Aim:
    """What pictures of the asset should look like, a few frames at a time.

    Attributes:
        wanted: (t, s, s, 4) from the input's camera.
        coarse: the same in pictures of half the size, which are all that the first steps compare.
        seen: that camera.
        others: other views, of full size from the first step on: in smaller pictures specks and nets blur into what
            is around them.
        before: what each of these saw of each of the pieces at the start.
        pieces: frames that are drawn together.
    """

    wanted: Tensor
    coarse: Tensor
    seen: Camera
    others: Sequence[Camera]
    before: Sequence[Sequence[Tensor]]
    pieces: Sequence[Piece]

    @classmethod
    def of(cls, start: Start, wanted: Tensor, camera: Camera, yaw: float) -> "Aim":
        """The aim of an asset that should look like `wanted` from `camera`, and elsewhere as it does."""
        half = halved(wanted.shape[1])
        coarse = functional.interpolate(wanted.movedim(-1, 1), (half, half), mode="area").movedim(1, -1)
        others, pieces = around(yaw, OTHER_VIEWS, wanted.shape[1]), _pieces(start.offsets)
        before: list[list[Tensor]] = [[] for _ in others]
        with torch.no_grad():
            for piece in pieces:
                asset, offsets = start.moved(
                    wanted.new_zeros(piece.rows.stop - piece.rows.start, start.channels), piece
                )
                for view, other in enumerate(others):
                    seen = drawn(asset, offsets, torch.arange(piece.count), [other] * piece.count)
                    before[view].append(mended(seen))
        return cls(wanted, coarse, camera, others, before, pieces)

    def pull(self, start: Start, by: Tensor, step: int, terms: Terms, *, fine: bool) -> float:
        """Adds the gradient of the pictures' loss to `by`, the input's of full size if `fine`; gives that loss.

        What the object does not cover is black and white by turns: always black, specks beside it would be painted
        black, which looks right there and nowhere else, instead of fading away.
        """
        light, total = float(step % 2), 0.0
        wanted = self.wanted if fine else self.coarse
        seen = resized(self.seen, wanted.shape[1])
        for number, piece in enumerate(self.pieces):
            view, count = (step + number) % len(self.others), piece.count
            asset, frames = start.moved(by[piece.rows], piece), torch.arange(count)
            front, side = (drawn(*asset, frames, [camera] * count) for camera in (seen, self.others[view]))
            loss = picture_loss(front, wanted[piece.frames], light, terms.ssim)
            aside = picture_loss(side, self.before[view][number], light, terms.ssim)
            loss = (loss + terms.others * aside + terms.grain * grain(side)) * (count / len(wanted))
            loss.backward(inputs=[by])  # type: ignore[no-untyped-call]  # the weights are frozen
            total += loss.item()
        return total


def descended(
    start: Start, aim: Aim, *, steps: int, rate: float, terms: Terms, progress: Progress = silent
) -> tuple[Tensor, list[float]]:
    """What changes the rows (n, c) after `steps` steps toward `aim`, and the loss of each step.

    Args:
        start: the asset.
        aim: its pictures' aim.
        steps: of the optimizer.
        rate: of its first step, in the unit of a change.
        terms: weights.
        progress: told after every step.
    """
    rows = int(start.offsets[-1])
    by = torch.zeros(rows, start.channels, device=aim.wanted.device, requires_grad=True)
    adam = torch.optim.Adam([by], lr=rate)
    losses = []
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = rate * (LEAST_RATE + (1 - LEAST_RATE) * (1 + math.cos(math.pi * step / steps)) / 2)
        adam.zero_grad()
        total = aim.pull(start, by, step, terms, fine=step >= COARSE * steps)
        apart, change = start.groups.unevenness(by)
        smooth = terms.spatial * apart + terms.temporal * change + terms.stay * by.square().sum() / max(rows, 1)
        smooth.backward(inputs=[by])  # type: ignore[no-untyped-call]
        adam.step()
        losses.append(total + smooth.item())
        progress(step + 1, steps)
    return by.detach(), losses


def _pieces(offsets: Tensor) -> list[Piece]:
    """The frames of a clip, `FRAMES_AT_ONCE` at a time."""
    count, first = len(offsets) - 1, offsets.tolist()
    starts = range(0, count, FRAMES_AT_ONCE)
    return [
        Piece(slice(start, stop), slice(first[start], first[stop]))
        for start, stop in ((start, min(start + FRAMES_AT_ONCE, count)) for start in starts)
    ]


def halved(size: int) -> int:
    """Pixels of a side of the smaller pictures, where the larger ones have `size`."""
    return max(size // 2, min(size, LEAST_SIZE))


def mended(pictures: Tensor) -> Tensor:
    """Pictures (k, s, s, 4) without nets, dots and fringes: the mean of what is around, with alpha further from a half.

    Where networks are unsure of a surface, they make a net of it or a spray of dots, which is half transparent when
    looked at from further off. As much of it as covers more than half becomes a surface, the rest fades.
    """
    color, alpha = torch.split(averaged(pictures), [3, 1], dim=-1)
    share = ((alpha - FRINGE) / (1 - 2 * FRINGE)).clamp(0, 1)
    clearer = share.square() * (3 - 2 * share)
    return torch.cat([color * clearer / alpha.clamp(min=FRINGE), clearer], dim=-1)


def grain(pictures: Tensor) -> Tensor:
    """How far colors of pictures (k, s, s, 4) are from the mean of what is around, whatever shows of it; a scalar.

    What a fit paints from the front lies deep in some places, and is a speck where a side shows it beside others.
    """
    color, alpha = torch.split(pictures, [3, 1], dim=-1)
    alpha = alpha.detach()
    around = averaged(color) / averaged(alpha).clamp(min=FRINGE)
    return (color - alpha * around).abs().mean()


def averaged(pictures: Tensor) -> Tensor:
    """Means of pictures (k, s, s, c) over the pixels around each, black beside the picture."""
    channels = pictures.shape[-1]
    kernel = pictures.new_tensor([1.0, 2.0, 1.0])
    kernel = (kernel[:, None] * kernel / kernel.sum() ** 2).expand(channels, 1, 3, 3)
    around = pictures.movedim(-1, 1)
    for _ in range(AVERAGED):
        around = functional.conv2d(around, kernel, padding=1, groups=channels)
    return around.movedim(1, -1)


def picture_loss(pictures: Tensor, wanted: Tensor, light: float, structure: float) -> Tensor:
    """L1 of color, L1 of alpha, and `structure` times 1 - SSIM, of pictures (k, s, s, 4) over gray; a scalar."""
    alpha = (pictures[..., 3] - wanted[..., 3]).abs().mean()
    ours, theirs = (x[..., :3] + light * (1 - x[..., 3:]) for x in (pictures, wanted))
    return (ours - theirs).abs().mean() + alpha + structure * (1 - ssim(ours, theirs)).mean()
