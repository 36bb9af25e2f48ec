"""Connected parts of a mask (y, x), and following the chosen one over frames; boxes are half-open, in pixels."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]  # left, top, right, bottom

SPECK = 0.05  # a part smaller than this share of the largest one is a speck
POINT_REACH = 0.02  # a point speaks for parts this close to it, as a share of the longer side
RIM = np.ones((5, 5), np.uint8)  # the soft edge about a part
SUBJECT = 0.25  # a group of parts this large, over the largest one's area, is a subject of its own
TOUCHING = 0.03  # parts closer than this share of the longer side belong together
OVERLAP = 0.3  # a part belongs to the followed object when this share of it lies where the object was


def parts(mask: Mask) -> list[Mask]:
    """The 8-connected parts of a mask, without specks, largest first."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[1:count, cv2.CC_STAT_AREA]
    order = np.argsort(-areas, kind="stable")
    return [labels == k + 1 for k in order if areas[k] >= SPECK * areas[order[0]]]


def without_specks(mask: Mask) -> Mask:
    """The large parts of a mask."""
    return _union(mask.shape, parts(mask))


def bounding_box(mask: Mask) -> Box | None:
    """The smallest box that holds a mask; None when it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def grown(box: Box, factor: float, width: int, height: int) -> Box:
    """A box `factor` times as large about its center, kept inside an image of width x height."""
    (left, top, right, bottom), rest = box, (factor - 1) / 2
    dx, dy = (right - left) * rest + 1, (bottom - top) * rest + 1
    return (
        max(0, int(left - dx)),
        max(0, int(top - dy)),
        min(width, int(np.ceil(right + dx))),
        min(height, int(np.ceil(bottom + dy))),
    )


@dataclass(frozen=True)
class Hint:
    """What a user points at in the first frame, in pixels of it.

    Attributes:
        shape: height and width of the frames.
        box: around the object.
        point: (x, y) on it.
    """

    shape: tuple[int, int]
    box: Box | None
    point: tuple[int, int] | None


class ObjectTracker:
    """Keeps, of each frame's mask in turn, the parts that belong to the object the user pointed at.

    Args:
        shape: height and width of a frame.
        box: where the object is in the first frame, or
        point: (x, y) of one of its pixels there.
    """

    def __init__(self, shape: tuple[int, int], box: Box | None, point: tuple[int, int] | None) -> None:
        self.box = box
        self._where: Mask = np.zeros(shape, np.bool_)  # where the object was last seen
        if box is not None:
            self._where[box[1] : box[3], box[0] : box[2]] = True
        self._share = OVERLAP
        if point is not None:
            reach = max(1, round(POINT_REACH * max(shape)))
            y, x = np.ogrid[: shape[0], : shape[1]]
            touched = (x - point[0]) ** 2 + (y - point[1]) ** 2 <= reach**2
            self._where = touched & self._where if box is not None else touched
            self._share = 0.0  # a point covers only a little of its part

    def keep(self, alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The next frame's alpha (h, w) without the parts that are not the object; all 0 when it is out of sight."""
        mine = [part for part in parts(alpha > 127) if (part & self._where).sum() > self._share * part.sum()]
        if not mine:
            return np.zeros_like(alpha)
        self._where, self._share = _union(alpha.shape, mine), OVERLAP
        return alpha * (cv2.dilate(self._where.astype(np.uint8), RIM) > 0)


def largest_subject(alpha: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """Alpha (t, h, w) of the largest of the subjects in it, followed over the frames; and how many there are.

    Parts that nearly touch are one subject. What is much smaller than the largest one is none, and stays with it.
    """
    # Counted first and found once more: the masks of thousands of frames would take much memory.
    counts = [len(_subjects(frame > 127)) for frame in alpha]
    count = int(np.median([some for some in counts if some] or [0]))
    if count < 2:
        return alpha, count
    kept, where = np.zeros_like(alpha), np.zeros(alpha.shape[1:], np.bool_)
    for t, frame in enumerate(alpha):
        found = _subjects(frame > 127)
        if not found:
            continue
        mine = max(found, key=lambda group: int((group & where).sum()))
        where = mine if (mine & where).any() else found[0]
        kept[t] = alpha[t] * (cv2.dilate(where.astype(np.uint8), RIM) > 0)
    return kept, count


def groups(mask: Mask) -> list[Mask]:
    """The parts of a mask, those that nearly touch together, largest first."""
    reach = 2 * max(1, round(TOUCHING * max(mask.shape) / 2)) + 1
    near = cv2.dilate(mask.astype(np.uint8), np.ones((reach, reach), np.uint8))
    count, labels = cv2.connectedComponents(near)
    found = [(labels == k) & mask for k in range(1, count)]
    return sorted(found, key=lambda group: -int(group.sum()))


def _subjects(mask: Mask) -> list[Mask]:
    """The subjects in a mask, largest first."""
    found = groups(mask)
    return [group for group in found if group.sum() >= SUBJECT * found[0].sum()]


def _union(shape: tuple[int, ...], masks: list[Mask]) -> Mask:
    whole = np.zeros(shape, np.bool_)
    for mask in masks:
        whole |= mask
    return whole
