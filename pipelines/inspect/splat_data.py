"""Gaussians in 16 bytes each, as the page's viewer draws them; `viewer/splats.js` unpacks what is packed here.

Four little-endian words of 32 bits:

    0   x (16 bits), y (16)                 position within the asset's bounds
    1   z (16), scale 0 (8), scale 1 (8)    scales as logarithms within the asset's range
    2   scale 2 (8), opacity (8), rotation, low half (16)
    3   red, green, blue (8 each), rotation, high byte (8)

A rotation is the place of the quaternion's largest entry (2 bits, made positive and left out) and the other three
(7 bits each) in order.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ss4d.stages.types import GaussianClip

MOST_GAUSSIANS = 2_000_000  # in one page, 32 MB; of a larger asset the most visible of each frame are kept
LEAST_SCALE = 1e-5  # world units
LEAST_OPACITY = 1 / 255  # no rasterizer draws less
ROTATION_STEPS = 126  # an even number, so that 0 is represented exactly

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SplatData:
    """A packed asset: the words (n, 4) of each frame, and what turns them back into numbers.

    `num_gaussians` is how many the asset has, `num_kept` how many of them are packed.
    """

    frames: list[NDArray[np.uint32]]
    origin: tuple[float, float, float]
    extent: tuple[float, float, float]
    log_scale: tuple[float, float]  # of the smallest and the largest scale
    num_gaussians: int
    num_kept: int


def pack_splats(gaussians: GaussianClip, at_most: int = MOST_GAUSSIANS) -> SplatData:
    """Packs a clip; Gaussians too faint to be drawn are left out, and of more than `at_most` the least visible."""
    per_frame = at_most // max(gaussians.num_frames, 1)
    frames = [_visible(gaussians.frame(t), per_frame) for t in range(gaussians.num_frames)]
    means = torch.cat([frame.means for frame in frames])
    scales = torch.cat([frame.scales for frame in frames]).clamp(min=LEAST_SCALE)
    low, high = (means.amin(0), means.amax(0)) if len(means) else (torch.zeros(3), torch.ones(3))
    log_scale = (math.log(float(scales.min())), math.log(float(scales.max()))) if len(scales) else (0.0, 1.0)
    origin, extent = low.numpy(), (high - low).clamp(min=1e-6).numpy()
    x, y, z = (float(v) for v in origin)
    width, depth, height = (float(v) for v in extent)
    return SplatData(
        frames=[_pack(frame, origin, extent, log_scale) for frame in frames],
        origin=(x, y, z),
        extent=(width, depth, height),
        log_scale=log_scale,
        num_gaussians=len(gaussians.means),
        num_kept=len(means),
    )


def _visible(frame: GaussianClip, at_most: int) -> GaussianClip:
    """One frame without invisible Gaussians; of more than `at_most`, those that cover the most."""
    finite = torch.isfinite(torch.cat([frame.means, frame.scales, frame.quats, frame.colors], dim=1)).all(1)
    keep = (finite & (frame.opacities >= LEAST_OPACITY)).nonzero()[:, 0]
    if len(keep) > at_most:
        largest = frame.scales[keep].topk(2, dim=1).values.prod(1)
        keep = keep[(largest * frame.opacities[keep]).topk(at_most).indices].sort().values
    return frame.chosen(keep, torch.tensor([0, len(keep)]))


def _pack(frame: GaussianClip, origin: Floats, extent: Floats, log_scale: tuple[float, float]) -> NDArray[np.uint32]:
    position = _steps((frame.means.numpy() - origin) / extent, 65535)
    low, high = log_scale
    scale = _steps((np.log(np.maximum(frame.scales.numpy(), LEAST_SCALE)) - low) / max(high - low, 1e-6), 255)
    color, opacity = _steps(frame.colors.numpy(), 255), _steps(frame.opacities.numpy(), 255)
    rotation = _rotation(frame.quats.numpy())
    words = (
        position[:, 0] | position[:, 1] << 16,
        position[:, 2] | scale[:, 0] << 16 | scale[:, 1] << 24,
        scale[:, 2] | opacity << 8 | (rotation & 0xFFFF) << 16,
        color[:, 0] | color[:, 1] << 8 | color[:, 2] << 16 | rotation >> 16 << 24,
    )
    packed: NDArray[np.uint32] = np.stack(words, axis=-1).astype("<u4")
    return packed


def _rotation(quats: Floats) -> NDArray[np.uint32]:
    rows = np.arange(len(quats))
    unit = quats / np.linalg.norm(quats, axis=1, keepdims=True).clip(1e-12)
    largest = np.abs(unit).argmax(1)
    unit *= np.where(unit[rows, largest] < 0, -1, 1)[:, None]
    others = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]
    steps = _steps((unit[rows[:, None], others] * math.sqrt(2) + 1) / 2, ROTATION_STEPS)
    bits: NDArray[np.uint32] = largest.astype(np.uint32) << 21 | steps[:, 0] << 14 | steps[:, 1] << 7 | steps[:, 2]
    return bits


def _steps(share: Floats, steps: int) -> NDArray[np.uint32]:
    """Numbers from 0 to 1 as integers from 0 to `steps`; those outside are clipped."""
    whole: NDArray[np.uint32] = np.rint(share.clip(0, 1) * steps).astype(np.uint32)
    return whole
