"""Pictures as they are to be seen: colors in sRGB whatever their profile, and only what a file presents."""

import contextlib
import io
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig
from ss4d.stages.reading.counts import num_frames
from ss4d.stages.video_io import read_video

COLORS = ((200, 40, 40), (40, 160, 60), (40, 70, 200))


def patches(size: int = 16) -> Image.Image:
    return Image.fromarray(np.concatenate([np.full((size, size, 3), color, np.uint8) for color in COLORS], axis=1))


def swapped_profile() -> bytes:
    """A profile whose first channel is what sRGB calls green, and whose second is red."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    entries = {bytes(data[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, green = entries[b"rXYZ"], entries[b"gXYZ"]
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data).replace("sRGB".encode("utf-16-be"), "none".encode("utf-16-be")).replace(b"sRGB", b"none")


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.jpg", "alpha.png"])
def test_a_color_profile_is_followed(tmp_path: Path, name: str) -> None:
    picture = patches()
    swapped = Image.merge("RGB", [picture.getchannel(c) for c in "GRB"])
    if name == "alpha.png":
        swapped.putalpha(77)
    options = (
        {"lossless": True} if name.endswith("webp") else {"quality": 98, "subsampling": 0} if "jpg" in name else {}
    )
    swapped.save(tmp_path / name, icc_profile=swapped_profile(), **options)
    frame = read_video(tmp_path / name, InputConfig()).frames[0]
    for index, color in enumerate(COLORS):
        assert np.abs(frame[8, 8 + 16 * index, :3].numpy().astype(int) - color).max() <= 3
    assert name != "alpha.png" or (frame[..., 3] == 77).all()


def test_a_broken_profile_is_said_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    patches().save(tmp_path / "a.png", icc_profile=b"nothing")
    assert read_video(tmp_path / "a.png", InputConfig()).frames[0, 8, 8].tolist() == [200, 40, 40]
    assert "color profile that cannot be used" in caplog.text


def gray(level: int) -> Image.Image:
    return Image.new("RGB", (24, 16), (level, level, level))


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.avif"])
def test_a_frame_of_an_animation_holds_until_the_next(tmp_path: Path, name: str) -> None:
    shown, times = [0, 80, 160, 240], [1000, 200, 200, 400]
    first, *rest = [gray(level) for level in shown]
    first.save(tmp_path / name, save_all=True, append_images=rest, duration=times, loop=0)
    video = read_video(tmp_path / name, InputConfig())
    assert video.fps == pytest.approx(5)
    levels = [round(float(level) / 80) for level in video.frames[:, 4, 4, 0]]
    assert levels == [0] * 5 + [1, 2, 3, 3]
    assert num_frames(tmp_path / name) == 9


def test_the_still_that_stands_for_an_animation_is_no_frame(tmp_path: Path) -> None:
    first, *rest = [Image.new("RGB", (8, 8), (255, 0, 255)), gray(10).resize((8, 8)), gray(20).resize((8, 8))]
    first.save(tmp_path / "a.png", save_all=True, append_images=rest, default_image=True, duration=100)
    assert read_video(tmp_path / "a.png", InputConfig()).frames[:, 0, 0, 1].tolist() == [10, 20]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_picture_that_a_heif_file_presents(tmp_path: Path, mode: str) -> None:
    heif = pytest.importorskip("pillow_heif")
    held = heif.from_pillow(Image.new(mode, (64, 48), (200, 0, 0, 90)[: len(mode)]))
    held.add_from_pillow(Image.new(mode, (64, 48), (0, 0, 200, 255)[: len(mode)]))
    held.save(tmp_path / "a.heic", quality=95, primary_index=1)
    video = read_video(tmp_path / "a.heic", InputConfig())
    assert video.frames.shape == (1, 48, 64, len(mode))
    assert video.frames[0, 20, 20, 2] > 180
    with pytest.raises(InputError, match=r"more than the 3,000 of input.max_pixels"):
        read_video(tmp_path / "a.heic", InputConfig(max_pixels=3000))
    (tmp_path / "cut.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:-200])
    with pytest.raises(InputError, match=r"cut.heic is a HEIC picture that cannot be decoded \(.*\); save it as PNG.$"):
        read_video(tmp_path / "cut.heic", InputConfig())


def test_heif_without_its_package_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match=r"HEIC picture: pip install '\.\[heif\]' in the checkout reads it"):
        read_video(tmp_path / "a.heic", InputConfig())


def test_joined_jpegs_are_a_film(tmp_path: Path) -> None:
    data = io.BytesIO()
    for level in range(0, 240, 40):
        gray(level).save(data, "JPEG")
    for name in ("a.mjpeg", "a.bin"):
        (tmp_path / name).write_bytes(data.getvalue())
        levels = read_video(tmp_path / name, InputConfig()).frames[:, 4, 4, 0].tolist()
        assert levels == pytest.approx(range(0, 240, 40), abs=3)


def test_the_thumbnail_of_a_photograph_is_no_frame(tmp_path: Path) -> None:
    thumbnail = io.BytesIO()
    gray(9).save(thumbnail, "JPEG")
    exif = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + thumbnail.getvalue()
    gray(200).save(tmp_path / "a.jpg", exif=exif)
    assert len(read_video(tmp_path / "a.jpg", InputConfig()).frames) == 1


def zipped(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def taped(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def png(level: int) -> bytes:
    data = io.BytesIO()
    gray(level).save(data, "PNG")
    return data.getvalue()


Pack = Callable[[Path, dict[str, bytes]], None]


def test_a_file_of_an_archive_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some kilobytes unpack to the largest file that is taken."""
    monkeypatch.setattr("ss4d.stages.reading.sources.HELD", 2_000_000)
    zipped(tmp_path / "a.zip", {"0.png": b"\x89PNG" + bytes(20_000_000)})
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"0.png is larger than any picture of input.max_pixels"):
            read_video(tmp_path / "a.zip", InputConfig(max_pixels=2_000_000))
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP"])
def test_a_file_of_an_archive_may_be_larger_than_what_memory_holds(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ss4d.stages.reading.sources.HELD", 1000)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    image = io.BytesIO()
    Image.fromarray(pixels).save(image, kind, lossless=True)
    zipped(tmp_path / "a.zip", {f"0.{kind.lower()}": image.getvalue()})
    assert np.array_equal(read_video(tmp_path / "a.zip", InputConfig()).frames[0], pixels)


@pytest.mark.parametrize(("name", "pack"), [("a.zip", zipped), ("a.tar", taped), ("a.tgz", taped)])
def test_images_in_an_archive(tmp_path: Path, name: str, pack: Pack) -> None:
    files = {f"clip/{t}.png": png(t) for t in (10, 2, 1)} | {"__MACOSX/clip/._1.png": b"", "read.me": b"text"}
    pack(tmp_path / name, files)
    assert read_video(tmp_path / name, InputConfig()).frames[:, 0, 0, 0].tolist() == [1, 2, 10]
    assert num_frames(tmp_path / name) == 3
    pack(tmp_path / name, {"a/0.png": png(0), "b/0.png": png(1)})
    with pytest.raises(InputError, match=r"more than one folder, a and b"):
        read_video(tmp_path / name, InputConfig())
    pack(tmp_path / name, {"0.png": png(0), "0_mask.png": png(1)})
    with pytest.raises(InputError, match=r"two series"):
        read_video(tmp_path / name, InputConfig())
    pack(tmp_path / name, {"0.png": b"\x89PNG" + bytes(10_000_000)})
    with pytest.raises(InputError, match=r"0.png is larger than any picture of input.max_pixels"):
        read_video(tmp_path / name, InputConfig(max_pixels=1_000_000))
    pack(tmp_path / name, {"run.json": b"{}"})
    with pytest.raises(InputError, match=r"no image"):
        read_video(tmp_path / name, InputConfig())


@pytest.mark.parametrize("name", ["moving.gif", "moving.tiff"])
def test_an_animation_that_ends_anywhere_is_damaged_or_shorter(tmp_path: Path, name: str) -> None:
    """Pillow counts the frames of a file that ends between them with errors of other kinds than it opens it with."""
    whole = io.BytesIO()
    first, *rest = (Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue"))
    first.save(whole, name.partition(".")[2], save_all=True, append_images=rest, duration=100)
    folder = tmp_path / "folder"
    folder.mkdir()
    for length in range(1, len(whole.getvalue())):
        (folder / name).write_bytes(whole.getvalue()[:length])
        for path in (folder / name, folder):
            with contextlib.suppress(InputError):
                read_video(path, InputConfig())


def test_all_frames_of_an_animation_are_bounded_together(tmp_path: Path) -> None:
    frames = [gray(level) for level in (10, 20, 30, 40)]
    pixels = frames[0].width * frames[0].height
    for name in ("a.gif", "a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=40)
        with pytest.raises(InputError, match=r"up to frame 3 has more than the .* of input.max_animation"):
            read_video(tmp_path / name, InputConfig(max_animation=3 * pixels))
        assert len(read_video(tmp_path / name, InputConfig(max_animation=4 * pixels)).frames) == 4


def test_no_page_is_larger_than_pictures_may_be(tmp_path: Path) -> None:
    """The file opens with a small one, whose size says nothing of the others."""
    gray(1).save(tmp_path / "a.tif", save_all=True, append_images=[gray(2).resize((100, 100))])
    with pytest.raises(InputError, match=r"frame 1 has 100 x 100 pixels, more than the 9,999 of input.max_pixels"):
        read_video(tmp_path / "a.tif", InputConfig(max_pixels=9_999))


def test_time_of_an_animation_is_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = [gray(level) for level in (10, 20, 30)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=[100, 60_000, 100])
    assert len(read_video(tmp_path / "a.png", InputConfig(max_pause=2.0)).frames) == 1 + 20 + 1
    assert "nothing comes for 60 s after frame 1; the pause is shortened to 2 s (input.max_pause)" in caplog.text
    frames[0].save(tmp_path / "b.png", save_all=True, append_images=frames[1:], duration=[20] * 3)
    assert read_video(tmp_path / "b.png", InputConfig(max_rate=30.0)).fps == pytest.approx(10)
    assert "tell 50 frames per second, more than the 30 of input.max_rate" in caplog.text
