"""Which files of a folder are the frames, by their names alone."""

import random
import time

import pytest

from ss4d.stages.errors import InputError
from ss4d.stages.reading.series import frame_names


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png", "10.png"],
        ["frame0.png", "Frame1.png", "frame2.png", "FRAME10.png"],
        ["0.5.png", "1.25.png", "1.5.png", "2.png", "10.0.png"],
        ["take2.9.png", "take2.10.png"],
        ["a.png", "b.jpg", "c.webp"],
        ["7.png", "9" * 5000 + ".png", "1" + "0" * 5000 + ".png"],  # as an archive can have them
        ["IMG_0001.JPG", "IMG_0002.jpg", "IMG_0003.HEIC"],
    ],
)
def test_natural_order(names: list[str]) -> None:
    mixed = random.Random(0).sample(names, len(names))
    assert frame_names("folder", mixed) == names


def test_many_names_take_a_time_that_grows_with_their_number() -> None:
    names = [f"{number}.png" for number in range(20_000)]
    begun = time.process_time()
    assert frame_names("folder", names) == names
    assert time.process_time() - begun < 5, "with its square, it is a quarter of a minute"


def test_what_lies_beside_frames_is_passed_over() -> None:
    assert frame_names("folder", ["0.png", "1.png", "2.json", "camera.txt", "notes2.doc", "0.exr"]) == [
        "0.png",
        "1.png",
    ]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["0.png", "1.png", "0_mask.png", "1_mask.png"], r"two series of images, 0.png to 1.png \(2\) and 0_mask.png"),
        (["view_a_00.webp", "view_b_00.webp"], "two series of images, view_a_00.webp and view_b_00.webp"),
        (["3.tif", "3.TIFF"], "the same frame twice, as 3.tif and as 3.TIFF"),
        (["f0.png", "f0.jpg", "f1.png", "f1.jpg"], "the same frame twice, as f0.jpg and as f0.png"),
        (["0.webp", "2.webp", "1.jxl", "3.psd"], "has 1.jxl, 3.psd among its frames, which cannot be read"),
        (["0.png", "9.png", "1.exr", "2.exr", "3.exr", "4.exr"], "has 1.exr, 2.exr, 3.exr and 1 more among"),
        ([], "is an empty folder"),
        (["a.doc"], "holds no image among its 1 entries"),
    ],
)
def test_what_is_no_single_series_is_named(names: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        frame_names("folder", names)
