"""The frames of a video file. Decoding order tells which comes first; time stamps only how long each is shown."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby, pairwise
from typing import IO, cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig
from ss4d.stages.reading.boxes import check_samples
from ss4d.stages.reading.display import Display, progressive
from ss4d.stages.reading.leaps import Entry, LeapError, Stamped, entries, leap
from ss4d.stages.reading.picture import Bounds, Picture
from ss4d.stages.reading.timeline import Step, Timeline, durations, timeline, too_fast, typical_step

LOG = logging.getLogger("ss4d")
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # the default decoders of both drop alpha
# Others play lists, listen to the network or run scripts; the last line is of sound, to be told so.
FORMATS = (
    *("asf", "avi", "dv", "flv", "gxf", "ivf", "matroska", "mov", "mpeg", "mpegts", "mxf", "nut", "ogg", "wtv"),
    *("av1", "h264", "hevc", "m4v", "mjpeg", "mpegvideo", "obu", "vc1", "vvc", "yuv4mpegpipe"),
    *("aac", "aiff", "flac", "mp3", "wav"),
)
CUT_SHORT = 0.9  # a file whose frames end before this share of its stated length is cut short
AHEAD = 64  # pictures that a decoder may leave out before the next one that it gives
SHOWN_BIT = 0x10  # of a VP8 packet's first byte: set in frames that are shown


@dataclass(frozen=True, eq=False)
class FilmFrames:
    """The frames of a video file.

    Attributes:
        file: open; read from its beginning.
        kind: what its container is, where the file does not tell.
        stamps: of each picture, in the order in which they are shown, in the stream's time base; None if unknown.
        in_order: whether decoded frames are told apart by their order alone, as their own stamps are nonsense.
        entries: where decoding can begin; none where it has to begin with the file.
        damage: what broke off the search for frames; None if nothing did.
        remarks: on what is wrong with its times, for the log.
    """

    file: IO[bytes]
    name: str
    kind: str | None
    line: Timeline
    stamps: Sequence[int | None]
    in_order: bool
    entries: Sequence[Entry]
    damage: str | None
    remarks: Sequence[str]

    def label(self, frame: int) -> str:
        """The frame's number."""
        return f"frame {frame}"

    def read(self, wanted: Sequence[int], bounds: Bounds) -> Iterator[Picture]:
        """The wanted frames, in order; of others only those are decoded that lead to them.

        Raises:
            InputError: the video is damaged before the last of them, or its frames are too large.
        """
        for remark in self.remarks:
            LOG.warning("%s: %s", self.name, remark)
        pictures = [self.line.picture(frame) for frame in wanted]
        given = 0
        if self.entries:
            try:
                for picture in self._leaping(pictures, bounds):
                    yield picture
                    given += 1
                return
            except LeapError:
                pass  # what is left is read without
        yield from self._in_a_row(pictures[given:], bounds)

    @contextmanager
    def _opened(self, bounds: Bounds) -> Iterator[tuple[InputContainer, VideoStream, "_Shown"]]:
        with opened_film(self.file, self.name, self.kind, bounds) as (container, stream):
            bounds.check(self.name, stream.codec_context.width, stream.codec_context.height)
            yield container, stream, _Shown(Display(self.name, _aspect(stream), bounds))

    def _leaping(self, pictures: Sequence[int], bounds: Bounds) -> Iterator[Picture]:
        """The pictures, decoding anew where that can begin; raises LeapError where that cannot be trusted."""
        with self._opened(bounds) as (container, stream, display):
            stamps = [cast(int, self.stamps[picture]) for picture in dict.fromkeys(pictures)]
            frames = leap(container.demux(stream), _decoder(stream), self.entries, stamps)
            for (index, times), frame in zip(groupby(pictures), frames, strict=True):
                for _ in times:
                    yield display.picture(index, frame)

    def _in_a_row(self, pictures: Sequence[int], bounds: Bounds) -> Iterator[Picture]:
        """The pictures, decoding all from the beginning up to the last of them."""
        with self._opened(bounds) as (container, stream, display):
            left = iter(pictures)
            want = next(left, None)
            before: tuple[int, av.VideoFrame] | None = None
            for index, frame in self._pictures(container, stream):
                while want is not None and want <= index:
                    # A picture that the decoder left out: the one before it stays.
                    yield display.picture(*((index, frame) if want == index or before is None else before))
                    want = next(left, None)
                if want is None:
                    return
                before = index, frame
            if before is None:
                raise InputError(f"{self.name} holds no frame that can be decoded; give a whole file.")
            if len(self.stamps) - before[0] > 2:
                LOG.warning("%s: of %d frames %d could be decoded", self.name, len(self.stamps), before[0] + 1)
            while want is not None:
                yield display.picture(*before)
                want = next(left, None)

    def _pictures(self, container: InputContainer, stream: VideoStream) -> Iterator[tuple[int, av.VideoFrame]]:
        """Each decoded frame, and which picture it is."""
        index = -1
        try:
            for frame in progressive(_decoded(container, stream), self.name):
                index = self._index(index + 1, frame.pts)
                yield index, frame
        except av.FFmpegError as error:
            raise InputError(_damage(self.name, index + 1, error)) from error

    def _index(self, following: int, pts: int | None) -> int:
        if self.in_order or pts is None:
            return following
        near = range(following, min(following + AHEAD, len(self.stamps)))
        return next((index for index in near if self.stamps[index] == pts), following)


