"""Frames as uint8 tensors (t, h, w, c): read from a video file or a folder of images, written to a video file."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from torch import Tensor

from stages.errors import InputError

ENCODERS = {"libx264": {"crf": "18", "preset": "medium"}, "libvpx-vp9": {"crf": "24", "b": "0", "row-mt": "1"}}


def write_video(path: Path, frames: Iterable[Tensor], fps: float) -> None:
    """Write frames as an MP4 that browsers play: H.264 yuv420p with its index first (VP9 where libx264 is missing).

    Odd sizes grow by one pixel, repeating the last row or column, because 4:2:0 chroma needs even ones.

    Args:
        path: the file to write, named `.mp4`; its folder exists.
        frames: a tensor (t, h, w, 3) or any iterable of (h, w, 3), uint8 RGB; an iterable is consumed one at a time.
        fps: frames per second.

    Raises:
        InputError: there is no frame.
    """
    stream = None
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        for image in frames:
            pixels = _pad_to_even(image.cpu().numpy())
            stream = stream or _add_stream(container, pixels.shape[1], pixels.shape[0], fps)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)))
        if stream is None:
            raise InputError(f"{path} would hold no frame; give at least one.")
        container.mux(stream.encode())


def _add_stream(container: OutputContainer, width: int, height: int, fps: float) -> VideoStream:
    encoder = next(name for name in ENCODERS if name in av.codecs_available)
    rate = Fraction(fps).limit_denominator(1001)
    stream = cast(VideoStream, container.add_stream(encoder, rate=rate, options=ENCODERS[encoder]))
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    # Some players show an untagged file with the wrong matrix: the frames are BT.709, and the file says so.
    stream.codec_context.colorspace = Colorspace.ITU709
    stream.codec_context.color_primaries = ColorPrimaries.BT709
    stream.codec_context.color_trc = ColorTrc.BT709
    stream.codec_context.color_range = ColorRange.MPEG
    return stream


def _pad_to_even(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
