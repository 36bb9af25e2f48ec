"""The structure fit brings voxels nearer to the truth, and leaves alone what it cannot make better."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ss4d.stages.data.clip import SOURCE_SIZE, ClipSpec, TrainingClip, make_clip
from ss4d.stages.evaluation.metrics import occupancy_iou
from ss4d.stages.evaluation.views import input_camera, input_clip
from ss4d.stages.fitting.config import StructureFitConfig
from ss4d.stages.fitting.filling import filled, without_crumbs
from ss4d.stages.fitting.structure import Projection, fit_outline
from ss4d.stages.types import Camera, Voxels
from tests.helpers.pretend_device import PretendDevice

SIDE = 16


class Decoder(nn.Module):
    """A decoder whose latent holds the logits of 2 x 2 x 2 cells as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, latent: Tensor) -> Tensor:
        t, _, r, _, _ = latent.shape
        blocks = latent.view(t, 2, 2, 2, r, r, r).permute(0, 4, 1, 5, 2, 6, 3)
        return self.scale * blocks.reshape(t, 1, 2 * r, 2 * r, 2 * r)


@cache
def clip(family: str, num_frames: int = 2) -> TrainingClip:
    return make_clip(
        ClipSpec(
            seed=2, family=family, num_frames=num_frames, input_size=96, num_views=1, view_size=16, resolution=SIDE
        )
    )


