"""The crop against its own arithmetic on random boxes, and against golden numbers of the published preprocessing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ss4d.stages.errors import InputError
from ss4d.stages.segmentation.crop import crop_box, crop_clip
from tests.helpers.places import DATA

GOLDEN = DATA / "preprocess.safetensors"


def blank(num_frames: int = 2, height: int = 40, width: int = 50) -> torch.Tensor:
    return torch.zeros(num_frames, height, width, 4, dtype=torch.uint8)


@settings(deadline=None)
@given(left=st.integers(0, 49), right=st.integers(0, 49), top=st.integers(0, 39), bottom=st.integers(0, 39))
def test_crop_box_is_square_centered_and_holds_the_object(left: int, right: int, top: int, bottom: int) -> None:
    left, right, top, bottom = min(left, right), max(left, right), min(top, bottom), max(top, bottom)
    if (left, top) == (right, bottom):
        return
    frames = blank()
    frames[0, top, left, 3] = frames[1, bottom, right, 3] = 1  # the box spans both frames, and any alpha counts
    x0, y0, x1, y1 = crop_box(frames[..., 3])
    side = 1.2 * max(right - left, bottom - top)
    # Truncation moves each corner by less than a pixel.
    assert abs((x1 - x0) - side) < 2
    assert abs((y1 - y0) - side) < 2
    assert abs((x0 + x1) - (left + right)) < 2
    assert abs((y0 + y1) - (top + bottom)) < 2


def test_corners_are_truncated_toward_zero() -> None:
    frames = blank()
    frames[0, 0:31, 3:14, 3] = 255
    # Half the side is 18, the center (8, 15): corners (-10, -3, 26, 33), exact; one row fewer makes halves.
    assert crop_box(frames[..., 3]) == (-10, -3, 26, 33)
    frames[0, 30] = 0
    assert crop_box(frames[..., 3]) == (-9, -2, 25, 31)  # from (-9.4, -2.9, 25.4, 31.9)


def test_result_is_premultiplied_over_black_and_transparent_outside() -> None:
    frames = blank()
    frames[:, :, :, :3] = torch.tensor([200, 100, 50], dtype=torch.uint8)  # color under alpha 0 must not show
    frames[:, 0:31, 0:31, 3] = 128
    rgb, alpha, crop = crop_clip(frames, 72)
    assert crop.tolist() == [-3, -3, 33, 33]
    assert alpha[:, :4, :].max() <= 8  # Lanczos reaches three source pixels, here six rows, over the border
    assert (alpha[:, 20:50, 20:50] == 128).all()
    assert (rgb[:, 36, 36].int() - torch.tensor([100, 50, 25])).abs().max() <= 1  # Pillow rounds while premultiplying
    assert rgb[alpha == 0].max() == 0
    assert (rgb.amax(-1) <= alpha).all()


def test_golden() -> None:
    golden = load_file(GOLDEN)
    rgb, _, _ = crop_clip(golden["frames"], 518)
    difference = (rgb[:, ::7, ::7].int() - golden["every_7th_pixel"].int()).abs()
    assert difference.max() <= 1


def test_transparent_clip_and_single_pixel_are_refused() -> None:
    frames = blank()
    with pytest.raises(InputError, match="fully transparent"):
        crop_clip(frames, 32)
    frames[0, 7, 9, 3] = 255
    with pytest.raises(InputError, match=r"single pixel at \(9, 7\)"):
        crop_clip(frames, 32)
