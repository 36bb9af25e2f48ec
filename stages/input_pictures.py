"""The input's frames as pictures: the object as it was cut out, in straight colors with alpha."""

import io

import torch
from PIL import Image

from ss4d.stages.types import Clip

QUALITY = 85  # of WebP


def input_picture(clip: Clip, t: int) -> Image.Image:
    """Frame `t` as an RGBA image of the crop's size."""
    alpha = clip.alpha[t, ..., None]
    straight = (clip.rgb[t].float() * 255 / alpha.float().clamp(min=1)).clamp(0, 255).round().byte()
    return Image.fromarray(torch.cat([straight, alpha], dim=-1).numpy())


def encode_input(clip: Clip, t: int, side: int) -> bytes:
    """Frame `t` as WebP with alpha, of at most `side` pixels along a side."""
    image = input_picture(clip, t)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY)
    return file.getvalue()
