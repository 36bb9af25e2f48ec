"""Several clips as the networks take them: stacked grids, or sparse rows (b, t, x, y, z) with b the clip's place."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from ss4d.stages.data.clip import TrainingClip
from ss4d.stages.errors import InputError
from ss4d.stages.training.clips import cut


def window(
    clips: Sequence[TrainingClip], generator: Generator, least: int, most: int | None, multiple: int
) -> list[TrainingClip]:
    """Random windows of the clips, all of one random length: of all clips if that is `least`, else of as many as keep
    the number of frames about the same.

    Args:
        clips: of any lengths.
        generator: on the CPU.
        least: frames, where the clips have as many.
        most: frames, where the clips have as many; None for all they have.
        multiple: that the length is a multiple of.

    Raises:
        InputError: if a clip is shorter than that.
    """
    shortest = min(clip.num_frames for clip in clips)
    highest = min(shortest, most or shortest) // multiple
    if not highest:
        raise InputError(f"the flow merges {multiple} frames, but a clip has only {shortest}; train on longer clips")
    lowest = min(-(-least // multiple), highest)
    # Short windows are the likelier ones: they leave room for more objects in a batch.
    ratio = (highest + 1) / lowest
    length = multiple * min(int(lowest * ratio ** float(torch.rand((), generator=generator))), highest)
    kept = clips[: max(1, len(clips) * multiple * lowest // length)]
    starts = [int(torch.randint(clip.num_frames - length + 1, (), generator=generator)) for clip in kept]
    return [cut(clip, start, length) for clip, start in zip(kept, starts, strict=True)]


def batch_coords(clips: Sequence[TrainingClip]) -> Tensor:
    """The clips' voxels (n, 5) int32, sorted."""
    return torch.cat([clip.coords + clip.coords.new_tensor([b, 0, 0, 0, 0]) for b, clip in enumerate(clips)])


def batch_feats(clips: Sequence[TrainingClip]) -> Tensor:
    """The features (n, 9) of those voxels."""
    return torch.cat([clip.feats for clip in clips])


def occupancy_grids(clips: Sequence[TrainingClip], device: torch.device) -> Tensor:
    """Occupancy (b, t, r, r, r) float32, 0 or 1, of clips of one length."""
    size = clips[0].resolution
    grids = torch.zeros(len(clips), clips[0].num_frames, size, size, size, device=device)
    grids[batch_coords(clips).to(device).long().unbind(1)] = 1
    return grids
