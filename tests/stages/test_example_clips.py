"""The bundled clips are what the program that draws them draws."""

import numpy as np
import pytest
import torch

from examples.make_clips import NUM_FRAMES, SIZE, draw_birds, draw_scenes, to_bytes
from ss4d.stages.data.objects import FPS
from ss4d.stages.input_files import InputConfig
from ss4d.stages.types import Video
from ss4d.stages.video_io import read_video
from tests.helpers.places import ROOT

CLIPS = ROOT / "examples" / "clips"
SOME_FRAMES = (0, 13)


@pytest.fixture(scope="module")
def plain() -> Video:
    return read_video(CLIPS / "bird.mp4", InputConfig())


@pytest.fixture(scope="module")
def cut_out() -> Video:
    return read_video(CLIPS / "bird_alpha.webm", InputConfig())


def test_together_they_are_small() -> None:
    assert sum(path.stat().st_size for path in CLIPS.iterdir()) < 1_000_000


def test_frame_counts_sizes_and_alpha(plain: Video, cut_out: Video) -> None:
    assert plain.frames.shape == (NUM_FRAMES, SIZE, SIZE, 3)
    assert cut_out.frames.shape == (NUM_FRAMES, SIZE, SIZE, 4)
    assert plain.fps == cut_out.fps == FPS


def test_the_bird_fills_the_frame_without_being_cut_off(cut_out: Video) -> None:
    alpha = cut_out.frames[..., 3]
    covered = (alpha > 127).any(dim=0)
    rows, columns = covered.any(dim=1).nonzero(), covered.any(dim=0).nonzero()
    assert rows.min() > 4
    assert columns.min() > 4
    assert rows.max() < SIZE - 5
    assert columns.max() < SIZE - 5
    assert max(rows.max() - rows.min(), columns.max() - columns.min()) > 0.7 * SIZE
    assert ((alpha > 5) & (alpha < 250)).float().mean() < 0.05, "opaque but for its rim"


def test_the_bird_flaps_its_wings(cut_out: Video) -> None:
    alpha = cut_out.frames[..., 3].float() / 255
    assert alpha.diff(dim=0).abs().mean(dim=(1, 2)).min() > 0.005, "never at rest"
    assert (alpha[:, None] - alpha[None]).abs().mean(dim=(2, 3)).max() > 0.04


def test_the_program_reproduces_the_files(plain: Video, cut_out: Video) -> None:
    birds = draw_birds()[list(SOME_FRAMES)]
    for index, scene, bird in zip(SOME_FRAMES, to_bytes(draw_scenes(birds)), to_bytes(birds), strict=True):
        assert np.abs(plain.frames[index].numpy().astype(int) - scene).mean() < 4
        decoded, opaque = cut_out.frames[index].numpy().astype(int), bird[..., 3] > 250
        assert np.abs(decoded[..., 3] - bird[..., 3]).mean() < 2
        assert np.abs(decoded[opaque][:, :3] - bird[opaque][:, :3]).mean() < 5


def test_both_clips_show_the_same_bird(plain: Video, cut_out: Video) -> None:
    opaque = cut_out.frames[..., 3] > 250
    difference = (plain.frames[opaque].float() - cut_out.frames[..., :3][opaque].float()).abs().mean()
    assert difference < 6
    assert torch.isfinite(difference)
