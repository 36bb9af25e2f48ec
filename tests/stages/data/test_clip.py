"""Clips: the same for the same seed, framed as the model's inputs are, and cameras, pictures and voxels agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ss4d.stages.data.clip import SOFT, ClipSpec, TrainingClip, crop_window, input_camera, make_clip, view_cameras
from ss4d.stages.data.families.table import FAMILIES
from ss4d.stages.data.objects import make_object, stream
from ss4d.stages.data.render import UNLIT, render
from ss4d.stages.errors import InputError
from ss4d.stages.ops.geometry import FRONT_YAW
from ss4d.stages.segmentation.crop import crop_box
from ss4d.stages.types import Axes


def small(seed: int, family: str | None = None) -> ClipSpec:
    return ClipSpec(seed=seed, family=family, num_frames=3, input_size=48, num_views=6, view_size=48, resolution=16)


@pytest.fixture(scope="module")
def clips() -> dict[str, TrainingClip]:
    return {family: make_clip(small(7, family)) for family in FAMILIES}


def test_a_seed_makes_the_same_clip_twice_and_another_seed_another() -> None:
    spec = small(11)
    first, again, other = make_clip(spec), make_clip(spec), make_clip(small(12))
    for name in TrainingClip.specs():
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    assert (first.family, first.yaw) == (again.family, again.yaw)
    assert not torch.equal(first.frames, other.frames)
    assert not torch.equal(first.view_cameras, other.view_cameras)


def test_the_object_does_not_depend_on_how_it_is_filmed() -> None:
    first = make_clip(small(11))
    other = make_clip(replace(small(11), input_size=64, num_views=2, view_size=20))
    assert torch.equal(first.coords, other.coords)
    assert torch.equal(first.feats, other.feats)
    assert first.yaw == other.yaw


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_clips_that_show_something(clips: dict[str, TrainingClip], family: str) -> None:
    clip = clips[family]
    assert clip.family == family
    assert clip.num_frames == 3
    assert (clip.frames[..., 3] == 255).float().mean((1, 2)).min() > 0.02
    assert (clip.views[..., 3] == 255).float().mean((2, 3)).min() > 0.005
    assert (clip.views[:, :, [0, -1], :, 3] == 0).all()  # nothing is cut off
    assert (clip.views[:, :, :, [0, -1], 3] == 0).all()
    assert torch.bincount(clip.coords[:, 1].long(), minlength=3).min() > 20
    assert int(clip.coords[:, 2:].max()) < 16
    assert -45 <= clip.yaw <= 45
    colors = clip.frames[clip.frames[..., 3] == 255][:, :3].float()
    assert colors.std() > 3


@pytest.mark.parametrize("family", ["walker", "fish", "tree", "folding"])
def test_voxels_lie_inside_the_silhouettes_and_fill_them(family: str) -> None:
    clip = make_clip(ClipSpec(seed=21, family=family, num_frames=2, num_views=6, view_size=64, resolution=32))
    for index in range(6):
        camera = clip.view_camera(index)
        view = torch.tensor(camera.world_to_camera)
        centers = (clip.coords[:, 2:] + 0.5 + clip.feats[:, 6:]) / 32 - 0.5
        points = centers @ view[:3, :3].T + view[:3, 3]
        columns, rows = (points[:, :2] / points[:, 2:] * camera.focal + 32).floor().long().T
        solid = (clip.views[index, ..., 3] > 0).float()
        near = torch.nn.functional.max_pool2d(solid[:, None], 3, 1, 1)[:, 0]
        assert near[clip.coords[:, 1].long(), rows, columns].mean() > 0.995
        drawn = torch.zeros_like(solid)
        drawn[clip.coords[:, 1].long(), rows, columns] = 1
        filled = torch.nn.functional.max_pool2d(drawn[:, None], 5, 1, 2)[:, 0]
        assert filled[solid > 0].mean() > 0.97


@pytest.mark.parametrize("seed", range(6))
def test_the_crop_is_the_models(seed: int) -> None:
    mesh = make_object(None, seed, 3)
    yaw, camera = input_camera(stream(seed, "film"), mesh)
    window = crop_window(mesh, camera, 64)
    alpha = torch.from_numpy(render(mesh, [camera], UNLIT)[0, ..., 3])
    left, top, right, _ = crop_box(alpha)
    # A vertex may touch a pixel without covering one of its samples.
    assert abs(window.left - left) <= 2
    assert abs(window.top - top) <= 2
    assert abs(window.side - (right - left)) <= 3
    assert (alpha[:, [0, -1]] == 0).all()
    assert (alpha[:, :, [0, -1]] == 0).all()
    place = -np.array(camera.world_to_camera)[:3, :3].T @ np.array(camera.world_to_camera)[:3, 3]
    assert np.degrees(np.arctan2(place[0], place[1])) % 360 == pytest.approx((FRONT_YAW + yaw) % 360, abs=1e-4)


def test_cameras_are_spread_all_round() -> None:
    for seed in range(20):
        cameras = view_cameras(np.random.default_rng(seed), 8, 32)
        eyes = np.array([-np.array(c.world_to_camera)[:3, :3].T @ np.array(c.world_to_camera)[:3, 3] for c in cameras])
        np.testing.assert_allclose(np.linalg.norm(eyes, axis=-1), 2, atol=1e-6)
        yaw = np.sort(np.degrees(np.arctan2(eyes[:, 0], eyes[:, 1])) % 360)
        assert np.diff([*yaw, yaw[0] + 360]).max() < 75
        pitch = np.degrees(np.arcsin(eyes[:, 2] / 2))
        assert -20 <= pitch.min() < 0
        assert 40 < pitch.max() <= 60


def test_other_views_are_lit_alike_from_every_side() -> None:
    assert SOFT.specular == 0
    assert len(SOFT.direction) == 1
    assert np.linalg.norm(SOFT.direction) == pytest.approx(1, abs=0.01)
    assert max(SOFT.sky) + max(SOFT.color) <= 1.15  # bright colors are hardly cut off


@pytest.mark.parametrize("axes", ["world", "camera", "crop"])
def test_a_span_is_filmed_as_the_longer_clip_is_and_shown_in_part(axes: Axes) -> None:
    whole = ClipSpec(seed=5, num_frames=12, input_size=48, num_views=2, view_size=24, resolution=12, axes=axes)
    long, few = make_clip(whole), make_clip(replace(whole, num_frames=3, span=12))
    chosen = np.sort(stream(5, "shown").choice(12, 3, replace=False))
    for name in ("crop", "input_camera", "input_focal", "view_cameras", "view_focals", "upright"):
        assert torch.equal(getattr(few, name), getattr(long, name)), name
    assert torch.equal(few.views, long.views[:, chosen])
    assert torch.equal(few.frames[..., 3], long.frames[chosen][..., 3]), "the light may drift otherwise"
    for place, time in enumerate(chosen.tolist()):
        (cells, feats), (there, features) = (
            (clip.coords[clip.coords[:, 1] == t, 2:], clip.feats[clip.coords[:, 1] == t])
            for clip, t in ((few, place), (long, time))
        )
        assert torch.equal(cells, there)
        assert torch.equal(feats, features)


def test_what_clips_are_known_by_does_not_change_with_options_that_are_not_used() -> None:
    old = {
        "seed": 1,
        "family": None,
        "num_frames": 16,
        "input_size": 128,
        "num_views": 8,
        "view_size": 128,
        "resolution": 32,
        "axes": "world",
    }
    assert ClipSpec(seed=1).decides() == old
    assert list(ClipSpec(seed=1).decides()) == list(old), "pools compare texts"
    assert ClipSpec(seed=1, span=20).decides() == {**old, "span": 20}


def test_impossible_clips_are_refused() -> None:
    for name, value in (
        ("seed", -1),
        ("num_frames", 0),
        ("input_size", 4),
        ("num_views", 0),
        ("view_size", 0),
        ("resolution", 1),
    ):
        with pytest.raises(InputError, match=f"{name} must be at least"):
            replace(ClipSpec(seed=0), **{name: value})  # type: ignore[arg-type] # one field at a time
    with pytest.raises(InputError, match="span must be at least num_frames, 16; got 15"):
        ClipSpec(seed=0, span=15)
    with pytest.raises(InputError, match="unicorn"):
        make_clip(ClipSpec(seed=0, family="unicorn"))