@dataclass(eq=False)
class _Shown:
    """Makes a frame a picture once, however often in a row it is wanted."""

    display: Display
    _last: tuple[int, Picture] | None = field(default=None)

    def picture(self, index: int, frame: av.VideoFrame) -> Picture:
        if self._last is None or self._last[0] != index:
            self._last = index, self.display.picture(frame)
        return self._last[1]


def film_frames(file: IO[bytes], name: str, config: InputConfig, kind: str | None = None) -> FilmFrames:
    """The frames of a video file; decodes none.

    Args:
        file: open.
        name: of it, for sentences.
        config: what a video has that states no rate, and which stamps are followed.
        kind: what its container is, where the file does not tell.

    Raises:
        InputError: it is no video that can be read, or holds no moving pictures.
    """
    with opened_film(file, name, kind, Bounds(max_pixels=config.max_pixels)) as (container, stream):
        packets, damage = _packets(container, stream, name)
        stamps, in_order = _shown_stamps([packet for packet in packets if packet.shown], stream)
        if not stamps:
            raise InputError(f"{name} holds no frame; give a whole file.")
        base = float(stream.time_base or 1)
        seconds = [None if stamp is None else stamp * base for stamp in stamps]
        step = typical_step(seconds, base)
        remarks = []
        if step is not None and step.seconds < 1 / config.max_rate:
            seconds, rate = [None] * len(stamps), config.fps
            remarks.append(too_fast(1 / step.seconds, config.max_rate))
        else:
            rate = _rate(stream, step, config.fps)
        line = timeline(durations(seconds, 1 / rate), rate, config.max_pause)
        remarks += line.pauses()
        end = max((stamp for stamp in stamps if stamp is not None), default=0) * base + 1 / rate
        stated = _stated_seconds(container, stream)
        if stated and end < CUT_SHORT * stated and damage is None:
            remarks.append(
                f"its {len(stamps)} frames end after {end:.2f} s, and it states {stated:.2f} s: it may be cut short"
            )
        begins = [] if in_order or _has_alpha(stream) else entries(packets, stream.codec_context.name)
        return FilmFrames(file, name, kind, line, stamps, in_order, begins, damage, remarks)


