"""Windows over the frames of a clip, and what they give blended."""

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.testing import assert_close

from ss4d.stages.frame_windows import FrameWindow, blended, frame_windows, window_rows


@example(groups=1, length=4, multiple=8)  # rounded up, a window is longer than the clip
@given(st.integers(1, 200), st.integers(4, 64), st.sampled_from([1, 2, 4, 8]))
def test_windows_are_aligned_overlap_and_cover_the_clip(groups: int, length: int, multiple: int) -> None:
    num_frames = groups * multiple
    windows = frame_windows(num_frames, length, multiple)
    assert windows[0].start == 0
    assert windows[-1].stop == num_frames
    assert {len(window) for window in windows} == {len(windows[0])}
    assert all(window.start % multiple == window.stop % multiple == 0 for window in windows)
    assert all(0 < later.start - earlier.start <= len(earlier) // 2 for earlier, later in pairwise(windows))
    assert len(windows) == 1 or length <= len(windows[0]) < length + 2 * multiple


@pytest.mark.parametrize("length", [None, 12, 100])
def test_a_clip_that_is_not_longer_is_one_window(length: int | None) -> None:
    assert frame_windows(12, length, 2) == [FrameWindow(0, 12)]


def test_windows_of_half_a_clip() -> None:
    assert frame_windows(32, 16, 2) == [FrameWindow(0, 16), FrameWindow(8, 24), FrameWindow(16, 32)]
    assert frame_windows(34, 16, 2)[-2:] == [FrameWindow(16, 32), FrameWindow(18, 34)]


@given(st.integers(1, 40), st.randoms(use_true_random=False))
def test_what_all_windows_agree_on_is_what_the_blend_gives(groups: int, random) -> None:
    frames = sorted(random.choices(range(2 * groups), k=random.randint(1, 30)))
    coords = torch.tensor([[0, t, i, 0, 0] for i, t in enumerate(frames)], dtype=torch.int32)
    feats = torch.randn(len(coords), 3)
    parts = window_rows(coords, 2 * groups, frame_windows(2 * groups, 8, 2))
    for part in parts:
        assert len(part.coords)
        assert torch.equal(part.coords[:, 1] + part.frames.start, coords[part.rows, 1])
        assert torch.equal(part.coords[:, 2:], coords[part.rows, 2:])
    assert_close(blended(parts, lambda i: feats[parts[i].rows], len(coords)), feats)


def test_a_blend_goes_smoothly_from_window_to_window() -> None:
    coords = torch.tensor([[0, t, 0, 0, 0] for t in range(64)], dtype=torch.int32)
    parts = window_rows(coords, 64, frame_windows(64, 32, 2))
    blend = blended(parts, lambda i: torch.full((32, 1), float(i)), 64)[:, 0]
    assert blend[0] == 0
    assert blend[-1] == 2
    assert ((blend[1:] - blend[:-1]).abs() < 0.11).all()


def test_a_clip_without_rows_has_a_part_without_rows() -> None:
    (part,) = window_rows(torch.zeros(0, 5, dtype=torch.int32), 64, frame_windows(64, 32, 2))
    assert len(part.coords) == 0
