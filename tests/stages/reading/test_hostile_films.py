"""Files that a few bytes of would cost gigabytes, or that are no film but orders to open one elsewhere."""

import io
import os
import socket
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig
from ss4d.stages.reading.counts import num_frames
from ss4d.stages.video_io import read_video


def mpeg4(path: Path, **options: str) -> bytearray:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for t in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * t, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return bytearray(path.read_bytes())


def put(data: bytearray, box: bytes, offset: int, value: int) -> None:
    at = data.index(box) + offset
    data[at : at + 4] = value.to_bytes(4, "big")


@pytest.mark.parametrize("fragmented", [False, True])
def test_more_samples_than_bytes_are_refused(tmp_path: Path, fragmented: bool) -> None:
    """FFmpeg makes a table of as many as a film declares, 24 bytes for each."""
    path = tmp_path / "a.mp4"
    data = mpeg4(path, movflags="frag_keyframe+empty_moov") if fragmented else mpeg4(path)
    assert num_frames(path) == 3
    if fragmented:
        put(data, b"trun", 4, 1)
        put(data, b"trun", 8, 10_000)
    else:
        put(data, b"stsz", 8, 1)
        put(data, b"stsz", 12, 10_000)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a.mp4 declares 10,0\d\d samples in [\d,]+ bytes"):
        num_frames(path)


def test_boxes_that_make_no_sense_end(tmp_path: Path) -> None:
    data = mpeg4(tmp_path / "a.mp4")
    for length in (0, 1, 7, 8, 2**32 - 1):
        put(data, b"moov", -4, length)
        (tmp_path / "a.mp4").write_bytes(data)
        try:
            num_frames(tmp_path / "a.mp4")
        except InputError:
            continue


def test_a_frame_that_is_larger_than_those_before_is_not_decoded(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream("png", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for t, size in enumerate([(64, 48), (64, 48), (400, 300), (64, 48)]):
            picture = io.BytesIO()
            Image.new("RGB", size).save(picture, "PNG")
            packet = av.Packet(picture.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, t, t, Fraction(1, 24)
            container.mux(packet)
    with pytest.raises(InputError, match=r"2 frames could be read .* more pixels than input.max_pixels"):
        read_video(tmp_path / "a.mov", InputConfig(max_pixels=100_000))
    assert len(read_video(tmp_path / "a.mov", InputConfig(max_pixels=100_000, end=2)).frames) == 2


@pytest.mark.parametrize(
    "text",
    [
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "ffconcat version 1.0\nfile other.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10.0,\nother.mp4\n#EXT-X-ENDLIST\n",
    ],
    ids=["sdp", "concat", "hls"],
)
def test_what_names_other_files_or_addresses_is_no_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """FFmpeg would listen at the address, or open the file that lies where the command runs."""
    mpeg4(tmp_path / "other.mp4")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    Path("list").write_text(text.format(port=port))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(InputError, match="list is not a video or an image that can be read"):
        read_video(tmp_path / "list", InputConfig())
    assert len(os.listdir("/proc/self/fd")) == len(before)