@contextmanager
def opened_film(
    file: IO[bytes], name: str, kind: str | None, bounds: Bounds
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A video file from its beginning, and its stream of moving pictures, of which it decodes none beyond `bounds`.

    Raises:
        InputError: it is no video that can be read, or holds no moving pictures.
    """
    check_samples(file, name)
    limited = {"max_pixels": str(bounds.max_pixels)}
    try:
        # Titles may be in any coding.
        container = av.open(
            file,
            mode="r",
            format=kind,
            metadata_errors="replace",
            options=limited,
            container_options={"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "none"},
        )
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{name} is not a video or an image that can be read; give one, or a folder.") from error
    with container:
        moving = [s for s in container.streams.video if not Disposition(s.disposition) & Disposition.attached_pic]
        if not moving:
            raise InputError(f"{name} holds no video; give a video file or a folder of images.")
        stream = next((s for s in moving if Disposition(s.disposition) & Disposition.default), moving[0])
        if stream.codec_context is None:  # there is no decoder
            raise InputError(f"{name} is coded in a way that cannot be read here; convert it, to H.264 say.")
        stream.codec_context.options = limited
        yield container, stream


def is_raw_mjpeg(file: IO[bytes], size: tuple[int, int], bounds: Bounds) -> bool:
    """Whether a file that begins with a JPEG of this size goes on with others of the same size."""
    try:
        with opened_film(file, "", "mjpeg", bounds) as (container, stream):
            frames = container.decode(stream)
            return all((frame.width, frame.height) == size for frame in (next(frames), next(frames)))
    except (InputError, av.FFmpegError, StopIteration):
        return False


def _packets(container: InputContainer, stream: VideoStream, name: str) -> tuple[list[Stamped], str | None]:
    """The packets in decoding order; and what broke that off."""
    found: list[Stamped] = []
    try:
        for packet in container.demux(stream):
            if packet.size:
                shown = not packet.is_discard and not _is_hidden(packet, stream)
                found.append(Stamped(packet.pts, packet.dts, packet.is_keyframe, shown))
    except av.FFmpegError as error:
        return found, _damage(name, sum(packet.shown for packet in found), error)
    return found, None


def _damage(name: str, count: int, error: av.FFmpegError) -> str:
    too_large = ", perhaps as the next one has more pixels than input.max_pixels"
    why = f"{error.strerror}{too_large if isinstance(error, av.ArgumentError) else ''}"
    return (
        f"{name} is damaged: {count} frames could be read before it broke off ({why}); choose frames before that with "
        "count or end, or give a whole file."
    )


def _is_hidden(packet: "Packet[VideoStream]", stream: VideoStream) -> bool:
    """Whether a packet holds a picture that others are made from, and that is never shown."""
    return stream.codec_context.name == "vp8" and not memoryview(packet)[0] & SHOWN_BIT


def _shown_stamps(packets: Sequence[Stamped], stream: VideoStream) -> tuple[list[int | None], bool]:
    """The stamps in the order in which a decoder gives the pictures; and whether their order alone is to be trusted."""
    stamps = [packet.pts for packet in packets]
    known = [stamp for stamp in stamps if stamp is not None]
    rising = all(a < b for a, b in pairwise(known))
    # A container without stamps of its own (AVI) numbers the packets, which is not the order of B-frames.
    if len(known) < len(stamps) or (rising and stream.codec_context.has_b_frames):
        return stamps, True
    shown: list[int] = []
    begin, last = 0, None
    for index, packet in enumerate(packets):
        if packet.dts is not None and last is not None and packet.dts < last:  # another recording was joined here
            shown += sorted(known[begin:index])
            begin = index
        last = packet.dts if packet.dts is not None else last
    return [*shown, *sorted(known[begin:])], False


def _rate(stream: VideoStream, step: Step | None, fps: float) -> float:
    """Frames per second: as the file states them, if its stamps agree, else as most of its stamps say."""
    stated = [float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate]
    return next(iter(stated), fps) if step is None else step.rate(stated)


def _stated_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """How long the file says that its video is."""
    for key, text in stream.metadata.items():
        if key.upper() == "DURATION":
            try:
                hours, minutes, seconds = map(float, text.split(":"))
            except ValueError:
                continue
            return 3600 * hours + 60 * minutes + seconds
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    alone = len(container.streams) == 1  # else it is the length of the longest stream
    return container.duration / av.time_base if container.duration and alone else None


def _aspect(stream: VideoStream) -> Fraction:
    """Width of a pixel over its height."""
    return stream.sample_aspect_ratio or Fraction(1)


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    decoder = _decoder(stream)
    for packet in container.demux(stream):
        yield from decoder.decode(packet)


def _decoder(stream: VideoStream) -> VideoCodecContext:
    # Not with one thread a frame: that loses the errors of a damaged stream, and with them the frames before it.
    context = stream.codec_context
    if _has_alpha(stream):
        clear = cast(VideoCodecContext, av.CodecContext.create(ALPHA_DECODERS[context.name], "r"))
        clear.options = context.options
        return clear
    return context


def _has_alpha(stream: VideoStream) -> bool:
    """Whether alpha comes beside the colors, coded as a video of its own."""
    said = any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())
    return said and stream.codec_context.name in ALPHA_DECODERS
