"""Decoded frames of a video as they are to be seen: progressive, upright, with square pixels, in sRGB of 8 bit."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideData
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc, Interpolation, VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from ss4d.stages.errors import InputError
from ss4d.stages.reading.picture import Bounds, Picture, Pixels

LOG = logging.getLogger("ss4d")
ALPHA_NOISE = 8  # levels that a lossy codec adds to alpha, or takes from it
SQUARE = 0.01  # pixels that are wider than high by less than this share are square
MOST_STRETCHED = 4  # nothing real has pixels this many times as wide as high
HD_LINES, HD_COLUMNS = 720, 1280  # from here on a video that does not say its matrix has that of BT.709
UNSPECIFIED = 2  # in the enumerations of matrix, primaries and transfer alike
HDR = {ColorTrc.SMPTE2084: "HDR (PQ)", ColorTrc.ARIB_STD_B67: "HDR (HLG)"}
WIDE = {ColorPrimaries.BT2020, ColorPrimaries.SMPTE431, ColorPrimaries.SMPTE432}


def progressive(frames: Iterable[av.VideoFrame], name: str) -> Iterator[av.VideoFrame]:
    """The frames, those that are interlaced made whole from both of their fields and their neighbors."""
    graph, base = None, None
    for frame in frames:
        if graph is None and frame.interlaced_frame:
            LOG.info("%s is interlaced: it is deinterlaced", name)
            graph = _deinterlacer(frame)
        if graph is None:
            yield frame
        else:
            base = frame.time_base
            graph.vpush(frame)
            yield from _pulled(graph, base)
    if graph is not None:
        graph.vpush(None)
        yield from _pulled(graph, base)


def _deinterlacer(frame: av.VideoFrame) -> Graph:
    graph = Graph()
    base = frame.time_base or Fraction(1, 1000)
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=base)
    graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def _pulled(graph: Graph, base: Fraction | None) -> Iterator[av.VideoFrame]:
    """The frames that a filter has made, their stamps in the time base of those that it was given."""
    while True:
        try:
            frame = graph.vpull()
        except (av.BlockingIOError, av.EOFError):  # wants another frame, or has given the last
            return
        if base and frame.time_base and frame.pts is not None:  # the filter counts fields
            frame.pts, frame.time_base = round(frame.pts * frame.time_base / base), base
        yield frame


@dataclass(eq=False)
class Display:
    """How the frames of one video are to be seen.

    Attributes:
        aspect: width of a pixel over its height.
    """

    name: str
    aspect: Fraction
    bounds: Bounds
    _said: set[str] = field(default_factory=set)
    # One for all frames: the table that HDR is converted by takes two seconds to make.
    _reformatter: VideoReformatter = field(default_factory=VideoReformatter)

    def picture(self, frame: av.VideoFrame) -> Picture:
        """A decoded frame as a picture."""
        self.bounds.check(self.name, frame.width, frame.height)
        width, height = _squared(frame.width, frame.height, self.aspect)
        reduced = self.bounds.reduced(width, height)
        alpha = any(component.is_alpha for component in frame.format.components)
        if alpha:
            # Alpha is cleaned at full size, and colors are weighed with it while they are resized.
            pixels = self._pixels(frame, frame.width, frame.height, "rgba")
            if frame.format.name.startswith("yuva"):
                _clean_alpha(pixels)
            if pixels.shape[:2] != reduced[::-1]:
                pixels = np.array(Image.fromarray(pixels).resize(reduced, Image.Resampling.LANCZOS))
        else:
            pixels = self._pixels(frame, *reduced, "rgb24")
        return Picture(_upright(pixels, frame), max(width, height) / max(reduced))

    def _pixels(self, frame: av.VideoFrame, width: int, height: int, pixel_format: str) -> Pixels:
        matrix, options = self._matrix(frame), dict[str, Any]()
        if frame.color_trc in HDR:
            self._say(f"is {HDR[ColorTrc(frame.color_trc)]}: its colors are brought to sRGB")
            options = {"dst_color_trc": ColorTrc.IEC61966_2_1, "dst_color_primaries": ColorPrimaries.BT709}
        elif frame.color_primaries in WIDE:
            self._say("has the primaries of a wide gamut: its colors are brought to sRGB")
            options = {"dst_color_trc": frame.color_trc, "dst_color_primaries": ColorPrimaries.BT709}
        if (width, height) != (frame.width, frame.height):
            options["interpolation"] = Interpolation.AREA if width < frame.width else Interpolation.BICUBIC
        try:
            made = self._reformatter.reformat(frame, width, height, pixel_format, src_colorspace=matrix, **options)
        except OSError as error:  # swscale knows not all matrices
            raise InputError(
                f"{self.name} has colors that cannot be brought to sRGB here (matrix {int(frame.colorspace)} of H.273: "
                f"{error.strerror}); convert it, to BT.709 say."
            ) from error
        return np.asarray(made.to_ndarray(), np.uint8)

    def _matrix(self, frame: av.VideoFrame) -> Colorspace | None:
        """The matrix of a frame that states none; None where it states one, or needs none."""
        if frame.colorspace != UNSPECIFIED or not frame.format.name.startswith(("yuv", "nv", "p0")):
            return None
        large = frame.height >= HD_LINES or frame.width >= HD_COLUMNS
        guess = "BT.709" if large else "BT.601"
        self._say(f"does not say its color matrix: {guess} is taken, as is usual at {frame.width} x {frame.height}")
        return Colorspace.ITU709 if large else None

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            LOG.info("%s %s", self.name, text)


def _squared(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """The size with square pixels: the side grows that is too short, so that nothing is lost."""
    if abs(aspect - 1) < SQUARE or not 1 / MOST_STRETCHED <= aspect <= MOST_STRETCHED:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def _upright(pixels: Pixels, frame: av.VideoFrame) -> Pixels:
    """The pixels, turned and mirrored as the frame's display matrix says; of its angles, quarter turns count."""
    matrix = _display_matrix(frame)
    if matrix is None:
        return pixels
    (a, b), (c, d) = matrix[:2, :2].tolist()  # a pixel at (x, y) is shown at (a x + c y, b x + d y)
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, right, down = pixels.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    pixels = pixels[:, ::-1] if right < 0 else pixels
    return np.ascontiguousarray(pixels[::-1] if down < 0 else pixels)


def _display_matrix(frame: av.VideoFrame) -> NDArray[np.int32] | None:
    data = cast(SideData | None, frame.side_data.get("DISPLAYMATRIX"))
    return None if data is None else np.frombuffer(bytes(data), np.int32).reshape(3, 3)


def _clean_alpha(pixels: Pixels) -> None:
    """Remove what a lossy codec adds to alpha: faint noise far from the object, which would count as object."""
    alpha = pixels[..., 3]
    alpha[alpha <= ALPHA_NOISE] = 0
    alpha[alpha >= 255 - ALPHA_NOISE] = 255
