"""Varied clips show what they say: the same object, light and cameras mirrored, the same colors under other names."""

import dataclasses

import pytest
import torch
from torch import Tensor

from ss4d.stages.data.clip import SOURCE_SIZE, ClipSpec, TrainingClip, make_clip
from ss4d.stages.training.variation import mirrored, recolored, varied

SPEC = ClipSpec(seed=18, num_frames=2, input_size=64, num_views=2, view_size=64, resolution=16)


@pytest.fixture(scope="module", params=["world", "yaw", "camera"])
def clip(request: pytest.FixtureRequest) -> TrainingClip:
    return make_clip(dataclasses.replace(SPEC, axes=request.param))


def same(a: TrainingClip, b: TrainingClip) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in TrainingClip.specs()) and a.yaw == b.yaw


def pixels(clip: TrainingClip, camera: Tensor, focal: Tensor, frame: int) -> Tensor:
    """Where the surface in a frame's voxels shows, in pixels from the picture's middle."""
    chosen = clip.coords[:, 1] == frame
    points = (clip.coords[chosen, 2:] + 0.5 + clip.feats[chosen, 6:]) / clip.resolution - 0.5
    seen = points @ camera[:3, :3].T + camera[:3, 3]
    return seen[:, :2] / seen[:, 2:] * focal


def share_inside(alpha: Tensor, at: Tensor) -> float:
    """How many of the pixels `at` (n, 2), from 0 to 1 across the picture, are not transparent."""
    side = len(alpha)
    x, y = (at * side).long().clamp(0, side - 1).unbind(1)
    return float((alpha[y, x] > 0).float().mean())


@pytest.mark.parametrize("change", [lambda clip: clip, mirrored])
def test_voxels_lie_where_the_pictures_show_the_object(clip: TrainingClip, change) -> None:
    clip = change(clip)
    for frame in range(clip.num_frames):
        left, top, right, bottom = clip.crop.tolist()
        at = pixels(clip, clip.input_camera, clip.input_focal, frame) + SOURCE_SIZE / 2
        at = (at - torch.tensor([left, top])) / torch.tensor([right - left, bottom - top])
        assert share_inside(clip.frames[frame, ..., 3], at) > 0.97
        for view in range(len(clip.views)):
            at = pixels(clip, clip.view_cameras[view], clip.view_focals[view], frame) / SPEC.view_size + 0.5
            assert share_inside(clip.views[view, frame, ..., 3], at) > 0.97


def test_only_the_mirrored_voxels_fit_the_mirrored_pictures(clip: TrainingClip) -> None:
    """So that the test above can fail."""
    other = mirrored(clip)
    at = pixels(other, clip.view_cameras[0], clip.view_focals[0], 0) / SPEC.view_size + 0.5
    assert share_inside(clip.views[0, 0, ..., 3], at) < 0.9


def test_the_mirrored_clip(clip: TrainingClip) -> None:
    other = mirrored(clip)
    assert same(mirrored(other), clip)
    assert not same(other, clip)
    rows = [tuple(row) for row in other.coords.tolist()]
    assert rows == sorted(rows)
    assert torch.linalg.det(other.input_camera[:3, :3]) > 0  # still a turn, no mirror image of a camera
    feats = {tuple(c[1:]): f for c, f in zip(other.coords.tolist(), other.feats, strict=True)}
    for (_, t, x, y, z), feat in zip(clip.coords.tolist(), clip.feats, strict=True):
        there = feats[t, clip.resolution - 1 - x, y, z]
        assert torch.equal(there[:3], feat[:3])
        for start in (3, 6):  # normal and offset
            assert torch.equal(there[start : start + 3], feat[start : start + 3] * torch.tensor([-1.0, 1, 1]))


def test_colors_under_other_names(clip: TrainingClip) -> None:
    order = torch.tensor([2, 0, 1])
    other = recolored(clip, order)
    assert torch.equal(other.frames[..., 0], clip.frames[..., 2])
    assert torch.equal(other.views[..., 1], clip.views[..., 0])
    assert torch.equal(other.feats[:, 2], clip.feats[:, 1])
    assert torch.equal(other.frames[..., 3], clip.frames[..., 3])
    assert torch.equal(other.feats[:, 3:], clip.feats[:, 3:])
    assert same(recolored(other, order.argsort()), clip)


def test_variation_is_random_and_repeatable(clip: TrainingClip) -> None:
    made = [varied(clip, torch.Generator().manual_seed(seed)) for seed in range(24)]
    assert all(same(again, varied(clip, torch.Generator().manual_seed(seed))) for seed, again in enumerate(made))
    looks = {(one.yaw, tuple(one.feats[:, :3].mean(0).tolist())) for one in made}
    assert len(looks) > 6
    assert {one.yaw for one in made} == {clip.yaw, -clip.yaw}
