"""Segmentation by a background of one color, which the border of the frames shows; images are (t, y, x, RGB)."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ss4d.stages.segmentation.masks import without_specks

BORDER = 0.02  # width of the border over the shorter side
NEAR = 8  # levels: a pixel this close to the key is background; wide enough for a codec's noise
UNIFORM = 0.95  # share of the border that must have the key's color
HOLE = 0.002  # an enclosed patch of the key's color this small, over the object's area, is a highlight on the object


def find_key(frames: Tensor) -> tuple[NDArray[np.int16], float]:
    """The color (3,) of the frames' border (t, h, w, 3), and the share of the border that has it."""
    width = max(2, round(BORDER * min(frames.shape[1:3])))
    sides = (frames[:, :width], frames[:, -width:], frames[:, :, :width], frames[:, :, -width:])
    border = torch.cat([side.reshape(-1, 3) for side in sides]).numpy()
    key = np.median(border, axis=0).astype(np.int16)
    return key, float((np.abs(border - key).max(-1) <= NEAR).mean())


def color_key_masks(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Alpha (t, h, w) uint8 of what differs from the border's color, and confidence (t,): how uniform the border is.

    Args:
        frames: (t, h, w, 3) uint8.
    """
    key, uniformity = find_key(frames)
    alpha = torch.stack([torch.from_numpy(_matte(frame, key)) for frame in frames.numpy()])
    return alpha, torch.full((len(frames),), uniformity)


def _matte(frame: NDArray[np.uint8], key: NDArray[np.int16]) -> NDArray[np.uint8]:
    distance = np.abs(frame - key).max(-1)
    mask = _fill_highlights(without_specks(distance > NEAR))
    # On the rim a pixel mixes object and key; its share of the object is its distance over that of a pure pixel nearby.
    pure = cv2.dilate(distance, np.ones((7, 7), np.uint8))
    inside = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1).astype(np.bool_)
    share = np.where(inside, 1.0, mask * distance / np.maximum(pure, 1))
    return np.asarray(np.rint(share * 255), np.uint8)


def _fill_highlights(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Close small holes; larger ones show the background through the object."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    small = np.flatnonzero(stats[:count, cv2.CC_STAT_AREA] <= HOLE * mask.sum())
    return mask | np.isin(labels, small)
