"""Gaussians that stand alone fade away, parts that are faint grow more opaque, and the rest stays as it is."""

from dataclasses import replace

import pytest
import torch

from ss4d.stages.evaluation.baselines import voxel_gaussians
from ss4d.stages.fitting.dots import strengthened, without_dots
from ss4d.stages.types import GaussianClip

SIDE = 24


def block(num_frames: int) -> GaussianClip:
    """A cube of Gaussians, one a cell, in every frame, and in each a single one in a corner of the grid."""
    solid = torch.zeros(num_frames, SIDE, SIDE, SIDE, dtype=torch.bool)
    solid[:, 6:18, 6:18, 6:18] = True
    solid[:, 0, 0, 0] = True
    cells = torch.nonzero(solid).int()
    coords = torch.cat([torch.zeros_like(cells[:, :1]), cells], dim=1)
    gray = torch.full((len(coords), 3), 0.5)
    return voxel_gaussians(coords, gray, torch.zeros_like(gray), torch.zeros_like(gray), num_frames, SIDE)


def test_what_stands_alone_fades_in_every_frame() -> None:
    asset = block(3)
    after = without_dots(asset)
    faded = torch.nonzero(after.opacities == 0).squeeze(1)
    assert faded.tolist() == asset.offsets[:-1].tolist(), "the corner is the first of a frame"
    kept = after.opacities > 0
    assert torch.equal(after.opacities[kept], asset.opacities[kept])
    assert torch.equal(after.means, asset.means)


def test_what_lies_there_in_another_frame_is_no_company() -> None:
    whole = block(2)
    moved = whole.means.clone()
    moved[: whole.offsets[1]] += 0.5  # the first frame's cube, now where the second one has nothing
    moved[whole.offsets[1]] = moved[10]  # and the second one's corner in its midst
    after = without_dots(replace(whole, means=moved))
    assert after.opacities[whole.offsets[1]] == 0


@pytest.mark.parametrize("opacity", [0.0, 0.05])
def test_a_clip_of_which_nothing_shows_stays_as_it_is(opacity: float) -> None:
    faint = replace(block(1), opacities=torch.full_like(block(1).opacities, opacity))
    assert torch.equal(without_dots(faint).opacities, faint.opacities)
    arrays = {name: getattr(faint, name)[:0] for name in ("means", "scales", "quats", "colors", "opacities")}
    assert len(without_dots(replace(faint, **arrays, offsets=torch.tensor([0, 0]))).means) == 0


def with_wing(opacity: float) -> GaussianClip:
    """A solid cube, and a wing two cells thick on its side, as opaque as told."""
    solid = torch.zeros(1, SIDE, SIDE, SIDE, dtype=torch.bool)
    solid[:, 6:18, 6:18, 6:18] = True
    solid[:, 18:24, 6:18, 11:13] = True
    cells = torch.nonzero(solid).int()
    coords = torch.cat([torch.zeros_like(cells[:, :1]), cells], dim=1)
    gray = torch.full((len(coords), 3), 0.5)
    whole = voxel_gaussians(coords, gray, torch.zeros_like(gray), torch.zeros_like(gray), 1, SIDE)
    wing = cells[:, 1] >= 18
    return replace(whole, opacities=torch.where(wing, opacity, whole.opacities))


def test_a_faint_part_becomes_more_opaque_and_what_is_solid_does_not() -> None:
    asset = with_wing(0.05)
    wing = asset.opacities == torch.tensor(0.05)
    after = strengthened(asset)
    usual = asset.opacities[~wing].median()
    tip = asset.means[:, 0] > 20 / SIDE - 0.5  # further from the cube than cells that are looked at
    assert after.opacities[wing & tip].min() > 4 * 0.05
    assert after.opacities[wing].max() < usual
    inner = asset.means.abs().amax(1) < 0.15
    assert torch.equal(after.opacities[inner], asset.opacities[inner])
    assert torch.equal(after.scales, asset.scales)


@pytest.mark.parametrize("opacity", [0.0, 0.05])
def test_nothing_grows_where_nothing_shows(opacity: float) -> None:
    faint = replace(block(1), opacities=torch.full_like(block(1).opacities, opacity))
    assert torch.equal(strengthened(faint).opacities, faint.opacities)


def test_what_is_transparent_stays_so() -> None:
    asset = with_wing(0.0)
    wing = asset.opacities == 0
    assert (strengthened(asset).opacities[wing] == 0).all()
