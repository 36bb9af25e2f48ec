"""The one square crop of a clip around its object, resized and laid over black; images are (t, y, x, channel)."""

from collections.abc import Iterable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ss4d.stages.errors import InputError
from ss4d.stages.ops.geometry import CROP_MARGIN

Colors = NDArray[np.uint8]


def crop_clip(frames: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Crop every frame to one square around the object and resize it (docs/model.md, section 2).

    Args:
        frames: (t, h, w, 4) uint8, straight RGBA.
        size: side of the result in pixels.

    Returns:
        rgb (t, size, size, 3) uint8, multiplied by alpha; alpha (t, size, size) uint8; crop (4) int64: left, top,
        right, bottom in source pixels, which may lie outside the frames.

    Raises:
        InputError: every frame is fully transparent, or the object is a single pixel.
    """
    return crop_frames(frames[..., :3].cpu().numpy(), frames[..., 3], size)


def crop_frames(colors: Iterable[Colors], opacities: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `crop_clip`, of colors that lie apart and come one frame after the other, perhaps finer than opacities.

    Args:
        colors: of each frame, (h, w, 3 or more) uint8 of RGB.
        opacities: (t, h, w) uint8; the crop is given in their pixels.
        size: side of the result in pixels.
    """
    box = crop_box(opacities)
    rgb = torch.empty(len(opacities), size, size, 3, dtype=torch.uint8)
    alpha = torch.empty(len(opacities), size, size, dtype=torch.uint8)
    for t, (frame, opacity) in enumerate(zip(colors, opacities.cpu().numpy(), strict=True)):
        square = _square(frame, opacity, box).resize((size, size), Image.Resampling.LANCZOS)
        color, share = np.split(np.asarray(square).astype(np.float32) / 255, [3], axis=-1)
        rgb[t] = torch.from_numpy((color * share * 255).astype(np.uint8))
        alpha[t] = torch.from_numpy(np.asarray(square)[..., 3].copy())
    return rgb, alpha, torch.tensor(box)


def _square(frame: Colors, opacity: NDArray[np.uint8], box: tuple[int, int, int, int]) -> Image.Image:
    """The crop of a frame with its opacity as alpha; Pillow fills what lies outside with transparent black.

    It premultiplies when it is resized.
    """
    (height, width), finer = frame.shape[:2], frame.shape[1] / opacity.shape[1]
    if (height, width) != opacity.shape:
        opacity = np.asarray(cv2.resize(opacity, (width, height), interpolation=cv2.INTER_LINEAR))
        box = round(finer * box[0]), round(finer * box[1]), round(finer * box[2]), round(finer * box[3])
    return Image.fromarray(np.dstack([frame[..., :3], opacity])).crop(box)


def crop_box(alpha: Tensor) -> tuple[int, int, int, int]:
    """The crop (left, top, right, bottom) in pixels for alpha (t, h, w); raises as `crop_clip` does."""
    seen = (alpha > 0).any(0)
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    if not len(rows):
        raise InputError("No object: every frame is fully transparent; give frames in which the object is opaque.")
    top, bottom = int(rows[0]), int(rows[-1])
    left, right = int(columns[0]), int(columns[-1])
    half = CROP_MARGIN * max(right - left, bottom - top) / 2
    if half == 0:
        raise InputError(f"The object is a single pixel at ({left}, {top}); give a clip in which it is larger.")
    x, y = (left + right) / 2, (top + bottom) / 2
    return int(x - half), int(y - half), int(x + half), int(y + half)  # truncated toward zero, as in training