def guessed(truth: TrainingClip) -> Voxels:
    """The true cells with some missing and some too many, as a latent of the decoder above and as cells."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.full((truth.num_frames, SIDE, SIDE, SIDE), -3.0)
    t, x, y, z = truth.coords[:, 1:].long().unbind(1)
    logits[t, x, y, z] = 3.0
    near = nn.functional.max_pool3d(logits[:, None], 3, stride=1, padding=1)[:, 0] > 0
    flipped = near & (torch.rand(logits.shape, generator=draw) < 0.15)
    logits = torch.where(flipped, -0.3 * logits, logits)
    blocks = logits.view(-1, SIDE // 2, 2, SIDE // 2, 2, SIDE // 2, 2).permute(0, 2, 4, 6, 1, 3, 5)
    latent = blocks.reshape(-1, 8, SIDE // 2, SIDE // 2, SIDE // 2)
    cells = torch.nonzero(logits > 0).int()
    return Voxels(
        coords=torch.cat([torch.zeros_like(cells[:, :1]), cells], dim=1), latent=latent.contiguous(), resolution=SIDE
    )


def fit(truth: TrainingClip, voxels: Voxels, seen: TrainingClip, camera: Camera | None = None):  # type: ignore[no-untyped-def]
    camera = camera or input_camera(truth, SOURCE_SIZE)
    return fit_outline(StructureFitConfig(steps=10), Decoder(), voxels, input_clip(seen), camera)  # type: ignore[arg-type]


def iou(truth: TrainingClip, voxels: Voxels) -> float:
    return float(occupancy_iou(voxels.coords, truth.coords, truth.num_frames, SIDE).mean())


def test_the_cells_come_nearer_to_the_truth() -> None:
    truth = clip("walker")
    before = guessed(truth)
    after = fit(truth, before, truth)
    assert after.fitted.tolist() == [1, 1]
    assert after.loss[-1] < after.loss[0]
    assert iou(truth, after) > iou(truth, before) + 0.02
    again = fit(truth, before, truth)
    assert torch.equal(after.coords, again.coords)
    assert torch.equal(after.latent, again.latent)


def test_cells_that_the_images_guess_stay_in_the_fit() -> None:
    truth = clip("walker")
    before = guessed(truth)
    # Half the latent, and a guess that makes up for it: the same cells.
    voxels = replace(before, latent=0.5 * before.latent, guess=0.5 * Decoder()(before.latent)[:, 0])
    kept = fit_outline(
        StructureFitConfig(steps=0, carve=False, fill=False),
        Decoder(),  # type: ignore[arg-type]
        voxels,
        input_clip(truth),
        input_camera(truth, SOURCE_SIZE),
    )
    assert torch.equal(kept.coords, before.coords)
    after = fit(truth, voxels, truth)
    assert after.fitted.tolist() == [1, 1]
    assert iou(truth, after) > iou(truth, before) + 0.02
    assert torch.equal(after.guess, voxels.guess)


@pytest.mark.parametrize("wrong", ["camera", "masks"])
def test_what_does_not_get_better_is_left_as_it_was(wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    truth = clip("snake")
    before = guessed(truth)
    camera = input_camera(truth, SOURCE_SIZE)
    if wrong == "camera":
        x, y, z, w = (list(row) for row in camera.world_to_camera)
        camera = replace(camera, world_to_camera=tuple(map(tuple, (y, [-value for value in x], z, w))))  # type: ignore[arg-type]
    with caplog.at_level("INFO", logger="ss4d"):
        after = fit(truth, before, clip("walker") if wrong == "masks" else truth, camera)
    assert after.fitted.tolist() == [0, 0]
    assert torch.equal(after.coords, before.coords)
    assert torch.equal(after.latent, before.latent)
    assert "came out no better" in caplog.text


def test_what_needs_no_gradients_leaves_nothing_on_the_cpu() -> None:
    truth = clip("walker")
    before, camera = guessed(truth), input_camera(truth, SOURCE_SIZE)
    carve = StructureFitConfig(steps=0)
    expected = fit_outline(carve, Decoder(), before, input_clip(truth), camera)  # type: ignore[arg-type]
    with PretendDevice(values=True) as device:
        given = fit_outline(carve, device.move(Decoder()), before, input_clip(truth), camera)  # type: ignore[arg-type]
    assert torch.equal(given.coords, expected.coords)
    assert len(expected.coords) < len(before.coords)


def test_no_gradient_is_added_up_in_an_order_that_depends_on_the_load() -> None:
    truth = clip("walker")
    config = StructureFitConfig(steps=1)
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        fit_outline(config, Decoder(), guessed(truth), input_clip(truth), input_camera(truth, SOURCE_SIZE))
    names = {event.key for event in watched.key_averages()}
    assert "IndexSelectBackward0" in names
    assert "IndexBackward0" not in names


def test_frames_beyond_a_batch_are_fitted_alike() -> None:
    truth = clip("walker", 9)
    before = guessed(truth)
    whole = fit(truth, before, truth)
    alone = guessed(truth)
    last = alone.coords[:, 1] == 8
    moved = alone.coords[last] - torch.tensor([0, 8, 0, 0, 0], dtype=torch.int32)
    frame = Voxels(coords=moved, latent=alone.latent[8:], resolution=SIDE)
    seen = replace(truth, frames=truth.frames[8:], views=truth.views[:, 8:])
    one = fit(truth, frame, seen)
    assert torch.equal(one.coords[:, 2:], whole.coords[whole.coords[:, 1] == 8][:, 2:])


def test_a_cell_shows_where_its_center_does() -> None:
    camera = input_camera(clip("walker"), SOURCE_SIZE)
    projection = Projection.of(4, camera, torch.device("cpu"))
    point = torch.tensor(camera.world_to_camera) @ torch.tensor([-0.375, 0.125, 0.375, 1.0])  # cell 0, 2, 3
    place = camera.focal / camera.width * point[:2] / point[2] + 0.5
    torch.testing.assert_close(projection.places[(0 * 4 + 2) * 4 + 3], place)
    cells, rays = projection.pairs(40)
    row, column = divmod(int(rays[cells == 11].float().median()), 40)
    assert abs(row / 40 - float(place[1])) < 0.1
    assert bool((cells == 11).any())
    assert 0 <= column < 40


def grid_of(coords: Tensor, num_frames: int) -> Tensor:
    solid = torch.zeros(num_frames, SIDE, SIDE, SIDE, dtype=torch.bool)
    solid[tuple(coords[:, 1:].long().T)] = True
    return solid.flatten(1)


def test_rays_that_meet_no_cell_are_given_one_beside_the_others() -> None:
    truth = clip("walker")
    whole = grid_of(truth.coords, truth.num_frames)
    broken = grid_of(truth.coords[truth.coords[:, 4] % 4 > 0], truth.num_frames)
    projection = Projection.of(SIDE, input_camera(truth, SOURCE_SIZE), torch.device("cpu"))
    cells, rays = pairs = projection.pairs(36)

    def met(solid: Tensor) -> Tensor:
        return torch.zeros(len(solid), 36 * 36).index_add(1, rays, solid[:, cells].float()).view(-1, 36, 36) > 0

    wanted = met(whole)
    assert (wanted & ~met(broken)).any()
    after = filled(broken, wanted, pairs, projection.depths)
    assert torch.equal(met(after) & wanted, wanted)
    assert (after >= broken).all()
    added = after & ~broken
    assert (added & whole).sum() / added.sum() > 0.5, "where the object is"
    nothing = torch.zeros_like(broken)
    assert torch.equal(filled(nothing, wanted, pairs, projection.depths), nothing)


def test_crumbs_are_removed() -> None:
    solid = torch.zeros(3, SIDE, SIDE, SIDE, dtype=torch.bool)
    solid[:2, 2:8, 2:8, 2:8] = True
    solid[0, 8, 8, 8] = True  # touches a corner
    solid[1, 9, 9, 9] = True
    solid[1, 12:14, 12:15, 12:15] = True
    after = without_crumbs(solid.flatten(1), SIDE).view_as(solid)
    expected = solid.clone()
    expected[1, 9, 9, 9] = False
    assert torch.equal(after, expected)
