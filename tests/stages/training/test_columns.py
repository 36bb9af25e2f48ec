"""The image encoder's own objective."""

import dataclasses
import math

import pytest
import torch

from ss4d.stages.data.clip import SOURCE_SIZE, ClipSpec, TrainingClip, make_clip
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.roles import IMAGE_ENCODER
from ss4d.stages.training.clips import step_generator
from ss4d.stages.training.columns import ImageColumns, true_pitch
from ss4d.stages.training.fresh import fresh_network
from ss4d.stages.training.recipe import SMOKE
from ss4d.stages.training.variation import mirrored
from ss4d.stages.types import Axes

SPEC = ClipSpec(seed=0, num_frames=3, input_size=32, num_views=1, view_size=8, resolution=8, axes="camera")


@pytest.fixture(scope="module")
def clips() -> list[TrainingClip]:
    return [make_clip(dataclasses.replace(SPEC, seed=seed)) for seed in (1, 2)]


def objective() -> ImageColumns:
    return ImageColumns(fresh_network(IMAGE_ENCODER, *SMOKE.networks[IMAGE_ENCODER], TORCH_OPS, 0))


def test_a_few_steps_lower_the_loss_on_a_fixed_batch(clips: list[TrainingClip]) -> None:
    images = objective()
    optimizer = torch.optim.AdamW(images.encoder.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = images.loss(clips, step_generator(0, "fixed", 0)).total
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_a_perfect_encoder_would_have_no_loss(clips: list[TrainingClip]) -> None:
    """What is told of each cell is held to that very cell: values written there come back as a loss of nothing."""
    images = objective()
    size = SPEC.resolution
    truth = torch.zeros(2 * SPEC.num_frames, size, size, size, 10)
    truth[..., 0] = -50
    for number, clip in enumerate(clips):
        t, x, y, z = clip.coords[:, 1:].long().unbind(1)
        truth[number * SPEC.num_frames + t, x, y, z, 0] = 50
        truth[number * SPEC.num_frames + t, x, y, z, 1:] = clip.feats
    columns = truth.movedim(3, 2)  # n, x, z, y, k
    images.encoder.cells = torch.nn.Identity()
    parts = images.judged(clips, columns.flatten(3).flatten(1, 2), true_pitch(clips)).parts
    assert float(parts["iou"]) == 1
    assert all(float(parts[name]) < 1e-4 for name in ("bce", "color", "shape", "pitch"))
    assert float(parts["dice"]) < 0.01


@pytest.mark.parametrize("axes", ["camera", "crop"])
def test_the_pitch_is_the_cameras_or_that_of_the_ray_through_the_crops_middle(axes: Axes) -> None:
    for seed in (1, 2):
        clip, world = (make_clip(dataclasses.replace(SPEC, seed=seed, axes=other)) for other in (axes, "world"))
        middle = world.crop.view(2, 2).float().mean(0)
        across, down = (middle - SOURCE_SIZE / 2) / world.input_focal * (axes == "crop")
        ray = torch.stack([across, down, torch.ones(())]) @ world.input_camera[:3, :3]
        pitch = math.asin(-float(ray[2] / ray.norm()))
        assert true_pitch([clip]).tolist() == pytest.approx([pitch] * 3, abs=1e-5)
        assert true_pitch([mirrored(clip)]).tolist() == pytest.approx([pitch] * 3, abs=1e-5)
