"""Overlapping windows over the frames of a long clip: which there are, and how what they give is blended.

Frames count in their clip from 0. Sparse rows are (b, t, x, y, z), sorted, of one clip.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FrameWindow:
    """Consecutive frames of a clip: those from `start` up to `stop`, without it."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class WindowRows:
    """The rows of one window.

    Attributes:
        frames: the window.
        rows: its rows among those of the clip.
        coords: (n, 5) of these rows, with t counted from the window's first frame.
        weight: (n, 1) of what this window gives for each row; those of all windows add up to 1.
    """

    frames: FrameWindow
    rows: slice
    coords: Tensor
    weight: Tensor


def frame_windows(num_frames: int, length: int | None, multiple: int) -> list[FrameWindow]:
    """Windows that cover a clip, each half over the one before; a single one where the clip is not longer than it.

    Args:
        num_frames: of the clip, a multiple of `multiple`.
        length: frames of a window, rounded up so that it and its half divide by `multiple`; None for the whole clip.
        multiple: windows begin and end at multiples of this.

    Returns:
        The windows in order, all equally long; the last two may overlap by more than half.
    """
    length = num_frames if length is None else length + -length % (2 * multiple)
    if length >= num_frames:
        return [FrameWindow(0, num_frames)]
    last, step = num_frames - length, length // (2 * multiple) * multiple
    return [FrameWindow(start, start + length) for start in (*range(0, last, step), last)]


def window_rows(coords: Tensor, num_frames: int, windows: Sequence[FrameWindow]) -> list[WindowRows]:
    """The rows of each window that has any, else of the first, with weights that rise and fall smoothly over it.

    Args:
        coords: (N, 5) of a clip, on any device.
        num_frames: of the clip; windows cover all of them.
        windows: at least one.
    """
    counts = torch.bincount(coords[:, 1], minlength=num_frames)
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).tolist()
    total = torch.zeros(num_frames, dtype=torch.float64)
    for window in windows:
        total[window.start : window.stop] += _bell(len(window))
    parts = []
    for window in windows:
        rows = slice(first[window.start], first[window.stop])
        mine = coords[rows]
        frames = (mine[:, 1] - window.start).long()
        share = (_bell(len(window)) / total[window.start : window.stop]).float().to(coords.device)
        shifted = mine - mine.new_tensor([0, window.start, 0, 0, 0])
        parts.append(WindowRows(window, rows, shifted, share[frames, None]))
    return [part for part in parts if len(part.coords)] or parts[:1]


def blended(parts: Sequence[WindowRows], give: Callable[[int], Tensor], num_rows: int) -> Tensor:
    """What the windows give, each row the weighted mean of those that it is in.

    Args:
        parts: from `window_rows`, none of whose rows are left out.
        give: the rows (n, C) of the part with this number.
        num_rows: N of the clip.

    Returns:
        (N, C).
    """
    if len(parts) == 1:
        return give(0)
    total: Tensor | None = None
    for i, part in enumerate(parts):
        values = give(i)
        if total is None:
            total = values.new_zeros(num_rows, values.shape[1])
        total[part.rows] += part.weight * values
    assert total is not None, "a clip with rows has a window with rows"
    return total


def _bell(length: int) -> Tensor:
    """Weights of a window's frames, (length): nothing at its borders, most in its middle."""
    return torch.sin((torch.arange(length, dtype=torch.float64) + 0.5) * torch.pi / length).square()
