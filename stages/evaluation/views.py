"""Ground-truth pictures of a clip and pictures of Gaussians from the same cameras, all over white.

Axes: v view, t frame, images are (row, column, RGB) float32, 0 to 1.
"""

import torch
from torch import Tensor

from ss4d.stages.data.clip import TrainingClip
from ss4d.stages.ops.rasterize import Rasterize
from ss4d.stages.types import Camera, Clip, GaussianClip

WHITE = (1.0, 1.0, 1.0)


def over_white(rgba: Tensor) -> Tensor:
    """Straight RGBA (..., 4) uint8 as RGB (..., 3) float32 over white."""
    scaled = rgba.float() / 255
    alpha = scaled[..., 3:]
    return scaled[..., :3] * alpha + (1 - alpha)


def input_clip(clip: TrainingClip) -> Clip:
    """The input view as the pipeline's first stage would hand it on."""
    rgb, alpha = clip.frames[..., :3], clip.frames[..., 3]
    return Clip(
        rgb=(rgb.float() * alpha[..., None] / 255).byte(),
        alpha=alpha,
        crop=clip.crop,
        confidence=torch.ones(clip.num_frames),
        method="alpha",
        fps=clip.fps,
    )


def input_camera(clip: TrainingClip, source_size: int) -> Camera:
    """The camera that sees what the cropped input view shows, pixel for pixel.

    A crop beside the middle moves the principal point, which a `Camera` keeps in the middle; a shear does the same:
    adding s z to x before the division adds s to x / z. World to camera is therefore not a rigid motion here.

    Args:
        clip: the clip.
        source_size: side in pixels of the imagined video frame that the input was cropped from.
    """
    left, top, right, _ = clip.crop.tolist()
    size, side = clip.frames.shape[1], right - left
    focal = float(clip.input_focal) * size / side
    view = clip.input_camera.double().clone()
    for axis, edge in ((0, left), (1, top)):
        middle = (source_size / 2 - edge) * size / side  # of the source frame, in pixels of the crop
        view[axis] += view[2] * (middle - size / 2) / focal
    rows = tuple(tuple(row) for row in view.tolist())
    return Camera(world_to_camera=rows, focal=focal, width=size, height=size)


def pictures(gaussians: GaussianClip, camera: Camera, render: Rasterize) -> Tensor:
    """Every frame (t, h, w, 3) from one camera, on the CPU."""
    frames = (gaussians.frame(t) for t in range(gaussians.num_frames))
    return torch.stack([render(frame, camera, background=WHITE)[0].clamp(0, 1).cpu() for frame in frames])
