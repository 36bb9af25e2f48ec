"""Segmentation by the alpha the input brings along; frames are (t, y, x, RGBA), alpha is (t, y, x)."""

import torch
from torch import Tensor

FAINT = 8  # levels: alpha that nobody sees, but that a crop would reach for
HALF = 128
NOISE_QUANTILE = 0.999  # of what is faint where it is noise or haze: all but a few of its pixels lie below
NOISE_MARGIN = 2  # levels above that
LEAST_HIDDEN = 0.05  # share of the frames that alpha must hide to say what the object is; rounded corners hide 0.01
BLANK_FILL = 0.97  # share of its box that a visible rectangle fills; then alpha is a margin and no outline
BLANK_SHARE = 0.5  # share of the frame that such a rectangle covers at least


def has_alpha(frames: Tensor) -> bool:
    """Whether frames (t, h, w, 3 or 4) carry an alpha that hides anything."""
    return frames.shape[-1] == 4 and bool((frames[..., 3] < 255).any())


def hidden_share(alpha: Tensor) -> Tensor:
    """How much of each frame alpha (t, h, w) hides, from 0 to 1."""
    return torch.stack([1 - frame.float().mean() / 255 for frame in alpha])


def is_matte(alpha: Tensor) -> bool:
    """Whether alpha (t, h, w) says what the object is: it hides enough, and shows more than one still rectangle.

    Frames in which it hides nothing do not count: others may have been given without alpha.
    """
    hides = hidden_share(alpha)
    told = alpha[hides > 0]
    if not len(told) or float(hides[hides > 0].mean()) < LEAST_HIDDEN:
        return False
    seen = (told >= HALF).any(0)
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    if not len(rows):
        return True
    box = told[:, int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
    share = box[0].numel() / told[0].numel()
    return share < BLANK_SHARE or float((box >= HALF).float().mean()) < BLANK_FILL


def clean_alpha(alpha: Tensor) -> Tensor:
    """Alpha (t, h, w) uint8 without what is too faint to see, which would count as object.

    Where most of what should be hidden is faintly visible, the alpha has noise or haze, and all up to its level goes.
    """
    floor = FAINT
    faint = alpha[alpha < HALF // 2]
    if len(faint) and bool((alpha >= HALF).any()) and float(faint.float().median()) > 0:
        ordered = faint.sort().values
        floor = max(floor, int(ordered[int(NOISE_QUANTILE * (len(ordered) - 1))]) + NOISE_MARGIN)
    return torch.where(alpha <= floor, 0, alpha).to(torch.uint8)
