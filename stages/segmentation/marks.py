"""Watermarks, logos and time stamps on a plain background: small things beside the object that stay where they are.

Frames are (t, y, x, RGB), alpha is (t, y, x).
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from ss4d.stages.segmentation.levels import apart
from ss4d.stages.segmentation.masks import RIM, SUBJECT, Mask, bounding_box, groups

MOST = 0.8  # of the frames in which the object does not touch it, that a mark is seen in
FEWEST = 0.4  # of all frames that it is seen in
MOVED = 0.9  # an object whose masks overlap by less than this (IoU) moves
SAME = 12  # levels: where a mark is seen its color is as close to its usual one
OUTER = 1 / 6  # of a side: beside an object that stands still, a mark is told by lying this near to the frame's border


def without_marks(alpha: NDArray[np.uint8], frames: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float | None]:
    """Alpha (t, h, w) without the marks in it, and how sure that is, from 0 to 1; None for the latter without any.

    A mark is much smaller than the object, and stays where it is while that moves. Where nothing moves, what lies at
    the border of the frame is taken for one. The object may pass behind it, or before it.

    Args:
        alpha: of all that stands out.
        frames: (t, h, w, 3).
    """
    votes, covered = np.zeros((2, *alpha.shape[1:]), np.int64)
    first: Mask | None = None
    seen, moves = 0, False
    for found in (groups(frame > 127) for frame in alpha):
        if not found:
            continue
        votes += sum(group for group in found[1:] if group.sum() < SUBJECT * found[0].sum())
        covered += found[0]
        seen += 1
        first = found[0] if first is None else first
        moves = moves or _overlap(first, found[0]) < MOVED
    marks = (votes >= MOST * (seen - covered)) & (votes >= max(1, FEWEST * seen))
    if not moves:
        marks = _outer(marks)
    if not marks.any():
        return alpha, None
    wide = cv2.dilate(marks.astype(np.uint8), RIM) > 0
    usual = np.median(frames[:, wide], axis=0)
    kept = alpha.copy()
    for frame, shown in zip(kept, frames, strict=True):
        frame[wide] *= apart(shown[wide], usual) > SAME
    return kept, 1.0 if moves else 0.5


def _overlap(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def _outer(marks: Mask) -> Mask:
    """Those marks that lie in the outer part of the frame as a whole."""
    height, width = marks.shape
    kept = np.zeros_like(marks)
    for group in groups(marks):
        left, top, right, bottom = bounding_box(group) or (0, 0, width, height)
        across, down = width * OUTER, height * OUTER
        if right <= across or left >= width - across or bottom <= down or top >= height - down:
            kept |= group
    return kept
