"""The input's camera is found where it is not known, and turns the asset upright where the model has its axes."""

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch.testing import assert_close

from ss4d.stages.data.clip import SOURCE_SIZE, ClipSpec, TrainingClip, make_clip
from ss4d.stages.evaluation.baselines import truth_answer
from ss4d.stages.evaluation.views import input_camera, input_clip
from ss4d.stages.export.asset import export_asset
from ss4d.stages.export.config import ExportConfig
from ss4d.stages.fitting.camera import find_camera, front_camera
from ss4d.stages.fitting.config import CameraConfig, FrontCameraConfig
from ss4d.stages.fitting.matching import Known, by_crop, explained, matched
from ss4d.stages.inflation import inflate
from ss4d.stages.inflation_config import InflationConfig
from ss4d.stages.input_camera import focal_length, in_grid, in_world, view_of, yaw_in_grid
from ss4d.stages.nn.column_encoder import ColumnEncoder, ColumnEncoderArgs
from ss4d.stages.ops.geometry import matrix_to_quaternion, quaternion_to_matrix, rotate_gaussians
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import Axes, InputCamera, Voxels

GUESS = 20.0  # degrees of pitch that the encoder below sees in everything


@cache
def clip(axes: Axes) -> TrainingClip:
    return make_clip(
        ClipSpec(
            seed=9, family="walker", num_frames=2, input_size=96, num_views=1, view_size=16, resolution=16, axes=axes
        )
    )


@cache
def deep_clip() -> TrainingClip:
    """Of an animal seen from its head, for whose length the cube had no room."""
    return make_clip(
        ClipSpec(seed=1000203, num_frames=2, input_size=96, num_views=1, view_size=16, resolution=16, axes="crop")
    )


def voxels(truth: TrainingClip) -> Voxels:
    return Voxels(coords=truth.coords, latent=torch.zeros(truth.num_frames, 1, 2, 2, 2), resolution=truth.resolution)


@cache
def encoder(axes: Literal["camera", "crop"]) -> ColumnEncoder:
    net = ColumnEncoder(
        ColumnEncoderArgs(image_size=32, resolution=8, cell_channels=2, channels=(8, 8), patch_size=4, axes=axes)
    )
    torch.nn.init.zeros_(net.pitch.weight)
    torch.nn.init.constant_(net.pitch.bias, math.radians(GUESS))
    return net.eval()


class WorldEncoder:
    """Of a model whose grid has the world's axes; it is asked for nothing else."""

    axes: Axes = "world"


def pitch_of(truth: TrainingClip) -> float:
    return math.degrees(math.asin(-float(truth.upright[2] @ truth.input_camera[2, :3])))


def found(truth: TrainingClip, config: CameraConfig = CameraConfig()) -> InputCamera:  # noqa: B008  frozen
    eyes = encoder(truth.axes) if truth.axes in ("camera", "crop") else WorldEncoder()  # type: ignore[arg-type]
    return find_camera(config, eyes, input_clip(truth), voxels(truth))  # type: ignore[arg-type]


def test_true_voxels_tell_the_camera() -> None:
    truth = clip("world")
    camera = found(truth)
    assert abs(float(camera.yaw) - truth.yaw) < 15
    assert abs(float(camera.pitch) - pitch_of(truth)) < 15
    true = input_camera(truth, SOURCE_SIZE)
    # What the size in the picture follows from.
    size = view_of(camera).focal / view_of(camera).distance
    assert size == pytest.approx(true.focal / true.width / float(truth.input_camera[2, 3]), rel=0.1)
    assert (camera.overlap > 0.7).all()
    assert_close(camera.upright, torch.eye(3))


def test_how_sure_the_direction_is_is_told() -> None:
    truth = clip("world")
    spread = found(truth).spread
    assert (spread > 0).all()
    assert found(truth, CameraConfig(yaw=0.0)).spread[0] == 0
    assert found(clip("camera")).spread.tolist() == [0, 0]
    # A cylinder looks alike from every yaw.
    cells = torch.cartesian_prod(torch.arange(2), *(torch.arange(16),) * 3).int()
    center = cells[:, 1:].float() - 7.5
    round_ = cells[(center[:, :2].norm(dim=1) < 6) & (center[:, 2].abs() < 6)]
    coords = torch.cat([torch.zeros_like(round_[:, :1]), round_], dim=1)
    alike = matched(coords, 16, input_clip(truth).alpha.float() / 255, Known())
    assert alike.spread[0] > 2 * spread[0]


