"""Pictures whose pixels are not 8 bit of sRGB: 16 bit, other zero points, gamma, gray profiles; and unreadable ones."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig
from ss4d.stages.video_io import read_video

LINEAR = 55, 128  # a level that is coded linearly, and the one that sRGB has for it
RAMP = np.linspace(0, 65535, 24 * 16).astype(np.uint16).reshape(16, 24)


def read(path: Path) -> np.ndarray:
    return read_video(path, InputConfig()).frames[0].numpy()


def tiff(path: Path, planes: np.ndarray, photometric: int) -> Path:
    """Planes (channel, y, x) of 16 bit as a TIFF file that holds them one after the other."""
    count, height, width = planes.shape
    data, size = planes.astype("<u2").tobytes(), 2 * height * width
    lists = {258: ("H", [16] * count), 273: ("I", [8 + size * k for k in range(count)]), 279: ("I", [size] * count)}
    facts = {256: width, 257: height, 259: 1, 262: photometric, 277: count, 278: height, 284: 2 if count > 1 else 1}
    table, rest, at = b"", b"", 8 + len(data) + 2 + 12 * (len(lists) + len(facts)) + 4
    for tag in sorted([*lists, *facts]):
        kind, values = lists.get(tag, ("I", [facts.get(tag, 0)]))
        packed = struct.pack(f"<{len(values)}{kind}", *values)
        if len(packed) > 4:
            packed, rest = struct.pack("<I", at + len(rest)), rest + packed
        table += struct.pack("<HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    path.write_bytes(head + data + struct.pack("<H", len(table) // 12) + table + bytes(4) + rest)
    return path


def gray_profile() -> bytes:
    """An ICC profile of gray that is coded linearly."""
    white = struct.pack(">3i", 63190, 65536, 54061)
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"gray\0" + bytes(12 + 67),
        b"wtpt": b"XYZ " + bytes(4) + white,
        b"kTRC": b"curv" + bytes(4) + struct.pack(">IH", 1, 256) + bytes(2),
    }
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data.ljust(len(data) + -len(data) % 4, b"\0")
    size = struct.pack(">I", 128 + len(table) + len(body))
    head = size + b"lcms\2\x40\0\0mntrGRAYXYZ " + struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + white
    return head.ljust(128, b"\0") + table + body


def test_gray_of_16_bit_is_scaled_and_keeps_its_clear_level(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png", transparency=int(RAMP[3, 5]))
    pixels = read(tmp_path / "a.png")
    assert (pixels[..., :3] == (RAMP >> 8)[..., None]).all()
    assert np.argwhere(pixels[..., 3] == 0).tolist() == [[3, 5]]


def test_gray_whose_zero_is_white(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", RAMP[None], photometric=0)
    assert (read(path) == 255 - (RAMP >> 8)[..., None]).all()


def test_the_profile_of_gray_is_followed_beside_alpha(tmp_path: Path) -> None:
    for bands in ("L", "LA"):
        Image.new(bands, (24, 16), (LINEAR[0], 90)[: len(bands)]).save(tmp_path / "a.png", icc_profile=gray_profile())
        pixels = read(tmp_path / "a.png")
        assert np.abs(pixels[..., :3].astype(int) - LINEAR[1]).max() <= 1
        assert bands == "L" or (pixels[..., 3] == 90).all()


@pytest.mark.parametrize(("gamma", "shown"), [(100000, LINEAR[1]), (45455, LINEAR[0])])
def test_the_gamma_of_a_png_is_followed(tmp_path: Path, gamma: int, shown: int) -> None:
    told = PngInfo()
    told.add(b"gAMA", struct.pack(">I", gamma))
    Image.new("RGBA", (24, 16), (LINEAR[0],) * 3 + (90,)).save(tmp_path / "a.png", pnginfo=told)
    pixels = read(tmp_path / "a.png")
    assert np.abs(pixels[..., :3].astype(int) - shown).max() <= 1
    assert (pixels[..., 3] == 90).all()


def test_pixels_that_would_be_read_wrongly_are_refused(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.int32)).save(tmp_path / "long.tif")
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "float.tif")
    tiff(tmp_path / "planes.tif", np.stack([RAMP, RAMP // 2, 65535 - RAMP]), photometric=2)
    for name, sentence in (
        ("long", "pixels of 32 bit"),
        ("float", "floating-point pixels"),
        ("planes", "channel apart"),
    ):
        with pytest.raises(InputError, match=sentence):
            read(tmp_path / f"{name}.tif")


def test_frames_of_an_animation_that_are_shown_for_no_time_are_shown_as_browsers_do(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (24, 16), (level,) * 3) for level in (0, 80, 160)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=10)
    assert read_video(tmp_path / "a.gif", InputConfig()).fps == pytest.approx(10)


@pytest.mark.parametrize("name", ["a.heic", "a.avif", "a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("orientation", [2, 6])
def test_pictures_are_turned_once(tmp_path: Path, name: str, orientation: int) -> None:
    """HEIC and AVIF say in two ways how they are turned, and libraries may follow one of them already."""
    picture = Image.new("RGB", (48, 32), (30, 30, 220))
    picture.paste((220, 30, 30), (0, 0, 24, 16))
    exif = Image.Exif()
    exif[0x112] = orientation
    upright = ImageOps.mirror(picture) if orientation == 2 else picture.transpose(Image.Transpose.ROTATE_270)
    if name.endswith("heic"):
        pytest.importorskip("pillow_heif").from_pillow(picture).save(tmp_path / name, quality=95, exif=exif.tobytes())
    else:
        picture.save(tmp_path / name, exif=exif)
    pixels = read(tmp_path / name).astype(int)
    assert pixels.shape == np.asarray(upright).shape
    assert np.abs(pixels - np.asarray(upright)).mean() < 4


@pytest.mark.parametrize("name", ["a.avif", "a.heic", "a.png"])
def test_hdr_that_is_not_converted_is_told(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    picture = Image.new("RGB", (64, 48), (120, 90, 60))
    if name.endswith("png"):
        told = PngInfo()
        told.add(b"cICP", bytes([9, 16, 0, 1]))
        picture.save(tmp_path / name, pnginfo=told)
    elif name.endswith("heic"):
        pytest.importorskip("pillow_heif").from_pillow(picture).save(tmp_path / name)
    else:
        picture.save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    if b"colrnclx" in data:
        at = data.index(b"colrnclx") + 8
        read(tmp_path / name)
        assert "HDR" not in caplog.text
        (tmp_path / name).write_bytes(data[:at] + bytes([0, 9, 0, 16]) + data[at + 4 :])
    read(tmp_path / name)
    assert "is HDR (PQ), which is not converted in pictures" in caplog.text
