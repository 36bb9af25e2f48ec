"""Masks that a user gives belong to their frames by name, by number or by order; else a sentence says what differs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig
from ss4d.stages.user_masks import read_masks
from ss4d.stages.video_io import read_video, write_video


def save(folder: Path, pictures: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / name)
    return folder


def mask(column: int, size: int = 16, white: int = 255) -> np.ndarray:
    pixels = np.zeros((size, size), np.uint8)
    pixels[:, column * size // 16 :][:, : size // 4] = white
    return pixels


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return save(tmp_path / "clip", {f"{t:03}.png": np.full((16, 16, 3), t, np.uint8) for t in range(6)})


def columns(masks: Path, clip: Path, **choice: object) -> list[int]:
    config = InputConfig(**choice)
    alpha = read_masks(masks, clip, config, read_video(clip, config))
    assert alpha.dtype == torch.uint8
    assert set(alpha.unique().tolist()) <= {0, 255}
    return [int((frame.amax(0) == 255).nonzero()[0]) for frame in alpha]


@pytest.mark.parametrize("name", ["{:03}.png", "{:03}_mask.png", "m{}.png"])
def test_by_name_or_number(tmp_path: Path, clip: Path, name: str) -> None:
    masks = save(tmp_path / "masks", {name.format(t): mask(t) for t in (5, 1, 3, 0, 2, 4)})
    assert columns(masks, clip) == [0, 1, 2, 3, 4, 5]
    assert columns(masks, clip, start=1, step=2) == [1, 3, 5]
    if not name.startswith("m"):
        for t in (0, 1):
            (masks / name.format(t)).unlink()
        assert columns(masks, clip, start=2) == [2, 3, 4, 5]


def test_masks_are_timed_as_the_frames_are(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((16, 16, 3), t, np.uint8)) for t in range(3)]
    masks = [Image.fromarray(mask(t)) for t in range(3)]
    for name, pictures in (("clip.png", frames), ("masks.png", masks)):
        pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=[100, 60_000, 100])
    for max_pause in (0.3, 5.0):
        shown = columns(tmp_path / "masks.png", tmp_path / "clip.png", max_pause=max_pause)
        assert shown == [0, *[1] * round(10 * max_pause), 2]


def test_by_order(tmp_path: Path, clip: Path) -> None:
    masks = save(tmp_path / "masks", {f"{name}.png": mask(t) for t, name in enumerate("abcdef")})
    assert columns(masks, clip, frames=3) == [0, 2, 4]
    film = tmp_path / "masks.mp4"
    write_video(film, torch.from_numpy(np.stack([mask(t, 64) for t in range(3)]))[..., None].expand(-1, -1, -1, 3), 5)
    config = InputConfig(end=3)
    alpha = read_masks(film, clip, config, read_video(clip, config))
    assert alpha.shape == (3, 16, 16)
    assert [int((frame[8] > 127).nonzero()[0]) for frame in alpha] == [0, 1, 2]
    with pytest.raises(InputError, match=r"holds 3 masks, and the input has 6 frames, of which 4 are used"):
        read_masks(film, clip, InputConfig(end=4), read_video(clip, InputConfig(end=4)))


@pytest.mark.parametrize("size", [16, 8, 32])
@pytest.mark.parametrize("white", [1, 128, 255])
def test_any_size_and_any_two_levels(tmp_path: Path, clip: Path, size: int, white: int) -> None:
    masks = save(tmp_path / "masks", {f"{t:03}.png": mask(4, size, white) for t in range(6)})
    alpha = read_masks(masks, clip, InputConfig(), read_video(clip, InputConfig()))
    assert (alpha[0, 8, 5:7] == 255).all()
    assert (alpha[0, 8, 10:] == 0).all()


def test_by_alpha(tmp_path: Path, clip: Path) -> None:
    pictures = {f"{t:03}.png": np.dstack([np.full((16, 16, 3), 9, np.uint8), mask(t)]) for t in range(6)}
    assert columns(save(tmp_path / "masks", pictures), clip) == [0, 1, 2, 3, 4, 5]


def test_pictures_are_no_masks(tmp_path: Path, clip: Path) -> None:
    photographs = {f"{t:03}.png": np.random.default_rng(t).integers(0, 255, (16, 16, 3), np.uint8) for t in range(6)}
    with pytest.raises(InputError, match=r"holds pictures and no masks: \d+ % of 000.png is neither black nor white"):
        columns(save(tmp_path / "other", photographs), clip)
