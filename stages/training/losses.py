"""What training minimizes: losses of pictures, of occupancies, of latent distributions and of Gaussians.

Axes: k image, (row, column), c channel; b grid, x y z cells; n Gaussian. Structural similarity is one of the measures
of `stages/evaluation/metrics.py`.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

# A sharper distribution than this is as good as none, and a wider one overflows.
LEAST_LOGVAR, MOST_LOGVAR = -30.0, 20.0


def l1(images: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute difference, a scalar."""
    return (images - targets).abs().mean()


def motion(images: Tensor, targets: Tensor, followed: Tensor) -> Tensor:
    """Mean absolute difference between the changes of images and of targets over time, 0 without pairs; a scalar.

    Args:
        images: (k, h, w, c).
        targets: of the same shape.
        followed: (2, m) an image, and the next one in time.
    """
    if not followed.shape[1]:
        return images.new_zeros(())
    earlier, later = followed
    difference = images - targets
    return (difference[later] - difference[earlier]).abs().mean()


def occupancy_motion(logits: Tensor, occupied: Tensor) -> Tensor:
    """How far the changes of probabilities from frame to frame are off, relative to what is occupied; a scalar.

    Each grid of a frame may be about right, and its errors be others than the last one's: an object that flickers.

    Args:
        logits: (b, t, n) of cells.
        occupied: (b, t, n) 0 or 1.
    """
    p, y = torch.sigmoid(logits.float()), occupied.float()
    off = (p - y).diff(dim=1).abs().sum()
    return off / (p[:, 1:].sum() + y[:, 1:].sum() + 1)


def sample(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """A draw from the diagonal Gaussian that standard normal `noise` leads to."""
    return mean + (0.5 * logvar.clamp(LEAST_LOGVAR, MOST_LOGVAR)).exp() * noise


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of diagonal Gaussians from the standard normal, in nats for one channel on average; a scalar."""
    logvar = logvar.clamp(LEAST_LOGVAR, MOST_LOGVAR)
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def bce(logits: Tensor, occupied: Tensor) -> Tensor:
    """Binary cross-entropy in nats for one cell on average; a scalar.

    Every cell has the same weight, so probabilities stay calibrated and the surface does not swell, as it does when the
    few occupied cells weigh more; `dice` balances the two classes instead.
    """
    return functional.binary_cross_entropy_with_logits(logits.float(), occupied.float())


def dice(logits: Tensor, occupied: Tensor) -> Tensor:
    """One minus the Dice coefficient 2 |p y| / (|p| + |y|) of each grid, averaged; a scalar.

    It compares the overlap with the surface alone, so the empty cells, twenty times as many, do not dominate it. One
    cell is added to numerator and denominator: two empty grids have a loss of 0, and gradients stay finite.

    Args:
        logits: (b, ...) of cells.
        occupied: (b, ...) 0 or 1.
    """
    p, y = torch.sigmoid(logits.float()).flatten(1), occupied.float().flatten(1)
    return (1 - (2 * (p * y).sum(1) + 1) / (p.sum(1) + y.sum(1) + 1)).mean()


def transparency(opacities: Tensor) -> Tensor:
    """Mean of (1 - opacity)^2 over the Gaussians, 0 where there is none; a scalar.

    A surface drawn by a few opaque Gaussians and one drawn by a fog of faint ones give the same training pictures, but
    only the first looks alike from elsewhere. TRELLIS weights this term 0.001.
    """
    return (1 - opacities).square().sum() / max(opacities.numel(), 1)


def volume(scales: Tensor, resolution: int) -> Tensor:
    """Mean product of a Gaussian's standard deviations, in cells of the grid, 0 where there is none; a scalar.

    It keeps Gaussians from growing over their neighbors, which blurs, and which costs time and memory in drawing.
    TRELLIS takes the product in world units on a grid of 64 cells and weights it 10,000, which is 0.04 in cells.

    Args:
        scales: (n, 3) in world units, the grid having side 1.
        resolution: cells along each axis.
    """
    return scales.prod(dim=1).sum() / max(len(scales), 1) * math.pow(resolution, 3)
