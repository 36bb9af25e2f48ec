"""Soft outlines of likely cells bring a view nearer to the camera that saw the masks."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ss4d.stages.data.clip import SOURCE_SIZE, ClipSpec, TrainingClip, make_clip
from ss4d.stages.evaluation.views import input_camera, input_clip
from ss4d.stages.fitting.camera import find_camera
from ss4d.stages.fitting.config import CameraConfig
from ss4d.stages.fitting.matching import Known, matched
from ss4d.stages.fitting.outline import nearer
from ss4d.stages.input_camera import View, opening, view_of
from ss4d.stages.nn.column_encoder import ColumnEncoder, ColumnEncoderArgs
from ss4d.stages.types import Voxels

SURE = 6.0  # logit of a cell
STRAIGHT = Known(yaw=0.0, pitch=0.0)


@pytest.fixture(scope="module")
def truth() -> TrainingClip:
    return make_clip(
        ClipSpec(
            seed=9,
            family="walker",
            num_frames=3,
            input_size=96,
            num_views=1,
            view_size=16,
            resolution=16,
            axes="camera",
        )
    )


def logits(clip: TrainingClip) -> Tensor:
    grid = torch.full((clip.num_frames, *(clip.resolution,) * 3), -SURE)
    grid[tuple(clip.coords[:, 1:].long().T)] = SURE
    return grid


def masks(clip: TrainingClip) -> Tensor:
    return input_clip(clip).alpha.float() / 255


def true_view(clip: TrainingClip) -> View:
    camera = input_camera(clip, SOURCE_SIZE)
    rows = torch.tensor(camera.world_to_camera, dtype=torch.float64)
    focal, distance = camera.focal / camera.width, float(rows[2, 3])
    x, y = (focal * rows[:2, 3] / rows[2, 3]).tolist()
    return View(yaw=0.0, pitch=0.0, distance=distance, focal=focal, shift=(x, y))


def off(view: View, true: View) -> tuple[float, float]:
    """How far a view is off: pixels of 64, and by what part of the size."""
    size, wanted = view.focal / view.distance, true.focal / true.distance
    return 64 * math.dist(view.shift, true.shift), abs(size / wanted - 1)


def test_a_view_that_is_off_is_brought_nearer(truth: TrainingClip) -> None:
    true = true_view(truth)
    wrong = replace(true, focal=1.15 * true.focal, shift=(true.shift[0] + 0.06, true.shift[1] - 0.05))
    assert off(wrong, true)[0] > 4
    pixels, size = off(nearer(wrong, logits(truth), masks(truth), STRAIGHT), true)
    assert pixels < 1.2
    assert size < 0.1


def test_what_is_given_stays(truth: TrainingClip) -> None:
    start = matched(truth.coords, 16, masks(truth), STRAIGHT).view
    both = nearer(start, logits(truth), masks(truth), replace(STRAIGHT, fov=30.0, distance=start.distance))
    assert (both.focal, both.distance) == (start.focal, start.distance)
    wide = nearer(start, logits(truth), masks(truth), replace(STRAIGHT, fov=opening(start.focal)))
    assert wide.focal == start.focal
    assert wide.distance != start.distance
    narrow = nearer(start, logits(truth), masks(truth), replace(STRAIGHT, distance=start.distance))
    assert narrow.distance == start.distance
    assert narrow.focal / narrow.distance == pytest.approx(wide.focal / wide.distance, rel=1e-3)


def test_a_view_stays_where_there_is_nothing_to_go_by(truth: TrainingClip) -> None:
    view = true_view(truth)
    assert nearer(view, logits(truth), torch.zeros_like(masks(truth)), STRAIGHT) == view
    assert nearer(view, torch.full_like(logits(truth), -30.0), masks(truth), STRAIGHT) == view


def test_a_finer_grid_tells_the_same(truth: TrainingClip) -> None:
    finer = torch.nn.functional.interpolate(logits(truth)[:, None], scale_factor=3.0)[:, 0]
    start = matched(truth.coords, 16, masks(truth), STRAIGHT).view
    coarse, fine = (nearer(start, guess, masks(truth), STRAIGHT) for guess in (logits(truth), finer))
    assert off(coarse, fine)[0] < 1


def test_the_camera_stage_uses_a_guess_where_there_is_one(truth: TrainingClip) -> None:
    encoder = ColumnEncoder(
        ColumnEncoderArgs(image_size=32, resolution=8, cell_channels=2, channels=(8, 8), patch_size=4)
    ).eval()
    without = Voxels(coords=truth.coords, latent=torch.zeros(truth.num_frames, 1, 2, 2, 2), resolution=16)
    true = true_view(truth)
    distances = [
        off(view_of(find_camera(CameraConfig(), encoder, input_clip(truth), voxels)), true)
        for voxels in (without, replace(without, guess=logits(truth)))
    ]
    assert distances[0] != distances[1]
    assert distances[1][0] < 1.2
