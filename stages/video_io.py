"""Frames as uint8 tensors (t, h, w, c): read from a video file or a folder of images, written to a video file."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from io import BufferedReader
from pathlib import Path
from statistics import median
from typing import TypeVar, cast

import av
import numpy as np
import torch
from av.container import InputContainer, OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig, image_files, open_file
from ss4d.stages.types import Video

LOG = logging.getLogger("ss4d")
Pixels = NDArray[np.uint8]  # (h, w, 3 or 4)
F = TypeVar("F")
Decode = Callable[[], Pixels]  # decodes one frame; a frame that is skipped is never called

# Without x264's macroblock tree: with it, one file in some hundreds came out other than the rest, even from one thread.
ENCODERS = {
    "libx264": {"crf": "18", "preset": "medium", "mbtree": "0"},
    "libvpx-vp9": {"crf": "24", "b": "0", "row-mt": "1"},
}
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # the default decoders of both drop alpha
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)  # what Pillow raises
MAX_BYTES = 4 << 30  # of decoded frames; without it a long film ends the process instead of giving a sentence
ALPHA_NOISE = 8  # levels
GIF_DEFAULT = 100  # milliseconds a frame is shown that asks for none, as browsers do


def read_video(path: Path, config: InputConfig) -> Video:
    """Reads the chosen frames of a video file, an animated or still image, or a folder of images in natural order.

    Frames of a video are taken at a constant rate by their time stamps, turned upright, and keep their alpha. Wider
    pixel types are reduced to 8 bit. A folder's hidden files and files that are not images are passed over.

    Args:
        path: the file or folder.
        config: which frames.

    Returns:
        `frames` (t, h, w, 3), or (t, h, w, 4) when any frame has an alpha channel.

    Raises:
        InputError: the input is missing, unreadable, damaged within the chosen frames, empty, of mixed sizes or too
            large, or `config.start` lies beyond its end.
    """
    choice = _choice(path, config)
    if os.path.isdir(path):
        images = image_files(path)
        return _collect(path, [(file.name, partial(_decode_file, file)) for file in images], config.fps, choice)
    with open_file(path) as file:
        image = _image_in(file)
        if image is None:
            return _read_with_av(path, file, choice)
        with image:
            fps, frames = _animation(image, str(path), config.fps)
            return _collect(path, _named(frames), fps, choice)


def num_frames(path: Path) -> int:
    """How many frames an input has that `read_video` could choose from; decodes none, so damage may stay unseen.

    Raises:
        InputError: the input is missing, unreadable or of no known kind.
    """
    if os.path.isdir(path):
        return len(image_files(path))
    with open_file(path) as file:
        image = _image_in(file)
        if image is not None:
            with image:
                return sum(1 for _ in _animation(image, str(path), 1.0)[1])
        with _container(path, file) as (container, stream):
            fps = _rate(stream, InputConfig())
            return sum(1 for _ in _at_constant_rate(_packet_times(path, container, stream, fps), fps))


def num_chosen(path: Path, config: InputConfig) -> int:
    """How many frames of an input `read_video` would give; decodes none.

    Raises:
        InputError: the input is missing, unreadable or of no known kind, or has no frame that is chosen.
    """
    total = num_frames(path)
    chosen = len(config.indices(total))
    if not chosen:
        raise _no_frame(path, total, config)
    return chosen


def _no_frame(path: Path, seen: int, config: InputConfig) -> InputError:
    if not seen:
        return InputError(f"{path} holds no frame; give a video with at least one.")
    return InputError(f"{path} has {seen} frames, so input.start cannot be {config.start}; choose at most {seen - 1}.")


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


@dataclass(frozen=True)
class _Choice:
    """Which frames of an input are used.

    Attributes:
        config: that chooses them.
        spread: their indices, where they are spread over a longer time; None where that is not so.
        of: how many there are to choose from, where they are spread.
    """

    config: InputConfig
    spread: Sequence[int] | None = None
    of: int = 0

    def __contains__(self, index: int) -> bool:
        if self.spread is not None:
            return index in self.spread
        return index >= self.config.start and not (index - self.config.start) % self.config.step

    @property
    def most(self) -> int | None:
        """How many they can be; None for any number."""
        return self.config.count if self.spread is None else len(self.spread)

    @property
    def every(self) -> float:
        """Frames of the input from one that is used to the next, on average."""
        return self.config.step * (1 if self.spread is None else self.of / len(self.spread))


def _choice(path: Path, config: InputConfig) -> _Choice:
    """The frames that `config` chooses; an input of unknown length is looked through first to spread them over it."""
    if config.frames is None:
        return _Choice(config)
    total = num_frames(path)
    some, spread = config.candidates(total), config.indices(total)
    return _Choice(config) if len(spread) == len(some) else _Choice(config, spread, len(some))


def _collect(path: Path, frames: Iterable[tuple[str, Decode]], fps: float, choice: _Choice) -> Video:
    """Decode the chosen ones of all frames, each given with its name, and check that they fit together."""
    chosen: list[Pixels] = []
    seen, first, size = 0, "", (0, 0)
    for seen, (name, decode) in enumerate(frames, 1):
        if seen - 1 not in choice:
            continue
        pixels = decode()
        if not chosen:
            first, size = name, pixels.shape[:2]
        if pixels.shape[:2] != size:
            raise InputError(
                f"{path} mixes sizes: {first} is {size[1]} x {size[0]} pixels, {name} is {pixels.shape[1]} x "
                f"{pixels.shape[0]}; give frames of one size."
            )
        chosen.append(pixels)
        if len(chosen) * pixels.nbytes > MAX_BYTES:
            raise InputError(
                f"{path} has more than {len(chosen) - 1} chosen frames of {size[1]} x {size[0]} pixels, over the limit "
                f"of {MAX_BYTES >> 30} GiB; choose fewer with frames, count or step, or give smaller frames."
            )
        if len(chosen) == choice.most:
            break
    if not chosen:
        raise _no_frame(path, seen, choice.config)
    if choice.spread is not None:
        LOG.info("%d of %d frames, one every %.2f s", len(chosen), choice.of, choice.every / fps)
    return Video(frames=_stack(chosen), fps=fps / choice.every)


def _stack(images: list[Pixels]) -> Tensor:
    """One tensor of all images, which are released as they are copied so that only one copy of the clip is held."""
    height, width = images[0].shape[:2]
    channels = max(image.shape[2] for image in images)
    frames = torch.empty(len(images), height, width, channels, dtype=torch.uint8)
    for t, _ in enumerate(images):
        frames[t, ..., 3:] = 255  # an image without alpha among others that have it is opaque
        frames[t, ..., : images[t].shape[2]] = torch.from_numpy(images[t])
        images[t] = images[t][:0]
    return frames


def _named(frames: Iterable[Decode]) -> Iterator[tuple[str, Decode]]:
    return ((f"frame {t}", decode) for t, decode in enumerate(frames))


def _decode_file(path: Path) -> Pixels:
    with open_file(path) as file:
        image = _image_in(file)
        if image is None:
            raise InputError(f"{path} is not an image that can be read; replace or remove it.")
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise InputError(f"{path} is animated; give the file itself, or a folder of still images.")
        return _decode_image(image, 0, str(path))


def _image_in(file: BufferedReader) -> Image.Image | None:
    """The image a file begins with; None when it holds something else, such as a video."""
    try:
        return Image.open(file, formats=FORMATS)
    except UNREADABLE:
        file.seek(0)
        return None


def _decode_image(image: Image.Image, index: int, name: str) -> Pixels:
    """Frame `index` of an open image, upright, as RGB or RGBA of 8 bit."""
    try:
        image.seek(index)
        upright = ImageOps.exif_transpose(image)
    except UNREADABLE as error:
        raise InputError(f"{name} is damaged ({error}); replace it.") from error
    if upright.mode.startswith("I"):  # 16 bit gray: Pillow would clip instead of scaling
        gray = (np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=-1)
    if upright.mode == "F":
        raise InputError(f"{name} holds floating-point pixels, whose range is unknown; save it with 8 or 16 bit.")
    return np.array(upright.convert("RGBA" if upright.has_transparency_data else "RGB"))


def _animation(image: Image.Image, name: str, fps: float) -> tuple[float, Iterator[Decode]]:
    """The rate of an animated image, and its frames at that rate; a still has the rate `fps`."""
    decode = partial(_decode_image, image, name=name)
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format == "MPO":
        return fps, iter([partial(decode, 0)])
    shown = []
    for index in range(count):
        try:
            image.seek(index)
            image.load()  # webp states how long a frame is shown only once it is decoded
        except UNREADABLE as error:
            raise InputError(f"{name} is damaged after {index} frames ({error}); replace it.") from error
        shown.append((image.info.get("duration") or GIF_DEFAULT) / 1000)
    times = np.cumsum([0.0, *shown[:-1]]).tolist()
    rate = 1 / median(shown)
    return rate, _at_constant_rate(((time, partial(decode, index)) for index, time in enumerate(times)), rate)


def _at_constant_rate(timed: Iterable[tuple[float, F]], rate: float) -> Iterator[F]:
    """The frames nearest in time to 0, 1 / rate, 2 / rate, ... seconds after the first."""
    emitted, start = 0, None
    previous: tuple[float, F] | None = None
    for stamp, decode in timed:
        start = stamp if start is None else start
        time = stamp - start
        while previous is not None and emitted / rate < (previous[0] + time) / 2:
            yield previous[1]
            emitted += 1
        previous = time, decode
    while previous is not None and emitted / rate < previous[0] + 0.5 / rate:
        yield previous[1]
        emitted += 1


def _read_with_av(path: Path, file: BufferedReader, choice: _Choice) -> Video:
    with _container(path, file) as (container, stream):
        fps = _rate(stream, choice.config)
        frames = _at_constant_rate(_decode_stream(path, container, stream, fps), fps)
        return _collect(path, _named(frames), fps, choice)


@contextmanager
def _container(path: Path, file: BufferedReader) -> Iterator[tuple[InputContainer, VideoStream]]:
    """An open video file and its first stream of pictures."""
    try:
        container = av.open(file, mode="r")  # the open file, not its name: a playlist cannot reach other files
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path} is not a video or an image that can be read; give one, or a folder.") from error
    with container:
        if not container.streams.video:
            raise InputError(f"{path} holds no video; give a video file or a folder of images.")
        yield container, container.streams.video[0]


def _rate(stream: VideoStream, config: InputConfig) -> float:
    """Frames per second."""
    return float(stream.average_rate or stream.guessed_rate or config.fps)


def _packet_times(path: Path, container: InputContainer, stream: VideoStream, fps: float) -> list[tuple[float, None]]:
    """The time of each frame in seconds, in order, without decoding it."""
    try:
        stamps = [packet.pts for packet in container.demux(stream) if packet.size]  # an empty one ends the stream
    except av.FFmpegError as error:
        raise InputError(f"{path} is damaged and breaks off ({error.strerror}); give a whole file.") from error
    base = float(cast(Fraction, stream.time_base))
    return [(time, None) for time in sorted(t / fps if pts is None else pts * base for t, pts in enumerate(stamps))]


def _decode_stream(
    path: Path, container: InputContainer, stream: VideoStream, fps: float
) -> Iterator[tuple[float, Decode]]:
    """Each decoded frame with its time in seconds."""
    decoder = _decoder(stream)
    count = 0
    try:
        for packet in container.demux(stream):
            for frame in decoder.decode(packet):
                time = count / fps if frame.pts is None else float(frame.pts * cast(Fraction, stream.time_base))
                yield time, partial(_frame_pixels, frame)
                count += 1
    except av.FFmpegError as error:
        raise InputError(
            f"{path} is damaged: {count} frames could be read before it broke off ({error.strerror}); choose frames "
            "before that with count, or give a whole file."
        ) from error


def _decoder(stream: VideoStream) -> VideoCodecContext:
    # Not with one thread a frame: that loses the errors of a damaged stream, and with them the frames before it.
    context = stream.codec_context
    has_alpha = any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())
    if has_alpha and context.name in ALPHA_DECODERS:
        return cast(VideoCodecContext, av.CodecContext.create(ALPHA_DECODERS[context.name], "r"))
    return context


def _frame_pixels(frame: av.VideoFrame) -> Pixels:
    alpha = any(component.is_alpha for component in frame.format.components)
    pixels = np.asarray(frame.to_ndarray(format="rgba" if alpha else "rgb24"), np.uint8)
    if alpha and frame.format.name.startswith("yuva"):
        _clean_alpha(pixels)
    # The rotation is how far to turn counter-clockwise for display; only quarter turns keep the pixels.
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def _clean_alpha(pixels: Pixels) -> None:
    """Remove what a lossy codec adds to alpha: faint noise far from the object, which would count as object."""
    alpha = pixels[..., 3]
    alpha[alpha <= ALPHA_NOISE] = 0
    alpha[alpha >= 255 - ALPHA_NOISE] = 255
