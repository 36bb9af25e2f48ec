"""What can be said of a stage's result in a few numbers, kept beside it and in the catalog of a dataset."""

import torch

from ss4d.stages.types import Clip, GaussianClip, Value, Voxels

MEASURES = ("voxels", "gaussians", "foreground", "frames")


def measures(value: Value | None) -> dict[str, float]:
    """The numbers by their names in `MEASURES`; none for a value that tells nothing new.

    `voxels` and `gaussians` are counts over all frames; `foreground` is the share of the cropped frames that the object
    covers, from 0 to 1.
    """
    match value:
        case Clip():
            share = float(value.alpha.mean(dtype=torch.float64)) / 255 if value.alpha.numel() else 0.0
            return {"foreground": round(share, 6), "frames": len(value.alpha)}
        case Voxels():
            return {"voxels": len(value.coords)}
        case GaussianClip():
            return {"gaussians": len(value.means)}
        case _:
            return {}
