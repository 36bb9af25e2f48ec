"""What training makes small: of pictures, of occupancies, of latent distributions and of Gaussians.

Axes: k image, (row, column), c channel; b grid, x y z cells; n Gaussian. Everything is computed in float32 or finer,
also under autocast: structural similarity subtracts nearly equal numbers.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

SSIM_WINDOW = 11  # pixels
SSIM_SIGMA = 1.5  # pixels
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # for values from 0 to 1
# A sharper distribution than this is as good as none, and a wider one overflows.
LEAST_LOGVAR, MOST_LOGVAR = -30.0, 20.0


def l1(images: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute difference, a scalar."""
    return (images - targets).abs().mean()


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Structural similarity of each image (k): 1 where two are equal, at most 1 otherwise.

    As Wang et al. (2004) define it: means, variances and covariance under a Gaussian window of 11 pixels and sigma 1.5,
    channel by channel, averaged over channels and over every window that lies in the image.

    Args:
        images: (k, h, w, c), 0 to 1, at least 11 pixels along each side.
        targets: (k, h, w, c).
    """
    num_images, _, _, channels = images.shape
    with torch.autocast(images.device.type, enabled=False):
        a, b = (x.float().movedim(3, 1).flatten(0, 1) for x in (images, targets))
        a_mean, b_mean, aa, bb, ab = _blur(torch.stack([a, b, a * a, b * b, a * b])).unbind(0)
        a_variance, b_variance, covariance = aa - a_mean**2, bb - b_mean**2, ab - a_mean * b_mean
        light = (2 * a_mean * b_mean + SSIM_C1) / (a_mean**2 + b_mean**2 + SSIM_C1)
        structure = (2 * covariance + SSIM_C2) / (a_variance + b_variance + SSIM_C2)
        return (light * structure).view(num_images, channels, -1).mean((1, 2))


def _blur(x: Tensor) -> Tensor:
    """Means under the window, of (..., h, w), where the window lies inside."""
    # Not by convolution: on a GPU that would round to ten bits (TF32), and variances are differences of such means.
    weights = [math.exp(-((place - SSIM_WINDOW // 2) ** 2) / (2 * SSIM_SIGMA**2)) for place in range(SSIM_WINDOW)]
    for axis in (-1, -2):
        length = x.shape[axis] - SSIM_WINDOW + 1
        blurred = torch.zeros_like(x.narrow(axis, 0, length))
        for place, weight in enumerate(weights):
            blurred = blurred.add(x.narrow(axis, place, length), alpha=weight / sum(weights))
        x = blurred
    return x


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image (k) in dB, of (k, h, w, c) with values cut to 0 to 1; to report."""
    error = (images.clamp(0, 1) - targets).square().mean((1, 2, 3))
    return -10 * error.clamp(min=1e-10).log10()


def sample(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """A draw from the diagonal Gaussian that standard normal `noise` leads to."""
    return mean + (0.5 * logvar.clamp(LEAST_LOGVAR, MOST_LOGVAR)).exp() * noise


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of diagonal Gaussians from the standard normal, in nats for one channel on average; a scalar."""
    logvar = logvar.clamp(LEAST_LOGVAR, MOST_LOGVAR)
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def bce(logits: Tensor, occupied: Tensor) -> Tensor:
    """Binary cross-entropy in nats for one cell on average; a scalar.

    Every cell counts alike, so probabilities stay honest and the surface does not swell, as it does when the few
    occupied cells count for more; `dice` is what keeps them from being outvoted.
    """
    return functional.binary_cross_entropy_with_logits(logits.float(), occupied.float())


def dice(logits: Tensor, occupied: Tensor) -> Tensor:
    """One minus the Dice coefficient 2 |p y| / (|p| + |y|) of each grid, averaged; a scalar.

    It compares the overlap with the surface alone, so the empty cells, twenty times as many, cannot drown it. One cell
    is added above and below the line: an empty grid is met by an empty one, and gradients stay finite.

    Args:
        logits: (b, ...) of cells.
        occupied: (b, ...) 0 or 1.
    """
    p, y = torch.sigmoid(logits.float()).flatten(1), occupied.float().flatten(1)
    return (1 - (2 * (p * y).sum(1) + 1) / (p.sum(1) + y.sum(1) + 1)).mean()


def iou(logits: Tensor, occupied: Tensor) -> Tensor:
    """Intersection over union of each grid (b), cells above logit 0 being occupied; 1 if both are empty; to report."""
    p, y = logits.flatten(1) > 0, occupied.flatten(1) > 0
    union = (p | y).sum(1)
    return torch.where(union > 0, (p & y).sum(1) / union.clamp(min=1), 1.0)


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
