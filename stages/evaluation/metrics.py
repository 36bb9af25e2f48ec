"""How close a 4D object is to the truth, in numbers; images are (..., h, w, c) in 0 to 1, cells (b, t, x, y, z).

Losses and reports measure with these alike.
"""

import math

import torch
from torch import Tensor

LEAST_ERROR = 1e-10  # mean squared error below which two images count as equal: 100 dB
WINDOW, DEVIATION = 11, 1.5  # of the structural similarity, in pixels
LUMINANCE, CONTRAST = 0.01**2, 0.03**2  # its constants for values from 0 to 1


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image (...), in decibels: -10 log10 of the mean squared error; at most 100."""
    return -10 * torch.log10((images - truth).square().mean((-3, -2, -1)).clamp(min=LEAST_ERROR))


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each image (...): 1 where two are equal, at most 1 otherwise (Wang et al. 2004).

    The window is a Gaussian of 11 x 11 pixels and standard deviation 1.5, variances divide by its sum; the mean is over
    channels and over the pixels around which the whole window lies inside the image. Computed in float32, also under
    autocast, for it subtracts nearly equal numbers.

    Args:
        images: (..., h, w, c) in 0 to 1, h and w at least 11.
        truth: as many.
    """
    *leading, _, _, channels = images.shape
    with torch.autocast(images.device.type, enabled=False):
        a, b = (x.float().movedim(-1, -3).flatten(0, -3) for x in (images, truth))
        moments = _windowed(torch.stack([a, b, a * a, b * b, a * b]))
        mean_a, mean_b, square_a, square_b, product = moments.unbind(0)
        variance_a, variance_b = square_a - mean_a**2, square_b - mean_b**2
        covariance = product - mean_a * mean_b
        light = (2 * mean_a * mean_b + LUMINANCE) / (mean_a**2 + mean_b**2 + LUMINANCE)
        structure = (2 * covariance + CONTRAST) / (variance_a + variance_b + CONTRAST)
        return (light * structure).view(*leading, channels, -1).mean((-2, -1))


def _windowed(x: Tensor) -> Tensor:
    """Weighted means (..., h - 10, w - 10) of x (..., h, w) in the Gaussian window."""
    # Not by convolution: on a GPU that would round to ten bits (TF32), and variances are differences of such means.
    weights = [math.exp(-((place - WINDOW // 2) ** 2) / (2 * DEVIATION**2)) for place in range(WINDOW)]
    for axis in (-1, -2):
        length = x.shape[axis] - WINDOW + 1
        blurred = torch.zeros_like(x.narrow(axis, 0, length))
        for place, weight in enumerate(weights):
            blurred = blurred.add(x.narrow(axis, place, length), alpha=weight / sum(weights))
        x = blurred
    return x


def iou(occupied: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of each boolean grid (b, ...); 1 where both are empty."""
    both, either = (operation(occupied, truth).flatten(1).sum(1) for operation in (torch.logical_and, torch.logical_or))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def occupancy_iou(cells: Tensor, truth: Tensor, num_frames: int, resolution: int) -> Tensor:
    """Intersection over union of the occupied cells of each frame (num_frames,); 1 where both are empty.

    Args:
        cells: (n, 5) int, no cell twice.
        truth: (m, 5) int, no cell twice.
        num_frames: t of every cell is less.
        resolution: cells along each axis.
    """
    grids = torch.zeros(2, num_frames, resolution, resolution, resolution, dtype=torch.bool)
    for grid, occupied in zip(grids, (cells, truth), strict=True):
        grid[tuple(occupied[:, 1:].long().T)] = True
    return iou(grids[0], grids[1])


def change(images: Tensor) -> float:
    """Mean absolute difference between each image and the next along the last axis but three (..., t, h, w, 3)."""
    return float((images[..., 1:, :, :, :] - images[..., :-1, :, :, :]).abs().mean())


def flicker(images: Tensor, truth: Tensor) -> float | None:
    """How much more images (..., t, h, w, 3) change from frame to frame than the truth does, relative to the truth.

    0: as much; 1: twice as much; -1: not at all. None where the truth stands still or is a single frame.
    """
    own = change(truth) if truth.shape[-4] > 1 else 0.0
    return change(images) / own - 1 if own > 0 else None


def motion_error(images: Tensor, truth: Tensor) -> float | None:
    """How far the change from frame to frame of images (..., t, h, w, 3) is off, relative to the truth's change.

    The mean absolute difference of the two changes over the truth's mean absolute change: 0 for the same motion, 1 for
    an object that stands still. None where the truth stands still or is a single frame.
    """
    own = change(truth) if truth.shape[-4] > 1 else 0.0
    return change(images - truth) / own if own > 0 else None
