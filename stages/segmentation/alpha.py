"""Segmentation by the alpha the input brings along; frames are (t, y, x, RGBA)."""

import torch
from torch import Tensor


def has_alpha(frames: Tensor) -> bool:
    """Whether frames (t, h, w, 3 or 4) carry an alpha that hides anything."""
    return frames.shape[-1] == 4 and bool((frames[..., 3] < 255).any())


def alpha_masks(frames: Tensor) -> tuple[Tensor, Tensor]:
    """The alpha (t, h, w) uint8 as it is, and full confidence (t,) float32."""
    return frames[..., 3].clone(), torch.ones(len(frames))
