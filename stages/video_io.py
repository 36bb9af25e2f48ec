"""Frames as uint8 tensors (t, h, w, c): read from a video, an image, a folder or an archive; written to a video."""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
import numpy as np
import torch
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from torch import Tensor

from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig
from ss4d.stages.reading.counts import chosen_frames
from ss4d.stages.reading.picture import Bounds, Picture, Pixels
from ss4d.stages.reading.sources import FrameSource, opened_source
from ss4d.stages.types import Progress, Video, silent

LOG = logging.getLogger("ss4d")

# Without x264's macroblock tree: with it, one file in some hundreds came out other than the rest, even from one thread.
ENCODERS = {
    "libx264": {"crf": "18", "preset": "medium", "mbtree": "0"},
    "libvpx-vp9": {"crf": "24", "b": "0", "row-mt": "1"},
}
NAMED = 3  # frames that a sentence names


def read_video(
    path: Path,
    config: InputConfig,
    *,
    side: int | None = None,
    room: int | None = None,
    beside: int = 0,
    progress: Progress = silent,
) -> Video:
    """Reads the chosen frames of a video file, an image, a folder of images or an archive of them (docs/inputs.md).

    One frame after the other is decoded, and only those that are used are held.

    Args:
        path: the file or folder.
        config: which frames.
        side: frames whose longer side has more pixels than this are reduced to it; None: as large as they are.
        room: bytes that all frames may take: if they take more, they are reduced further. None: without such a limit.
        beside: bytes of memory that each frame is going to take besides.
        progress: told after each frame.

    Returns:
        `frames` (t, h, w, 3), or (t, h, w, 4) when any frame has an alpha channel.

    Raises:
        InputError: the input is missing, unreadable, damaged within the chosen frames, empty, of mixed sizes or too
            large, or `config` chooses no frame.
    """
    with opened_source(path, config) as source:
        count, rate = source.line.count, source.line.rate
        some, chosen = config.candidates(count, rate), chosen_frames(path, source, config)
        pictures, coarse = _fitting(source, chosen, Bounds(side=side, max_pixels=config.max_pixels), room)
        frames, scale = _collect(path, source, chosen, pictures, config, beside, progress)
    every = config.step * len(some) / len(chosen)
    if len(chosen) < len(some):
        LOG.info("%d of %d frames, one every %.2f s", len(chosen), len(some), every / rate)
    if coarse:
        count, height, width, _ = frames.shape
        LOG.info("the object is looked for in frames of %d x %d pixels, as there are %d of them", width, height, count)
    return Video(frames=frames, fps=rate / every, scale=scale, coarse=coarse)


def read_frames(path: Path, config: InputConfig, *, side: int | None = None) -> Iterator[Pixels]:
    """The frames that `read_video` gives, one after the other and none held; raises as that does."""
    with opened_source(path, config) as source:
        chosen = chosen_frames(path, source, config)
        for picture in source.read(chosen, Bounds(side=side, max_pixels=config.max_pixels)):
            yield _straight(picture.pixels) if config.premultiplied else picture.pixels


def _fitting(
    source: FrameSource, chosen: Sequence[int], bounds: Bounds, room: int | None
) -> tuple[Iterator[Picture], bool]:
    """The chosen pictures, so small that all of them fit into `room` bytes; and whether that made them smaller."""
    pictures = source.read(chosen, bounds)
    first = next(pictures)
    needed = len(chosen) * first.pixels.nbytes
    if room is None or needed <= room:
        return chain([first], pictures), False
    side = max(1, int(max(first.pixels.shape[:2]) * math.sqrt(room / needed)))
    return source.read(chosen, replace(bounds, side=side)), True


def _collect(
    path: Path,
    source: FrameSource,
    chosen: Sequence[int],
    pictures: Iterable[Picture],
    config: InputConfig,
    beside: int,
    progress: Progress,
) -> tuple[Tensor, float]:
    """The chosen frames (t, h, w, 3 or 4), one copy of each, and how many pixels of the input one of theirs is wide."""
    frames, scale = torch.empty(0), 1.0
    opaque = []
    for t, picture in enumerate(pictures):
        pixels = _straight(picture.pixels) if config.premultiplied else picture.pixels
        if not t:
            _check_memory(path, len(chosen), pixels, config, beside)
            frames, scale = torch.empty(len(chosen), *pixels.shape, dtype=torch.uint8), picture.scale
        height, width, channels = pixels.shape
        if (height, width) != frames.shape[1:3]:
            raise InputError(
                f"{path} mixes sizes: {source.label(chosen[0])} is {frames.shape[2]} x {frames.shape[1]} pixels, "
                f"{source.label(chosen[t])} is {width} x {height}; give frames of one size."
            )
        if channels > frames.shape[3]:
            frames = torch.cat([frames, torch.full_like(frames[..., :1], 255)], dim=-1)
        if channels < 4:
            opaque.append(source.label(chosen[t]))
        frames[t, ..., 3:] = 255  # an image without alpha among others that have it is opaque
        frames[t, ..., :channels] = torch.from_numpy(pixels)
        progress(t + 1, len(chosen))
    if opaque and frames.shape[3] == 4:
        more = f" and {len(opaque) - NAMED} more" if len(opaque) > NAMED else ""
        LOG.warning("%s: %s%s without alpha, unlike the other frames", path, ", ".join(opaque[:NAMED]), more)
    return frames, scale


def _check_memory(path: Path, count: int, pixels: Pixels, config: InputConfig, beside: int) -> None:
    needed, (height, width) = count * (pixels.nbytes + beside) / 2**30, pixels.shape[:2]
    if needed > config.memory:
        fewer = max(1, int(count * config.memory / needed))
        crops, smaller = (" and their crops", ", make segmentation.size smaller") if beside else ("", "")
        raise InputError(
            f"{path} has {count} frames to be used, of {width} x {height} pixels{crops}: {needed:.1f} GiB, more "
            f"than the {config.memory:g} of input.memory; choose fewer, such as input.frames={fewer}{smaller}, or "
            "raise that."
        )


def _straight(pixels: Pixels) -> Pixels:
    """Colors that alpha has not been multiplied into yet, of colors that it has."""
    if pixels.shape[2] < 4:
        return pixels
    alpha = pixels[..., 3:].astype(np.float32)
    color = pixels[..., :3] * (255 / np.maximum(alpha, 1))
    return np.concatenate([np.rint(np.minimum(color, 255)).astype(np.uint8), pixels[..., 3:]], axis=-1)


def write_video(path: Path, frames: Iterable[Tensor], fps: float) -> None:
    """Writes frames as an MP4 that browsers play: H.264 yuv420p with its index first (VP9 where libx264 is missing).

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


def _pad_to_even(image: Pixels) -> Pixels:
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
