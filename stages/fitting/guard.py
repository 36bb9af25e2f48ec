"""What a fit is judged by besides what it was fitted to, and what it says of the frames that it left alone."""

from dataclasses import replace

import torch
from torch import Tensor

from ss4d.stages.input_camera import in_grid
from ss4d.stages.types import Camera, InputCamera


def doubted(camera: InputCamera, size: int) -> list[Camera]:
    """Where the camera may as well have been, in the grid: its yaw and pitch each off by their deviations.

    From a wrong side everything can be made to look like the input, and nothing that is seen from there tells that it
    was the wrong side. What looks more like the input from these sides, too, did not depend on it.
    """
    yaw, pitch = camera.spread.tolist()
    if yaw == 0 and pitch == 0:
        return []
    turns = torch.cartesian_prod(*(torch.tensor([-far, far] if far > 0 else [0.0]) for far in (yaw, pitch)))
    return [
        in_grid(replace(camera, yaw=camera.yaw + around, pitch=(camera.pitch + up).clamp(-90, 90)), size)
        for around, up in turns
    ]


def said(better: Tensor) -> str:
    """A sentence for the log about frames (t), true where the fit is kept."""
    if better.all():
        return f"all {len(better)} frames look more like the input, and are kept"
    if not better.any():
        return "the frames came out no better: wrong camera or masks? All are left as they were"
    left = [str(t + 1) for t in range(len(better)) if not better[t]]
    return f"{int(better.sum())} of {len(better)} frames came out better; left as they were: {', '.join(left)}"
