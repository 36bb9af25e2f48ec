"""Frames far apart in a video are those that decoding all of it gives, to the bit, and the rest stays undecoded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from av.video.codeccontext import VideoCodecContext

from ss4d.stages.input_files import InputConfig
from ss4d.stages.reading import films
from ss4d.stages.video_io import read_video
from tests.stages.reading.test_films import encode

COUNT = 60
NO_B = {"x265-params": "log-level=none:keyint=12:min-keyint=12:bframes=0"}
OPEN = {"x265-params": "log-level=none:keyint=12:min-keyint=12:bframes=3:b-adapt=0:open-gop=1:scenecut=0"}
UNEVEN = [t / 20 + 0.01 * (t % 2) for t in range(COUNT)]
B_FRAMES = {"bf": "3", "g": "12", "x264-params": "b-adapt=0:scenecut=0"}


def moving(count: int = COUNT) -> list[np.ndarray]:
    """A disc that crosses a texture; every frame depends on those before it."""
    noise = np.random.default_rng(0).integers(60, 120, (48, 64, 3), np.uint8)
    rows, columns = np.mgrid[:48, :64]
    frames = []
    for t in range(count):
        frame = np.roll(noise, t, 1)
        frame[(rows - 24) ** 2 + (columns - 4 - t) ** 2 < 100] = 220, 40 + 3 * t, 60
        frames.append(frame)
    return frames


FILMS: dict[str, tuple[str, dict[str, Any]]] = {
    "h264 with B-frames.mp4": ("libx264", B_FRAMES),
    "h264 with B-frames.ts": ("libx264", B_FRAMES),
    "h264 with open groups.mkv": ("libx264", {**B_FRAMES, "x264-params": "b-adapt=0:scenecut=0:open-gop=1"}),
    "h264 at a changing rate.mp4": (
        "libx264",
        {**B_FRAMES, "seconds": UNEVEN, "rate": 1000},
    ),
    "hevc with open groups.mp4": ("libx265", OPEN),
    "hevc.mkv": ("libx265", NO_B),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "lag-in-frames": "10", "auto-alt-ref": "1", "deadline": "realtime"}),
    "vp8.webm": ("libvpx", {"g": "12", "lag-in-frames": "10", "auto-alt-ref": "1", "deadline": "realtime"}),
    "mpeg4.avi": ("mpeg4", {"g": "12"}),
    "mpeg4 with B-frames.mp4": ("mpeg4", {"g": "12", "bf": "2"}),
    "mpeg2.ts": ("mpeg2video", {"g": "12", "bf": "2"}),
    "mjpeg.avi": ("mjpeg", {"pix_fmt": "yuvj420p"}),
    "prores.mov": ("prores_ks", {"pix_fmt": "yuv422p10le"}),
}
PLAIN = {
    "h264 that mends itself bit by bit.mp4": ("libx264", {"x264-params": "keyint=12:intra-refresh=1"}),
    "h264 with B-frames.avi": ("libx264", B_FRAMES),
    "interlaced.mp4": ("libx264", {**B_FRAMES, "flags": "+ildct+ilme", "x264-params": "tff=1"}),
}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many packets each decoder was given."""
    given: list[int] = []

    class Counting:
        def __init__(self, context: VideoCodecContext) -> None:
            self._context = context
            given.append(0)

        def decode(self, packet: Any) -> Any:
            given[-1] += 1
            return self._context.decode(packet)

        def flush_buffers(self) -> None:
            self._context.flush_buffers()

    made = films._decoder
    monkeypatch.setattr(films, "_decoder", lambda stream: Counting(made(stream)))
    return given


def written(folder: Path, name: str) -> Path:
    codec, options = (FILMS | PLAIN)[name]
    return encode(folder / name, moving(), codec, **options)


@pytest.mark.parametrize("name", [*FILMS, *PLAIN])
def test_frames_apart_are_those_of_decoding_all(
    tmp_path: Path, name: str, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, name)
    with monkeypatch.context() as patch:
        patch.setattr(films, "entries", lambda *_: [])
        every = read_video(path, InputConfig())
    assert len(every.frames) >= COUNT
    del decoded[:]
    for choice in ({"frames": 4}, {"step": 7}, {"start": 23, "count": 2}, {"start": 11, "step": 13}, {"start": 59}):
        config = InputConfig(**choice)
        some = read_video(path, config)
        chosen = config.indices(len(every.frames), every.fps)
        assert torch.equal(some.frames, every.frames[list(chosen)]), choice
    if name in FILMS:
        assert len(decoded) == 5  # once for each choice, and never from the beginning again
        assert decoded[-1] < 20
    else:
        assert decoded[-1] >= COUNT


@pytest.mark.parametrize("leaping", [True, False])
def test_frames_after_the_last_that_is_used_are_not_decoded(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch, leaping: bool
) -> None:
    path = encode(tmp_path / "a.mp4", moving(10), bf="0")
    if not leaping:
        monkeypatch.setattr(films, "entries", lambda *_: [])
    assert len(read_video(path, InputConfig(end=4)).frames) == 4
    assert decoded == [4]
