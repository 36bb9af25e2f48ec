"""Small films and folders of images, whose frames can be told by their gray levels."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

SIZE = 64
LEVELS = (0, 50, 100, 150, 200, 250)  # the gray level of a frame tells which it is


def rgba_frames() -> list[np.ndarray]:
    """Frames of one level each, opaque in the middle, half transparent above, transparent around."""
    frames = []
    for level in LEVELS:
        frame = np.zeros((SIZE, SIZE, 4), np.uint8)
        frame[..., :3] = level
        frame[16:48, 16:48, 3] = 255
        frame[16:32, 16:48, 3] = 128
        frames.append(frame)
    return frames


def encode(path: Path, codec: str, pix_fmt: str, times: list[int] | None = None) -> Path:
    """The frames as a video at 10 frames a second, or shown at `times` in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width = stream.height = SIZE
        stream.pix_fmt = pix_fmt
        for t, pixels in enumerate(rgba_frames()):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pix_fmt)
            if times is not None:
                frame.pts, frame.time_base = times[t], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def save_folder(folder: Path, count: int = 11) -> Path:
    folder.mkdir()
    for t in range(count):
        Image.new("RGB", (8, 6), (t, 2 * t, 3 * t)).save(folder / f"{t}.png")
    return folder


def levels(frames: torch.Tensor) -> list[int]:
    return [round(float(frame[36:44, 20:44, :3].float().mean()) / 50) for frame in frames]