def test_what_is_given_is_taken() -> None:
    truth = clip("world")
    given = CameraConfig(yaw=truth.yaw, pitch=pitch_of(truth), fov=35.0)
    camera = found(truth, given)
    assert [float(camera.yaw), float(camera.pitch), float(camera.fov)] == pytest.approx([truth.yaw, given.pitch, 35.0])
    far = found(truth, CameraConfig(yaw=truth.yaw, pitch=0.0, distance=5.0))
    assert float(far.distance) == pytest.approx(5.0)
    wrong = matched(truth.coords, 16, input_clip(truth).alpha.float() / 255, Known(yaw=truth.yaw + 80, pitch=80.0)).view
    assert (
        explained(truth.coords, 16, input_clip(truth).alpha.float() / 255, wrong).mean() < camera.overlap.mean() - 0.1
    )


def test_a_stray_cell_hardly_moves_the_camera() -> None:
    truth = clip("camera")
    known, masks = Known(yaw=0.0, pitch=0.0), input_clip(truth).alpha.float() / 255
    stray = torch.tensor([[0, t, x, 8, z] for t in range(truth.num_frames) for x, z in ((0, 0), (0, 12))])
    right, moved = (
        matched(coords, 16, masks, known).view for coords in (truth.coords, torch.cat([truth.coords, stray.int()]))
    )
    # Outermost cells alone would move it by 5.4 pixels of 64.
    assert 64 * math.dist(right.shift, moved.shift) < 2.5
    assert moved.focal == pytest.approx(right.focal, rel=0.1)


def error(truth: TrainingClip, camera: InputCamera) -> float:
    """How far from where they are points of the surface show, on average, in pixels of a crop of 64."""
    centers = (truth.coords[:, 2:] + 0.5 + truth.feats[:, 6:]) / truth.resolution - 0.5
    places = []
    for seen in (in_grid(camera, 64), input_camera(truth, SOURCE_SIZE)):
        matrix = torch.tensor(seen.world_to_camera)
        points = centers @ matrix[:3, :3].T + matrix[:3, 3]
        places.append(64 * seen.focal / seen.width * points[:, :2] / points[:, 2:])
    return float((places[0] - places[1]).norm(dim=1).mean())


def lacking(truth: TrainingClip) -> TrainingClip:
    """The clip without a third of its cells' height: voxels that lack a part, which masks show."""
    return replace(truth, coords=truth.coords[truth.coords[:, 4] >= 6], feats=truth.feats[truth.coords[:, 4] >= 6])


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_crop_that_laid_out_the_grid_tells_the_camera(seed: int) -> None:
    spec = ClipSpec(seed=seed, num_frames=2, input_size=64, num_views=1, view_size=8, resolution=16, axes="crop")
    truth = make_clip(spec)
    camera = found(truth)
    assert camera.shift.tolist() == [0, 0]
    assert view_of(camera).focal == pytest.approx(float(camera.distance), rel=1e-5)
    assert error(truth, camera) < 1
    known = found(truth, CameraConfig(distance=float(truth.input_camera[2, 3])))
    assert error(truth, known) < error(truth, camera) + 0.1


def test_voxels_that_lack_something_do_not_move_the_known_camera() -> None:
    truth = clip("crop")
    whole, part = found(truth), found(lacking(truth))
    assert view_of(part) == view_of(whole)


def test_of_an_object_that_was_too_deep_the_masks_tell_the_size() -> None:
    truth = deep_clip()
    size = float(truth.input_focal) / float(truth.crop[2] - truth.crop[0]) / float(truth.input_camera[2, 3])
    assert size > 1.15, "this test is about a smaller object"
    camera = found(truth)
    assert view_of(camera).focal / float(camera.distance) == pytest.approx(size, rel=0.08)
    assert camera.shift.tolist() == [0, 0]
    opened = found(truth, CameraConfig(fov=30.0))
    assert float(opened.fov) == pytest.approx(30.0)
    assert view_of(opened).focal / float(opened.distance) == pytest.approx(size, rel=0.1)


def test_what_is_given_of_a_known_camera_is_taken() -> None:
    truth = clip("crop")
    opened, far = found(truth, CameraConfig(fov=40.0)), found(truth, CameraConfig(distance=4.0))
    both = found(truth, CameraConfig(fov=40.0, distance=3.0))
    assert float(opened.distance) == pytest.approx(focal_length(40.0))
    assert float(far.distance) == pytest.approx(4.0)
    assert view_of(far).focal == pytest.approx(4.0)
    assert [float(both.fov), float(both.distance), *both.shift.tolist()] == pytest.approx([40, 3, 0, 0])


