"""The picture inside of bars or of a border of one color; frames are (t, y, x, RGB)."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ss4d.stages.segmentation.levels import apart
from ss4d.stages.segmentation.masks import Box

SAMPLES = 8  # frames that are looked at
NEAR = 12  # levels: a pixel of a bar is this close to the bar's color
BAR = 0.99  # share of a line that must have that color
PICTURE = 0.9  # share of the first line of the picture that must have another: its edge is straight, an object's is not
BLUR = 2  # lines between both that a codec or a filter has mixed
WIDEST = 0.25  # of a side that one bar takes at most


def field_box(frames: Tensor) -> Box | None:
    """The box of the picture inside of bars in frames (t, h, w, 3); None where there are none."""
    some = frames[:: -(-len(frames) // SAMPLES)].numpy().astype(np.int16)
    height, width = some.shape[1:3]
    rows, columns = some, some.swapaxes(1, 2)
    top, bottom = _bar(rows), _bar(rows[:, ::-1])
    left, right = _bar(columns), _bar(columns[:, ::-1])
    across, down = slice(left + BLUR, width - right - BLUR), slice(top + BLUR, height - bottom - BLUR)
    if across.start >= across.stop or down.start >= down.stop:
        return None
    top, bottom = _ends(rows[:, :, across], top), _ends(rows[:, ::-1, across], bottom)
    left, right = _ends(columns[:, :, down], left), _ends(columns[:, ::-1, down], right)
    return (left, top, width - right, height - bottom) if max(top, bottom, left, right) else None


def _bar(lines: NDArray[np.int16]) -> int:
    """How many lines (t, line, place, 3), from the first on, have one color."""
    color = np.median(lines[:, 0].reshape(-1, 3), axis=0)
    most = int(WIDEST * lines.shape[1])
    same = (apart(lines[:, :most], color) <= NEAR).mean(-1).min(0) >= BAR
    return most if same.all() else int(same.argmin())


def _ends(lines: NDArray[np.int16], count: int) -> int:
    """The lines of a bar with those that are mixed into it; 0 if the picture does not begin behind it at once."""
    if not count or count + BLUR >= lines.shape[1] // 2:
        return 0
    color = np.median(lines[:, 0].reshape(-1, 3), axis=0)
    other = (apart(lines[:, count + BLUR], color) > NEAR).mean(-1).min()
    return count + BLUR if other >= PICTURE else 0
