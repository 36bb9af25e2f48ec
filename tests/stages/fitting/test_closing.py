"""Thin parts that the camera saw and an asset lacks become a sheet beside what is solid, and nothing else changes."""

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from ss4d.stages.data.clip import SOURCE_SIZE, ClipSpec, TrainingClip, make_clip
from ss4d.stages.evaluation.baselines import truth_answer
from ss4d.stages.evaluation.views import input_camera, input_clip
from ss4d.stages.fitting.closing import closed
from ss4d.stages.fitting.pictures import KEPT_ASIDE, around, drawn, resized, targets, unpacked
from ss4d.stages.types import Camera, GaussianClip

FEET = -0.25  # below are less than half of the legs
ARRAYS = ("means", "scales", "quats", "colors", "opacities", "offsets")


@cache
def clip() -> TrainingClip:
    return make_clip(
        ClipSpec(seed=2, family="walker", num_frames=2, input_size=96, num_views=1, view_size=16, resolution=16)
    )


def seen() -> tuple[Tensor, Camera]:
    return targets(input_clip(clip()), 64, torch.device("cpu")), input_camera(clip(), SOURCE_SIZE)


def alpha(asset: GaussianClip, camera: Camera) -> Tensor:
    gaussians, offsets = unpacked(asset, torch.device("cpu"))
    frames = torch.arange(asset.num_frames)
    return drawn(gaussians, offsets, frames, [resized(camera, 64)] * len(frames))[..., 3]


def test_what_the_camera_saw_and_the_asset_lacks_is_closed_where_the_object_is() -> None:
    whole, (wanted, camera) = truth_answer(clip()).gaussians, seen()
    legs = whole.means[:, 2] < FEET
    thin = replace(whole, opacities=torch.where(legs, 0.02, whole.opacities))
    after = closed(thin, wanted, camera, clip().yaw)
    covered = wanted[..., 3] > 0.9
    assert (alpha(thin, camera)[covered] > 0.5).float().mean() < 0.9
    assert (alpha(after, camera)[covered] > 0.5).float().mean() > 0.97
    changed = (after.means != thin.means).any(1)
    assert 0 < changed.sum() <= legs.sum()
    assert not changed[~legs].any(), "only faint ones are taken"
    sides = around(clip().yaw, KEPT_ASIDE, 64)
    there, before, now = (torch.stack([alpha(asset, view) for view in sides]) for asset in (whole, thin, after))
    assert (now - there).abs().mean() < 0.9 * (before - there).abs().mean(), "a sheet where the legs are"


def test_a_sheet_lies_as_deep_as_what_it_hangs_on_to_and_not_as_in_other_frames() -> None:
    whole, (wanted, camera) = truth_answer(clip()).gaussians, seen()
    legs = whole.means[:, 2] < FEET
    thin = replace(whole, opacities=torch.where(legs, 0.02, whole.opacities))
    eye = torch.tensor(camera.world_to_camera).inverse()[:3, 3]
    later = torch.arange(len(whole.means)) >= whole.offsets[1]  # shows alike, but further off
    further = torch.where(later[:, None], eye + 1.3 * (thin.means - eye), thin.means)
    beside = replace(thin, means=further, scales=torch.where(later[:, None], 1.3 * thin.scales, thin.scales))
    both, single = closed(beside, wanted, camera, clip().yaw), closed(thin.frame(0), wanted[:1], camera, clip().yaw)
    assert (single.means != thin.frame(0).means).any()
    assert torch.equal(both.frame(0).means, single.means)


def test_a_whole_asset_stays_as_it_is() -> None:
    whole, (wanted, camera) = truth_answer(clip()).gaussians, seen()
    after = closed(whole, wanted, camera, clip().yaw)
    assert all(torch.equal(getattr(after, name), getattr(whole, name)) for name in ARRAYS)


def test_what_is_no_thin_part_is_left_to_the_fit_and_its_guard() -> None:
    whole, (wanted, camera) = truth_answer(clip()).gaussians, seen()
    half = replace(whole, opacities=torch.where(whole.means[:, 2] < 0, 0.02, whole.opacities))
    assert torch.equal(closed(half, wanted, camera, clip().yaw).means, half.means)


def test_fewer_faint_gaussians_are_wider_and_none_change_nothing() -> None:
    whole, (wanted, camera) = truth_answer(clip()).gaussians, seen()
    legs = torch.nonzero(whole.means[:, 2] < FEET).squeeze(1)

    def without(count: int) -> GaussianClip:
        """The first `count` of the legs faint, the others far behind the camera's back."""
        opacities, means = whole.opacities.clone(), whole.means.clone()
        means[legs] = torch.tensor(camera.world_to_camera).inverse()[:3, 3] * 2
        opacities[legs[:count]] = 0.02
        return replace(whole, means=means, opacities=opacities)

    many, few = (closed(without(count), wanted, camera, clip().yaw) for count in (len(legs), 5))
    assert few.scales[legs[:5]].amax() > 1.5 * many.scales[legs[:5]].amax()
    bare = without(0)
    assert torch.equal(closed(bare, wanted, camera, clip().yaw).means, bare.means)


def test_a_frame_without_anything_solid_stays_empty() -> None:
    whole, (wanted, camera) = truth_answer(clip()).gaussians, seen()
    faint = replace(whole, opacities=torch.full_like(whole.opacities, 0.01))
    assert torch.equal(closed(faint, wanted, camera, clip().yaw).opacities, faint.opacities)
    frame = whole.frame(0)
    gap = replace(frame, offsets=torch.tensor([0, len(frame.means), len(frame.means)]))
    assert torch.equal(closed(gap, wanted, camera, clip().yaw).means, gap.means)
