"""Videos as players show them: every picture once and in order, upright, of square pixels, progressive, in sRGB."""

import logging
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc

from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig
from ss4d.stages.reading.counts import num_frames
from ss4d.stages.video_io import read_video

WIDTH, HEIGHT, LEVEL = 64, 48, 20
Pixels = np.ndarray


def levels(count: int) -> list[Pixels]:
    """Frames whose brightness tells their number."""
    return [np.full((HEIGHT, WIDTH, 3), 10 + LEVEL * t, np.uint8) for t in range(count)]


def corners() -> Pixels:
    """Red at the top left, green at the top right, blue below."""
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame[: HEIGHT // 2, : WIDTH // 2] = 220, 30, 30
    frame[: HEIGHT // 2, WIDTH // 2 :] = 30, 200, 30
    frame[HEIGHT // 2 :] = 30, 30, 220
    return frame


def encode(
    path: Path,
    frames: Sequence[Pixels],
    codec: str = "libx264",
    *,
    seconds: Sequence[float] | None = None,
    rate: int = 24,
    pix_fmt: str = "yuv420p",
    change: Callable[..., None] | None = None,
    **options: str,
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if change is not None:
            change(stream)
        for t, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
            if seconds is not None:
                frame.pts, frame.time_base = round(seconds[t] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def order(path: Path, **choice: object) -> list[int]:
    video = read_video(path, InputConfig(**choice))
    return [round((float(frame[..., 0].float().mean()) - 10) / LEVEL) for frame in video.frames]


def test_decoding_order_wins_where_a_container_has_no_stamps(tmp_path: Path) -> None:
    """AVI numbers packets, which with B-frames is not the order in which they are shown."""
    path = encode(tmp_path / "a.avi", levels(10), bf="2", preset="medium", **{"x264-params": "b-adapt=0"})
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.has_b_frames
    assert order(path) == list(range(10))
    assert order(path, start=3, step=3) == [3, 6, 9]


def test_recordings_that_were_joined_are_whole(tmp_path: Path) -> None:
    one = encode(tmp_path / "one.ts", levels(6), bf="2").read_bytes()
    (tmp_path / "two.ts").write_bytes(one + one)
    assert order(tmp_path / "two.ts") == [*range(6), *range(6)]
    assert num_frames(tmp_path / "two.ts") == 12


@pytest.mark.parametrize("name", ["a.webm", "a.mkv", "a.mp4"])
def test_the_rate_is_that_of_most_steps(tmp_path: Path, name: str) -> None:
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    seconds = [0, 0.017, *(0.067 + t / 30 for t in range(9))]
    video = read_video(encode(tmp_path / name, levels(11), codec, seconds=seconds, rate=1000), InputConfig())
    assert video.fps == pytest.approx(30, rel=0.02)
    assert order(tmp_path / name) == list(range(11))


@pytest.mark.parametrize("rate", [24000 / 1001, 24, 25, 30000 / 1001, 30, 50, 60000 / 1001, 60])
@pytest.mark.parametrize("name", ["a.webm", "a.mkv"])
def test_stamps_of_milliseconds_tell_the_rate_and_lose_no_picture(tmp_path: Path, name: str, rate: float) -> None:
    """Neither has a rate of its own: these formats round stamps, and a muxer that is told none writes none."""
    codec = "libvpx" if name.endswith("webm") else "libx264"
    for shaken in (0.0, 0.4):  # of a frame's time, as by a camera that is late now and then
        late = shaken * np.random.default_rng(1).random(12)
        seconds = [(t + late[t] + 1) / rate for t in range(12)]
        video = read_video(encode(tmp_path / name, levels(12), codec, seconds=seconds, rate=1000), InputConfig())
        assert video.fps == pytest.approx(rate, rel=0.05 if shaken else 0.005)
        assert sorted(set(order(tmp_path / name))) == list(range(12))
        assert len(video.frames) == 12 if not shaken else 12 <= len(video.frames) <= 13


def test_what_is_recorded_of_a_screen_keeps_its_time(tmp_path: Path) -> None:
    seconds = [0, 0.008, 0.1, 0.2, 0.3, 0.4, 0.408, 0.5, 0.9, 1.0]
    video = read_video(encode(tmp_path / "a.mkv", levels(10), seconds=seconds, rate=1000), InputConfig())
    assert video.fps == pytest.approx(10, rel=0.03)
    assert len(video.frames) == 11
    assert order(tmp_path / "a.mkv")[-3:] == [7, 8, 9]


def test_a_pause_is_shortened_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seconds = [0, 0.1, 0.2, 0.3, 600.3, 600.4]
    path = encode(tmp_path / "a.mkv", levels(6), seconds=seconds, rate=1000)
    shown = order(path)
    assert len(shown) == num_frames(path) == 3 + 50 + 2
    assert sorted(set(shown)) == list(range(6))
    assert "nothing comes for 600 s after frame 3; the pause is shortened to 5 s (input.max_pause)" in caplog.text
    assert len(order(path, max_pause=0.5)) == 3 + 5 + 2
    assert len(order(path, max_pause=100.0)) == 3 + 1000 + 2


def test_stamps_that_tell_more_than_the_highest_rate_are_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = encode(tmp_path / "a.mkv", levels(6), seconds=[t / 100 for t in range(6)], rate=1000)
    assert read_video(path, InputConfig()).fps == pytest.approx(100)
    assert read_video(path, InputConfig(max_rate=50.0, fps=30.0)).fps == 30
    assert "tell 100 frames per second, more than the 50 of input.max_rate" in caplog.text


def test_what_an_edit_list_cuts_off_is_not_announced(tmp_path: Path) -> None:
    whole = encode(tmp_path / "a.mp4", levels(10), bf="0", g="1")
    data = whole.read_bytes()
    at = data.index(b"elst")  # version and flags, one entry: duration in milliseconds, first sample's time
    with av.open(str(whole)) as container:
        base = container.streams.video[0].time_base
    entry = (250).to_bytes(4, "big") + round(Fraction(4, 24) / base).to_bytes(4, "big")
    (tmp_path / "cut.mp4").write_bytes(data[: at + 12] + entry + data[at + 20 :])
    shown = order(tmp_path / "cut.mp4")
    assert len(shown) == num_frames(tmp_path / "cut.mp4")
    assert shown == [4, 5, 6, 7, 8, 9]


def test_a_file_that_is_cut_short_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, HEIGHT, WIDTH, 3), dtype=np.uint8)
    path = encode(tmp_path / "a.mkv", list(noise), g="1")
    data = path.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    count = len(read_video(tmp_path / "cut.mkv", InputConfig()).frames)
    assert 5 < count < 20
    assert f"its {count} frames end after" in caplog.text
    assert "states 1.00 s: it may be cut short" in caplog.text
    caplog.clear()
    read_video(path, InputConfig())
    assert "cut short" not in caplog.text


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
@pytest.mark.parametrize("turn", [0, 90, 180, 270, "mirrored", "flipped"])
def test_the_whole_display_matrix_counts(tmp_path: Path, name: str, turn: int | str) -> None:
    def change(stream: av.VideoStream) -> None:
        angle = turn if isinstance(turn, int) else 0
        stream.set_display_rotation(angle, hflip=turn == "mirrored", vflip=turn == "flipped")

    path = encode(tmp_path / name, [corners()] * 2, change=change)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    stored = frame.to_ndarray(format="rgb24").astype(int)
    match turn:
        case "mirrored":
            wanted = stored[:, ::-1]
        case "flipped":
            wanted = stored[::-1]
        case _:
            wanted = np.rot90(stored, round(frame.rotation / 90))
    shown = read_video(path, InputConfig()).frames[0].numpy()
    assert shown.shape == wanted.shape
    assert np.abs(shown - wanted).mean() < 2


@pytest.mark.parametrize(("aspect", "shape"), [((2, 1), (48, 128)), ((1, 2), (96, 64)), ((64, 45), (48, 91))])
def test_pixels_are_square(tmp_path: Path, aspect: tuple[int, int], shape: tuple[int, int]) -> None:
    def change(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(*aspect)

    path = encode(tmp_path / "a.mp4", [corners()] * 2, change=change)
    assert tuple(read_video(path, InputConfig()).frames.shape[1:3]) == shape


def test_interlaced_frames_are_not_combed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = []
    for t in range(8):
        frame = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        for parity in (0, 1):
            x = 6 * t + 3 * parity
            frame[parity::2, x : x + 14] = 220
        frames.append(frame)
    path = encode(tmp_path / "a.mp4", frames, flags="+ildct+ilme", **{"x264-params": "tff=1"})
    with caplog.at_level(logging.INFO, logger="ss4d"):
        shown = read_video(path, InputConfig()).frames[..., 0].float()
    assert len(shown) == 8
    assert "is interlaced" in caplog.text
    adjacent = (shown[:, 1:] - shown[:, :-1]).abs().mean()
    assert adjacent < 0.25 * float(np.abs(np.diff(np.stack(frames)[..., 0].astype(float), axis=1)).mean())


def test_interlaced_frames_keep_their_time(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", levels(12), flags="+ildct+ilme", **{"x264-params": "tff=1"})
    assert order(path) == list(range(12))


def hdr_levels(trc: ColorTrc) -> tuple[float, float]:
    """The signal, 0 to 1, of diffuse white (203 cd/m2) and of a fifth of it."""
    if trc == ColorTrc.SMPTE2084:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128

        def signal(nits: float) -> float:
            y = (nits / 10000) ** m1
            return ((c1 + c2 * y) / (1 + c3 * y)) ** m2

        return signal(203), signal(203 / 5)
    return 0.75, 0.458  # ITU-R BT.2408


@pytest.mark.parametrize("trc", [ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67])
def test_hdr_is_brought_to_srgb(tmp_path: Path, caplog: pytest.LogCaptureFixture, trc: ColorTrc) -> None:
    def change(stream: av.VideoStream) -> None:
        context = stream.codec_context
        context.colorspace, context.color_trc, context.color_primaries = 9, trc, ColorPrimaries.BT2020

    white, gray = (round(64 + 876 * level) for level in hdr_levels(trc))
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p10le"
        change(stream)
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p10le")
        for plane, level in zip(frame.planes, (white, 512, 512), strict=True):
            data = np.full(plane.buffer_size // 2, level, np.uint16)
            if level == white:
                data[len(data) // 2 :] = gray
            plane.update(data.tobytes())
        container.mux([*stream.encode(frame), *stream.encode()])
    with caplog.at_level(logging.INFO, logger="ss4d"):
        pixels = read_video(tmp_path / "a.mp4", InputConfig()).frames[0]
    assert "its colors are brought to sRGB" in caplog.text
    assert pixels[4, 4].min() > 225  # white as bright as white is
    assert (pixels[40, 4].float() - 124).abs().max() < 25  # a fifth of it, in sRGB
    assert pixels[..., 0].eq(pixels[..., 1]).all()


@pytest.mark.parametrize(("size", "matrix"), [((1280, 720), Colorspace.ITU709), ((64, 48), Colorspace.ITU601)])
def test_the_matrix_of_an_untagged_video_is_guessed_by_its_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: tuple[int, int], matrix: Colorspace
) -> None:
    color = np.zeros((size[1], size[0], 3), np.uint8) + np.uint8([30, 200, 60])
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "5", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        frame = av.VideoFrame.from_ndarray(color, format="rgb24").reformat(format="yuv420p", dst_colorspace=matrix)
        frame.colorspace = 2
        container.mux([*stream.encode(frame), *stream.encode()])
    with caplog.at_level(logging.INFO, logger="ss4d"):
        shown = read_video(tmp_path / "a.mp4", InputConfig()).frames[0, 20, 20]
    assert (shown.int() - torch.tensor([30, 200, 60])).abs().max() <= 4
    assert "does not say its color matrix" in caplog.text


def test_the_cover_of_music_is_no_video(tmp_path: Path) -> None:
    if "libmp3lame" not in av.codecs_available:
        pytest.skip("PyAV is built without libmp3lame")
    with av.open(str(tmp_path / "a.mp3"), "w") as container:
        sound = container.add_stream("libmp3lame", rate=44100, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        image = av.VideoFrame.from_ndarray(corners(), format="rgb24").reformat(format="yuvj420p")
        container.mux([*cover.encode(image), *cover.encode()])
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux([*sound.encode(frame), *sound.encode()])
    with pytest.raises(InputError, match="holds no video"):
        read_video(tmp_path / "a.mp3", InputConfig())


def test_of_two_streams_the_default_one_is_the_clip(tmp_path: Path) -> None:
    for preferred in (0, 1):
        with av.open(str(tmp_path / "a.mkv"), "w") as container:
            streams = []
            for index, side in enumerate((32, 64)):
                stream = container.add_stream("libx264", rate=24)
                stream.width = stream.height = side
                stream.pix_fmt = "yuv420p"
                default, none = av.stream.Disposition.default, av.stream.Disposition(0)
                stream.disposition = default if index == preferred else none
                streams.append(stream)
            for stream in streams:
                image = np.full((stream.height, stream.width, 3), 90, np.uint8)
                container.mux([*stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")), *stream.encode()])
        assert read_video(tmp_path / "a.mkv", InputConfig()).frames.shape[1] == (32, 64)[preferred]


def test_colors_that_cannot_be_converted_are_a_sentence(tmp_path: Path) -> None:
    def change(stream: av.VideoStream) -> None:
        stream.codec_context.colorspace = 8  # YCgCo

    with pytest.raises(InputError, match=r"cannot be brought to sRGB here \(matrix 8 of H.273"):
        read_video(encode(tmp_path / "a.mp4", [corners()] * 2, pix_fmt="yuv444p", change=change), InputConfig())


def test_a_title_in_another_coding_is_no_matter(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", levels(3), change=lambda stream: stream.container.metadata.update(title="TITLE"))
    assert path.read_bytes().count(b"TITLE") == 1
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"T\xe9\xff\xa4E"))
    assert order(path) == [0, 1, 2]


def test_a_film_without_a_frame_is_refused(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.webm", levels(2), "libvpx-vp9").read_bytes()
    first_cluster = whole.index(bytes.fromhex("1f43b675"))
    (tmp_path / "empty.webm").write_bytes(whole[: first_cluster + 12])
    for read in (lambda path: read_video(path, InputConfig()), num_frames):
        with pytest.raises(InputError, match=r"empty\.webm holds no frame"):
            read(tmp_path / "empty.webm")


def test_a_coding_without_a_decoder_is_told_so(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", [corners()] * 3)
    data = path.read_bytes()
    assert b"avc1" in data
    path.write_bytes(data.replace(b"avc1", b"zzz1"))
    with pytest.raises(InputError, match="is coded in a way that cannot be read here"):
        read_video(path, InputConfig())
