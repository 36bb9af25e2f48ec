"""How close a 4D object is to the truth, in numbers; images are (..., h, w, 3) in 0 to 1, cells (b, t, x, y, z)."""

import torch
from torch import Tensor
from torch.nn import functional

LEAST_ERROR = 1e-10  # mean squared error below which two images count as equal: 100 dB
WINDOW, DEVIATION = 11, 1.5  # of the structural similarity, in pixels
LUMINANCE, CONTRAST = 0.01**2, 0.03**2  # its constants for values from 0 to 1


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image (...), in decibels: -10 log10 of the mean squared error; at most 100."""
    return -10 * torch.log10((images - truth).square().mean((-3, -2, -1)).clamp(min=LEAST_ERROR))


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each image (...), at most 1 (Wang et al. 2004).

    The window is a Gaussian of 11 x 11 pixels and standard deviation 1.5, variances divide by its sum; the mean is over
    channels and over the pixels around which the whole window lies inside the image.

    Args:
        images: (..., h, w, 3), h and w at least 11.
        truth: as many.
    """
    a, b = (x.reshape(-1, *x.shape[-3:]).permute(0, 3, 1, 2).flatten(0, 1)[:, None] for x in (images, truth))
    moments = _windowed(torch.cat((a, b, a * a, b * b, a * b), dim=1))
    mean_a, mean_b, square_a, square_b, product = moments.unbind(1)
    variance_a, variance_b = square_a - mean_a.square(), square_b - mean_b.square()
    covariance = product - mean_a * mean_b
    similarity = (2 * mean_a * mean_b + LUMINANCE) * (2 * covariance + CONTRAST)
    similarity = similarity / ((mean_a.square() + mean_b.square() + LUMINANCE) * (variance_a + variance_b + CONTRAST))
    return similarity.mean((-2, -1)).reshape(-1, 3).mean(1).reshape(images.shape[:-3])


def _windowed(x: Tensor) -> Tensor:
    """Weighted means (n, c, h - 10, w - 10) of x (n, c, h, w) in the Gaussian window."""
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * DEVIATION**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, WINDOW)
    rows = functional.conv2d(x, weights[..., None], groups=x.shape[1])
    return functional.conv2d(rows, weights[:, :, None], groups=x.shape[1])


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
    both, either = ((f(grids[0], grids[1])).flatten(1).sum(1) for f in (torch.logical_and, torch.logical_or))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


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
