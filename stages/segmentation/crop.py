"""The one square crop of a clip around its object, resized and laid over black; images are (t, y, x, channel)."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ss4d.stages.errors import InputError
from ss4d.stages.ops.geometry import CROP_MARGIN


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
    return crop_frames(frames[..., :3], frames[..., 3], size)


def crop_frames(colors: Tensor, opacities: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `crop_clip`, of colors (t, h, w, 3) and opacities (t, h, w) that lie apart; copies a frame at a time."""
    box = crop_box(opacities)
    rgb = torch.empty(len(colors), size, size, 3, dtype=torch.uint8)
    alpha = torch.empty(len(colors), size, size, dtype=torch.uint8)
    for t, (frame_rgb, frame_alpha) in enumerate(zip(colors.cpu().numpy(), opacities.cpu().numpy(), strict=True)):
        frame = np.dstack([frame_rgb, frame_alpha])
        # Pillow fills what lies outside with transparent black, and premultiplies while it resizes.
        square = Image.fromarray(frame).crop(box).resize((size, size), Image.Resampling.LANCZOS)
        color, opacity = np.split(np.asarray(square).astype(np.float32) / 255, [3], axis=-1)
        rgb[t] = torch.from_numpy((color * opacity * 255).astype(np.uint8))
        alpha[t] = torch.from_numpy(np.asarray(square)[..., 3].copy())
    return rgb, alpha, torch.tensor(box)


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
