"""Reading: every kind of input the project takes, made here at small size; and each mistake a user can make."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig, input_digest
from ss4d.stages.reading.counts import num_frames
from ss4d.stages.video_io import read_frames, read_video, write_video
from tests.helpers.written_clips import SIZE, encode, levels, rgba_frames, save_folder


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "has_alpha"),
    [
        ("h264.mp4", "libx264", "yuv420p", False),
        ("vp9.webm", "libvpx-vp9", "yuva420p", True),
        ("prores.mov", "prores_ks", "yuva444p10le", True),
        ("png.mov", "png", "rgba", True),
        ("rle.mov", "qtrle", "argb", True),
    ],
)
def test_video_codecs(tmp_path: Path, name: str, codec: str, pix_fmt: str, has_alpha: bool) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV is built without {codec}")
    video = read_video(encode(tmp_path / name, codec, pix_fmt), InputConfig())
    assert video.frames.shape == (6, SIZE, SIZE, 4 if has_alpha else 3)
    assert levels(video.frames) == [0, 1, 2, 3, 4, 5]
    assert video.fps == pytest.approx(10)
    if has_alpha:
        alpha = video.frames[..., 3].int()
        assert alpha[:, :10].max() == 0  # or the crop would reach for a codec's noise
        assert (alpha[:, 24, 32] - 128).abs().max() <= 2
        assert alpha[:, 40, 32].min() >= 254


@pytest.mark.parametrize("name", ["a.webp", "a.gif", "a.apng", "still.png"])
def test_animated_images(tmp_path: Path, name: str) -> None:
    images = [Image.fromarray(frame) for frame in rgba_frames()]
    rest = {} if name == "still.png" else {"save_all": True, "append_images": images[1:], "duration": 100, "loop": 0}
    lossless = {"lossless": True} if name.endswith("webp") else {}
    images[0].save(tmp_path / name, **rest, **lossless)
    video = read_video(tmp_path / name, InputConfig())
    assert levels(video.frames) == ([0] if name == "still.png" else [0, 1, 2, 3, 4, 5])
    assert video.fps == pytest.approx(24 if name == "still.png" else 10)
    assert (video.frames[:, 4, 4, 3] == 0).all()
    assert (video.frames[:, 40, 32, 3] == 255).all()


def test_frames_are_taken_by_time_stamp(tmp_path: Path) -> None:
    video = read_video(encode(tmp_path / "vfr.mkv", "libx264", "yuv420p", [0, 100, 200, 400, 500, 600]), InputConfig())
    shown = levels(video.frames)
    assert shown == sorted(shown)
    assert {0, 5} <= set(shown)
    seconds = len(shown) / video.fps
    assert seconds == pytest.approx(0.7, abs=0.15)


def test_frames_are_counted_without_decoding(tmp_path: Path) -> None:
    """As many as reading gives."""
    inputs = [
        encode(tmp_path / "even.mp4", "libx264", "yuv420p"),
        encode(tmp_path / "uneven.mkv", "libx264", "yuv420p", times=[0, 100, 200, 600, 700, 800]),
        encode(tmp_path / "alpha.webm", "libvpx-vp9", "yuva420p"),
        save_folder(tmp_path / "folder", 3),
        tmp_path / "still.png",
        tmp_path / "moving.gif",
    ]
    frames = [Image.fromarray(pixels[..., :3]) for pixels in rgba_frames()]
    frames[0].save(inputs[4])
    frames[0].save(inputs[5], save_all=True, append_images=frames[1:], duration=100)
    counts = [num_frames(path) for path in inputs]
    assert counts == [len(read_video(path, InputConfig()).frames) for path in inputs]
    assert counts == [6, 9, 6, 3, 1, 6]
    with pytest.raises(InputError, match="does not exist"):
        num_frames(tmp_path / "none.mp4")


def test_quarter_turn_is_applied(tmp_path: Path) -> None:
    frames = torch.zeros(2, 32, 64, 3, dtype=torch.uint8)
    frames[:, :, :16] = 255  # white on the left
    write_video(tmp_path / "a.mp4", frames, 10)
    data = (tmp_path / "a.mp4").read_bytes()
    one, minus, w = (
        (1 << 16).to_bytes(4, "big"),
        (-(1 << 16) % (1 << 32)).to_bytes(4, "big"),
        (1 << 30).to_bytes(4, "big"),
    )
    zero = bytes(4)
    upright = b"".join([one, zero, zero, zero, one, zero, zero, zero, w])
    clockwise = b"".join([zero, one, zero, minus, zero, zero, zero, zero, w])
    track = data.index(b"tkhd")
    (tmp_path / "turned.mp4").write_bytes(data[:track] + data[track:].replace(upright, clockwise, 1))
    video = read_video(tmp_path / "turned.mp4", InputConfig())
    assert video.frames.shape == (2, 64, 32, 3)
    assert video.frames[:, :8].min() > 200  # what was left is now on top
    assert video.frames[:, 32:].max() < 50


def test_folder_is_in_natural_order_and_start_step_count_choose(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "frames")
    (folder / ".hidden.png").write_text("not an image")
    (folder / "notes.txt").write_text("not an image")
    video = read_video(folder, InputConfig())
    assert video.frames[:, 0, 0, 0].tolist() == list(range(11))
    assert video.fps == 24
    video = read_video(folder, InputConfig(start=3, step=2, count=3, fps=10.0))
    assert video.frames[:, 0, 0, 0].tolist() == [3, 5, 7]
    assert video.fps == 5


def test_frames_are_taken_evenly_over_the_whole_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save_folder(tmp_path / "frames")

    def read(**choice: Any) -> tuple[list[int], float]:
        video = read_video(folder, InputConfig(fps=10.0, **choice))
        return video.frames[:, 0, 0, 0].tolist(), video.fps

    with caplog.at_level(logging.INFO, logger="ss4d"):
        assert read(frames=11) == (list(range(11)), 10)
        assert read(frames=30, step=2) == ([0, 2, 4, 6, 8, 10], 5)
        assert caplog.messages == []
        assert read(frames=4) == ([0, 2, 5, 8], pytest.approx(10 * 4 / 11))
        assert read(frames=2, start=1, step=2, count=4) == ([1, 5], pytest.approx(2.5))
        assert read(frames=1) == ([0], pytest.approx(10 / 11))
    assert caplog.messages == [
        "4 of 11 frames, one every 0.28 s",
        "2 of 4 frames, one every 0.40 s",
        "1 of 11 frames, one every 1.10 s",
    ]


@pytest.mark.parametrize("name", ["even.mp4", "moving.gif"])
def test_frames_of_a_film_are_spread_too(tmp_path: Path, name: str) -> None:
    film = tmp_path / name
    if name.endswith("mp4"):
        encode(film, "libx264", "yuv420p")
    else:
        frames = [Image.fromarray(pixels[..., :3]) for pixels in rgba_frames()]
        frames[0].save(film, save_all=True, append_images=frames[1:], duration=100)
    whole, some = (read_video(film, InputConfig(frames=most)) for most in (None, 3))
    assert torch.equal(some.frames, whole.frames[[0, 2, 4]])
    assert some.fps == pytest.approx(whole.fps / 2)


def save_gray_16(path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40 * 256 + 7, np.uint16)).save(path)


def save_palette(path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    image.save(path, transparency=0)


@pytest.mark.parametrize(
    ("name", "save", "expected"),
    [
        ("gray16.png", save_gray_16, [40, 40, 40]),
        ("gray.png", lambda p: Image.new("L", (4, 4), 40).save(p), [40, 40, 40]),
        ("gray_alpha.png", lambda p: Image.new("LA", (4, 4), (40, 9)).save(p), [40, 40, 40, 9]),
        ("palette.png", save_palette, [10, 20, 30, 255]),
        ("bits.png", lambda p: Image.new("1", (4, 4), 1).save(p), [255, 255, 255]),
        ("cmyk.tif", lambda p: Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(p), [255, 0, 0]),
    ],
)
def test_pixel_types(tmp_path: Path, name: str, save: Callable[[Path], None], expected: list[int]) -> None:
    save(tmp_path / name)
    assert read_video(tmp_path / name, InputConfig()).frames[0, 1, 1].tolist() == expected


def test_frames_without_alpha_among_others_are_opaque(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "0.png")
    Image.new("RGBA", (4, 4), (4, 5, 6, 7)).save(tmp_path / "1.png")
    assert read_video(tmp_path, InputConfig()).frames[:, 0, 0].tolist() == [[1, 2, 3, 255], [4, 5, 6, 7]]
    assert "0.png without alpha, unlike the other frames" in caplog.text


def test_colors_that_alpha_is_multiplied_into_are_restored(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (50, 25, 0, 128)).save(tmp_path / "a.png")
    pixel = read_video(tmp_path / "a.png", InputConfig(premultiplied=True)).frames[0, 0, 0].tolist()
    assert pixel == [100, 50, 0, 128]
    assert read_video(tmp_path / "a.png", InputConfig()).frames[0, 0, 0].tolist() == [50, 25, 0, 128]


def test_upside_down_photograph_is_turned(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4))
    image.putpixel((0, 0), (255, 0, 0))
    exif = image.getexif()
    exif[0x0112] = 3
    image.save(tmp_path / "a.png", exif=exif)
    assert read_video(tmp_path / "a.png", InputConfig()).frames[0, 3, 7].tolist() == [255, 0, 0]


def make_truncated(path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    write_video(path, torch.randint(0, 256, (12, 64, 64, 3), dtype=torch.uint8, generator=generator), 24)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def make_mixed(path: Path) -> None:
    save_folder(path)
    Image.new("RGB", (9, 6)).save(path / "10.png")


def make_audio(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))


def make_animation_in_folder(path: Path) -> None:
    save_folder(path)
    Image.new("L", (8, 6)).save(path / "11.gif", save_all=True, append_images=[Image.new("L", (8, 6), 9)])


def make_damaged_image(path: Path) -> None:
    save_folder(path)
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path / "0.png")
    (path / "0.png").write_bytes((path / "0.png").read_bytes()[:5000])


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("missing.mp4", lambda p: None, "does not exist"),
        ("text.mp4", lambda p: p.write_text("hello\n" * 99), "is not a video or an image"),
        ("empty.mp4", lambda p: p.touch(), "is not a video or an image"),
        ("sound.wav", make_audio, "holds no video"),
        ("empty", lambda p: p.mkdir(), "is an empty folder"),
        ("texts", lambda p: (p.mkdir(), (p / "a.txt").touch()), "holds no image among its 1 entries"),
        ("mixed", make_mixed, r"0.png is 8 x 6 pixels, 10.png is 9 x 6"),
        ("animated", make_animation_in_folder, r"11.gif is animated"),
        ("damaged", make_damaged_image, r"0.png is damaged"),
        ("cut.mp4", make_truncated, r"is damaged: \d+ frames could be read"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, name: str, make: Callable[[Path], object], sentence: str) -> None:
    make(tmp_path / name)
    with pytest.raises(InputError, match=sentence) as caught:
        read_video(tmp_path / name, InputConfig())
    assert str(tmp_path / name) in str(caught.value)


def test_frames_before_the_damage_can_be_used(tmp_path: Path) -> None:
    make_truncated(tmp_path / "cut.mp4")
    assert len(read_video(tmp_path / "cut.mp4", InputConfig(count=3)).frames) == 3


def test_start_beyond_the_end(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 11 frames, so input\.start cannot be 11; choose at most 10"):
        read_video(save_folder(tmp_path / "frames"), InputConfig(start=11))


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.mp4").touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="cannot be read \\(Permission denied\\)"):
        read_video(tmp_path / "a.mp4", InputConfig())


def test_frames_over_the_memory_bound_are_refused(tmp_path: Path) -> None:
    folder, memory = save_folder(tmp_path / "frames"), 8 * 6 * 3 * 5 / 2**30
    with pytest.raises(InputError, match=r"has 11 frames to be used.* of input.memory; choose fewer.*frames=5"):
        read_video(folder, InputConfig(memory=memory))
    assert len(read_video(folder, InputConfig(memory=memory, frames=5)).frames) == 5


@pytest.mark.parametrize("name", ["still.png", "moving.gif", "film.mp4"])
def test_pictures_over_the_pixel_bound_are_refused(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(pixels[..., :3]) for pixels in rgba_frames()]
    if name.endswith("mp4"):
        encode(tmp_path / name, "libx264", "yuv420p")
    else:
        frames[0].save(tmp_path / name, **({"save_all": True, "append_images": frames[1:]} if "gif" in name else {}))
    with pytest.raises(InputError, match=r"64 x 64 pixels, more than the 4,095 of input.max_pixels"):
        read_video(tmp_path / name, InputConfig(max_pixels=SIZE * SIZE - 1))
    assert len(read_video(tmp_path / name, InputConfig(max_pixels=SIZE * SIZE)).frames)


@pytest.mark.parametrize("name", ["folder", "film.mp4", "alpha.webm"])
def test_large_frames_are_reduced_while_they_are_read(tmp_path: Path, name: str) -> None:
    if name == "folder":
        (tmp_path / name).mkdir()
        for t, pixels in enumerate(rgba_frames()):
            Image.fromarray(pixels[..., :3]).save(tmp_path / name / f"{t}.jpg")
    else:
        encode(tmp_path / name, *(("libx264", "yuv420p") if name.endswith("mp4") else ("libvpx-vp9", "yuva420p")))
    whole, small = (read_video(tmp_path / name, InputConfig(), side=side) for side in (None, 16))
    assert small.frames.shape == (6, 16, 16, whole.frames.shape[3])
    assert (whole.scale, small.scale) == (1, 4)
    middle = whole.frames[:, 26:38, 18:46, :3].float().mean((1, 2)), small.frames[:, 7:9, 5:11, :3].float().mean((1, 2))
    assert (middle[0] - middle[1]).abs().max() < 4


@pytest.mark.parametrize("name", ["folder", "film.mp4", "moving.webp"])
def test_many_frames_are_reduced_until_all_of_them_fit(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    images = [Image.fromarray(pixels[..., :3]) for pixels in rgba_frames()]
    if name == "folder":
        (tmp_path / name).mkdir()
        for t, image in enumerate(images):
            image.save(tmp_path / name / f"{t}.png")
    elif name == "film.mp4":
        encode(tmp_path / name, "libx264", "yuv420p")
    else:
        images[0].save(tmp_path / name, save_all=True, append_images=images[1:], lossless=True)
    room = len(images) * 3 * (SIZE // 2) ** 2
    with caplog.at_level(logging.INFO, logger="ss4d"):
        video = read_video(tmp_path / name, InputConfig(), room=room)
    assert video.coarse
    assert video.scale == 2
    assert video.frames.shape == (len(images), SIZE // 2, SIZE // 2, 3)
    assert f"in frames of {SIZE // 2} x {SIZE // 2} pixels, as there are {len(images)} of them" in caplog.text
    whole = read_video(tmp_path / name, InputConfig(), room=4 * room)
    assert not whole.coarse
    finer = list(read_frames(tmp_path / name, InputConfig()))
    assert all(np.array_equal(a, b) for a, b in zip(finer, whole.frames.numpy(), strict=True))


def test_what_frames_take_besides_counts(tmp_path: Path) -> None:
    folder, memory = save_folder(tmp_path / "frames"), 8 * 6 * 3 * 11 / 2**30
    assert len(read_video(folder, InputConfig(memory=memory)).frames) == 11
    with pytest.raises(InputError, match=r"and their crops: .*frames=5, make segmentation.size smaller, or raise"):
        read_video(folder, InputConfig(memory=memory), beside=8 * 6 * 3)


def test_start_and_end_are_frames_or_seconds(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "frames")

    def read(**choice: Any) -> list[int]:
        return read_video(folder, InputConfig(fps=10.0, **choice)).frames[:, 0, 0, 0].tolist()

    assert read(start=2, end=5) == [2, 3, 4]
    assert read(start="0.2s", end="0.5 s") == [2, 3, 4]
    assert read(start="0.8s") == [8, 9, 10]
    assert read(end=99, step=5) == [0, 5, 10]
    assert read(rate=5.0, end=8) == [0, 2, 4, 6]
    assert read(rate=50.0, end=3) == [0, 1, 2]
    with pytest.raises(InputError, match=r"none lies from input.start 5 up to input.end 5"):
        read(start=5, end=5)
    with pytest.raises(ValidationError, match=r"seconds such as 2.5s"):
        InputConfig(end="five")
    video = read_video(folder, InputConfig(fps=10.0, rate=5.0))
    assert video.fps == pytest.approx(10 * 6 / 11)


def test_progress_is_told_of_each_frame_that_is_used(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    read_video(save_folder(tmp_path / "frames"), InputConfig(frames=3), progress=lambda i, n: steps.append((i, n)))
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_digest_follows_content_and_names(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "frames", 3)
    before = input_digest(folder)
    (folder / ".hidden").write_text("x")
    assert input_digest(folder) == before
    (folder / "1.png").rename(folder / "7.png")
    renamed = input_digest(folder)
    (folder / "7.png").write_bytes((folder / "0.png").read_bytes())
    assert len({before, renamed, input_digest(folder), input_digest(folder / "0.png")}) == 4
    (tmp_path / "copy.png").write_bytes((folder / "0.png").read_bytes())
    assert input_digest(tmp_path / "copy.png") == input_digest(folder / "0.png")
    with pytest.raises(InputError, match="does not exist"):
        input_digest(tmp_path / "missing")