def test_without_voxels_a_known_camera_is_known() -> None:
    none = by_crop(torch.zeros(0, 5, dtype=torch.int32), 16, torch.zeros(2, 8, 8), None, None)
    assert none.focal == none.distance


@pytest.mark.parametrize("axes", ["camera", "crop"])
def test_a_grid_with_the_cameras_axes_is_turned_upright(axes: Axes) -> None:
    truth = clip(axes)
    given = found(truth, CameraConfig(yaw=truth.yaw, pitch=pitch_of(truth)))
    # That of the crop looks along the ray of its middle, and lies as the picture does, which may lean by a degree.
    assert_close(given.upright, truth.upright, atol=1e-4 if axes == "camera" else 0.03, rtol=0)
    guessed = found(truth)
    assert float(guessed.pitch) == pytest.approx(GUESS, abs=1e-3)
    assert float(guessed.yaw) == 0
    for camera in (given, guessed):
        ahead = in_grid(camera, 64).world_to_camera[2][:3]
        assert ahead == pytest.approx((0, 1, 0), abs=1e-6), "in the grid the camera looks straight from the front"
        assert yaw_in_grid(camera) % 360 == pytest.approx(0, abs=1e-3)


def test_the_exported_asset_looks_from_its_camera_as_it_did_in_the_grid(tmp_path: Path) -> None:
    truth = clip("camera")
    camera = found(truth)
    asset = truth_answer(truth).gaussians
    upright = rotate_gaussians(asset, matrix_to_quaternion(camera.upright.double()))
    before, after = (
        rasterize(clip_.frame(0), seen(camera, 48))[0] for clip_, seen in ((asset, in_grid), (upright, in_world))
    )
    assert before.max() > 0.3
    assert_close(after, before, atol=1e-3, rtol=0)

    export_asset(ExportConfig(size=32, frames=4), asset, 24.0, tmp_path, render=rasterize, camera=camera)
    document = json.loads((tmp_path / "cameras.json").read_text())
    told = document["input"]
    assert [told["yaw"], told["pitch"]] == pytest.approx([180.0, GUESS], abs=1e-3)
    assert "input" in document["convention"]
    shots = document["cameras"]
    assert [shots[0]["yaw"], shots[0]["pitch"]] == pytest.approx([180.0, GUESS], abs=1e-3), "first as the input"
    assert shots[2]["pitch"] == pytest.approx(15.0), "half a turn away as configured"
    # The point that every camera looks at, seen through the numbers of the file.
    point = torch.tensor(told["world_to_camera"], dtype=torch.float64) @ torch.tensor([0, 0, 0, 1.0]).double()
    shown = told["intrinsics"]["fx"] * point[:2] / point[2] + torch.tensor(
        [told["intrinsics"][c] for c in ("cx", "cy")]
    )
    assert_close(shown.float() - 0.5, camera.shift, atol=1e-6, rtol=0)


def test_an_inflated_silhouette_looks_from_the_front_camera_as_the_mask_does() -> None:
    seen = input_clip(clip("world"))
    camera = front_camera(FrontCameraConfig(), seen)
    _, alpha = rasterize(inflate(InflationConfig(resolution=128), seen).frame(1), in_grid(camera, 96))
    mask = seen.alpha[1] > 127
    both, either = ((alpha > 0.5) & mask).sum(), ((alpha > 0.5) | mask).sum()
    assert both / either > 0.9
    assert camera.overlap.tolist() == [1.0, 1.0]


def test_a_quaternion_stands_for_its_matrix() -> None:
    draw = torch.Generator().manual_seed(1)
    for quat in (*torch.randn(20, 4, generator=draw, dtype=torch.float64), *torch.eye(4, dtype=torch.float64)):
        matrix = quaternion_to_matrix(quat)
        assert_close(quaternion_to_matrix(matrix_to_quaternion(matrix)), matrix)


def test_numbers_of_a_camera_survive() -> None:
    camera = found(clip("world"))
    view = view_of(camera)
    assert replace(view, focal=view.focal).camera(40).focal == pytest.approx(40 * view.focal)
    assert_close(torch.tensor(in_world(camera, 40).world_to_camera), torch.tensor(in_grid(camera, 40).world_to_camera))
