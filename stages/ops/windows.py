"""Split rows into groups that attend to each other, one extent per axis (t, x, y, z), never across clips.

The windows of the models are in docs/model.md, section 5 (frames) and docs/model.md, section 8 (cells).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ss4d.stages.errors import InputError
from ss4d.stages.ops.coords import PerAxis, Sites, linear_keys

# Cells of a window along (t, x, y, z); None is the whole axis.
Extent = tuple[int | None, int | None, int | None, int | None]

WHOLE_CLIP: Extent = (None, None, None, None)
EACH_FRAME: Extent = (1, None, None, None)
NO_SHIFT: PerAxis = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class Groups:
    """Which rows belong together.

    Attributes:
        lengths: rows in each group, may be 0.
        order: (N) int64, the rows listed group by group; None where rows already lie so.
    """

    lengths: tuple[int, ...]
    order: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Frames:
    """The rows of every frame of every clip, in the order clip x frames of a clip + frame.

    Attributes:
        index: (N) int64, the frame each row belongs to.
        lengths: rows in each frame, may be 0.
    """

    index: Tensor
    lengths: tuple[int, ...]

    @property
    def groups(self) -> Groups:
        """Each frame a group; rows of a frame lie together because sites are sorted by (b, t) first."""
        return Groups(self.lengths)

    def split(self, x: Tensor) -> Tensor:
        """Rows (N, C) as (frame, row, C) where all frames are equally long, else as they are."""
        return x.view(len(self.lengths), -1, x.shape[1]) if self._equal else x

    def spread(self, values: Tensor) -> Tensor:
        """One value per frame, (frames, C), in a shape that broadcasts with what `split` gives."""
        return values.unsqueeze(1) if self._equal else values.index_select(0, self.index)

    @property
    def _equal(self) -> bool:
        return len(set(self.lengths)) == 1 and self.lengths[0] > 0


def windows(sites: Sites, extent: Extent, shift: PerAxis = NO_SHIFT) -> Groups:
    """Groups of rows of one clip whose ((t + s) // w, (x + s) // w, ...) agree; built once per extent and shift.

    Args:
        sites: N active cells.
        extent: w for each axis; None puts no border on that axis.
        shift: s for each axis; nothing where the extent is None.

    Returns:
        The groups that hold at least one row.
    """
    return sites.derived(("windows", extent, shift), lambda s: _windows(s.coords, extent, shift))


def _windows(coords: Tensor, extent: Extent, shift: PerAxis) -> Groups:
    cells = [coords[:, 0]]
    for axis, (width, offset) in enumerate(zip(extent, shift, strict=True), start=1):
        if width is not None:
            cells.append((coords[:, axis] + offset) // width)
    keys = linear_keys(torch.stack(cells, dim=1))[0]
    order = None
    if bool((keys[1:] < keys[:-1]).any()):
        keys, order = keys.sort(stable=True)
    lengths = torch.unique_consecutive(keys, return_counts=True)[1]
    return Groups(tuple(lengths.tolist()), order)


def frames(sites: Sites, clip_shape: tuple[int, int]) -> Frames:
    """The rows of each frame of `clip_shape` (clips, frames of each), empty frames included; built once per shape.

    Raises:
        InputError: if a row lies outside the clips and frames.
    """
    return sites.derived(("frames", *clip_shape), lambda s: _frames(s.coords, *clip_shape))


def _frames(coords: Tensor, clips: int, clip_frames: int) -> Frames:
    if len(coords):
        clip, frame = int(coords[:, 0].max()), int(coords[:, 1].max())
        if clip >= clips or frame >= clip_frames:
            raise InputError(
                f"voxels reach clip {clip}, frame {frame}, but image tokens were given for {clips} clips of "
                f"{clip_frames} frames; give tokens for every frame"
            )
    index = coords[:, 0].long() * clip_frames + coords[:, 1]
    return Frames(index, tuple(torch.bincount(index, minlength=clips * clip_frames).tolist()))
