"""Segmentation by a background of one color, which the border of the frames shows; images are (t, y, x, RGB)."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ss4d.stages.segmentation.levels import apart
from ss4d.stages.segmentation.masks import Mask, parts, without_specks

BORDER = 0.02  # width of the border over the shorter side
NEAR = 8  # levels: a pixel this close to the key is background; wide enough for a codec's noise
UNIFORM = 0.95  # share of the border that must have the key's color
HOLE = 0.002  # an enclosed patch of the key's color this small, over the object's area, is a highlight on the object
QUIET = 1.5  # levels: a border this still lets an enclosed patch of nearly its color be told from it
SOFT = 8  # levels from one pixel to the next, at most, on the way into a shadow; an object's edge is steeper
TINT = 10  # levels: a shadow has the background's color, only darker
SHADED = 0.1  # a shadow this large, over the object's area, hides what is nearly of the background's color
MOSTLY = 2.0  # what is nearly of the background's color counts where it makes the object this many times as large
LIKE_KEY = 0.5  # confidence of such an object
DARKEST = 0.3  # share of the background's light that a shadow leaves

Color = NDArray[np.int16]


def find_key(frames: Tensor) -> tuple[Color, float]:
    """The color (3,) of the frames' border (t, h, w, 3), and the share of the border that has it."""
    border = _border(frames)
    key = np.median(border, axis=0).astype(np.int16)
    return key, float((apart(border, key) <= NEAR).mean())


def _border(frames: Tensor) -> NDArray[np.uint8]:
    width = max(2, round(BORDER * min(frames.shape[1:3])))
    sides = (frames[:, :width], frames[:, -width:], frames[:, :, :width], frames[:, :, -width:])
    return torch.cat([side.reshape(-1, 3) for side in sides]).numpy()


def color_key_masks(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Alpha (t, h, w) uint8 of what differs from the border's color, and confidence (t,).

    The confidence is how uniform a frame's border is, less where the outline encloses more of the background's color
    than of any other: the object itself may have it. Soft shadows on the background are background.

    Args:
        frames: (t, h, w, 3) uint8.
    """
    shared, _ = find_key(frames)
    alpha = torch.zeros(frames.shape[:3], dtype=torch.uint8)
    confidence = torch.zeros(len(frames))
    for t, frame in enumerate(frames):
        key, uniformity = find_key(frame[None])
        if uniformity < UNIFORM:  # a flash has a color of its own; an object that leaves the frame has not
            key = shared
            uniformity = float((apart(_border(frame[None]), key) <= NEAR).mean())
        matte, sure = _matte(frame.numpy(), key, _border(frame[None]))
        alpha[t] = torch.from_numpy(matte)
        confidence[t] = uniformity * sure
    return alpha, confidence


def _matte(frame: NDArray[np.uint8], key: Color, border: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """Alpha (h, w), and how sure it is that no part of the object is taken for background, from 0 to 1."""
    distance = apart(frame, key)
    differs = distance > NEAR
    shadow = _shadow(frame, key, differs)
    found = without_specks(differs & ~shadow)
    quiet = float(np.percentile(apart(border, key), 95)) <= QUIET
    faint = _faint(distance, found) if quiet and shadow.sum() < SHADED * found.sum() else None
    mask, enclosed = _fill(found if faint is None else faint, frame, key, quiet=quiet)
    # On the rim a pixel mixes object and key; its share of the object is its distance over that of a pure pixel nearby.
    pure = cv2.dilate(distance, np.ones((7, 7), np.uint8))
    inside = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1).astype(np.bool_)
    share = np.where(inside, 1.0, mask * distance / np.maximum(pure, 1))
    area = int(mask.sum())
    sure = area / max(area, enclosed) if area else 1.0
    if faint is not None:
        share, sure = mask.astype(np.float64), min(sure, LIKE_KEY)
    return np.asarray(np.rint(share * 255), np.uint8), sure


def _shadow(frame: NDArray[np.uint8], key: Color, differs: Mask) -> Mask:
    """Where a frame shows the background darker, reached from it without an edge."""
    light = float(key.mean())
    if light < 3 * TINT:  # nothing is darker than black
        return np.zeros(differs.shape, np.bool_)
    dimmed = frame.mean(-1) / light
    tint = apart(frame, dimmed[..., None] * key)
    possible = (~differs) | ((tint <= TINT) & (dimmed >= DARKEST) & (dimmed <= 1))
    blocked = np.ones((differs.shape[0] + 2, differs.shape[1] + 2), np.uint8)
    blocked[1:-1, 1:-1] = ~possible
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | (2 << 8)
    height, width = differs.shape
    for x, y in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)):
        if not differs[y, x] and blocked[y + 1, x + 1] == 0:
            cv2.floodFill(frame.copy(), blocked, (x, y), 0, (SOFT,) * 3, (SOFT,) * 3, flags)
    reached: Mask = blocked[1:-1, 1:-1] == 2
    return reached & differs


def _faint(distance: NDArray[np.int16], found: Mask) -> Mask | None:
    """What differs from a quiet background by next to nothing, if that is most of the object: white on white."""
    opened = cv2.morphologyEx((distance > QUIET).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    largest = parts(opened > 0)[:1]
    return largest[0] | found if largest and largest[0].sum() > MOSTLY * found.sum() else None


def _fill(mask: Mask, frame: NDArray[np.uint8], key: Color, *, quiet: bool) -> tuple[Mask, int]:
    """A mask with its highlights filled, and the pixels of the holes that are left, which may show the background.

    Small holes are highlights. Of larger ones those are filled that are not quite of the border's color, where that is
    quiet enough to tell.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    filled, enclosed = mask.copy(), 0
    height, width = mask.shape
    for k in range(1, count):
        left, top, wide, high, area = stats[k]
        if left == 0 or top == 0 or left + wide == width or top + high == height:
            continue
        hole = labels == k
        other = quiet and np.abs(np.median(frame[hole], axis=0) - key).max() > QUIET
        if other or area <= HOLE * mask.sum():
            filled |= hole
        else:
            enclosed += int(area)
    return filled, enclosed
