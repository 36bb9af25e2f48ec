"""Decoding only what leads to the frames of a video that are wanted: it begins anew before each, where it can.

The file is read from its beginning to its end as ever, so that each packet is known by its number and none by its time
alone; packets that lead to nothing that is wanted are dropped undecoded.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.stream import VideoStream

# What begins anew at a key frame: the pictures that are shown after it need none that are decoded before it.
REFRESHED = {"av1", "dnxhd", "ffv1", "h264", "hevc", "mjpeg", "mpeg2video", "mpeg4", "png", "prores", "vp8", "vp9"}


@dataclass(frozen=True)
class Stamped:
    """A packet of a video: what its container says of it.

    Attributes:
        shown: whether its picture is.
    """

    pts: int | None
    dts: int | None
    is_key: bool
    shown: bool


@dataclass(frozen=True)
class Entry:
    """Where decoding can begin: the number of a packet, and the stamp of its picture."""

    number: int
    stamp: int


class LeapError(Exception):
    """What came was not what should come there: the video is to be decoded from its beginning."""


def entries(packets: Sequence[Stamped], codec: str) -> list[Entry]:
    """Where decoding a video can begin, in order; none where stamps or codec do not allow to tell.

    At each all pictures that are shown later are decoded later. Those that are decoded after it and shown before it may
    need what is decoded before it, and belong to the entry before.
    """
    stamps = [packet.pts for packet in packets]
    decoded = [packet.dts for packet in packets if packet.dts is not None]
    told_apart = None not in stamps and len(set(stamps)) == len(stamps)
    if codec not in REFRESHED or not told_apart or any(a >= b for a, b in pairwise(decoded)):
        return []
    found: list[Entry] = []
    latest: int | None = None
    for number, packet in enumerate(packets):
        assert packet.pts is not None
        if packet.is_key and (latest is None or packet.pts > latest):
            found.append(Entry(number, packet.pts))
        latest = packet.pts if latest is None else max(latest, packet.pts)
    return found


def leap(
    packets: Iterable["Packet[VideoStream]"], decoder: VideoCodecContext, known: Sequence[Entry], stamps: Sequence[int]
) -> Iterator[av.VideoFrame]:
    """The frame of each wanted stamp, as decoding everything would give it.

    Args:
        packets: all of the video, from the first on.
        decoder: that has decoded nothing yet.
        known: from `entries`.
        stamps: of what is wanted, rising.

    Raises:
        LeapError: one of them is not where it should be, or needs others around it.
    """
    feed = _Feed(packets, decoder)
    for stamp in stamps:
        place = bisect_right(known, stamp, key=lambda entry: entry.stamp) - 1
        if place < 0:
            raise LeapError
        feed.leap_to(known[place])
        frame = feed.frame()
        while frame.pts is not None and frame.pts < stamp:
            frame = feed.frame()
        if frame.pts != stamp:
            raise LeapError
        yield frame


class _Feed:
    """Gives packets to a decoder, and takes its frames."""

    def __init__(self, packets: Iterable["Packet[VideoStream]"], decoder: VideoCodecContext) -> None:
        self._packets = iter(packets)
        self._decoder = decoder
        self._number = 0  # of the next packet
        self._decoded: deque[av.VideoFrame] = deque()
        self._expected: int | None = None  # the stamp of the next frame, right after a leap

    def leap_to(self, entry: Entry) -> None:
        """Go on at an entry, unless that has been passed."""
        if self._number >= entry.number:
            return
        self._decoder.flush_buffers()
        self._decoded.clear()
        while self._number < entry.number:
            self._next_packet()
        self._expected = entry.stamp

    def frame(self) -> av.VideoFrame:
        """The next frame in the order in which they are shown."""
        while not self._decoded:
            try:
                self._decoded.extend(self._decoder.decode(self._next_packet()))
            except av.FFmpegError as error:
                raise LeapError from error
        frame = self._decoded.popleft()
        if self._expected is not None:
            # A container may call a frame a key that is none, or one that only begins to mend the picture.
            if frame.pts != self._expected or not frame.key_frame or frame.pict_type != PictureType.I:
                raise LeapError
            self._expected = None
        if frame.interlaced_frame:  # it is made whole of its neighbors too
            raise LeapError
        return frame

    def _next_packet(self) -> "Packet[VideoStream]":
        try:
            packet = next(self._packets, None)
        except av.FFmpegError as error:
            raise LeapError from error
        if packet is None:
            raise LeapError
        self._number += 1
        return packet
