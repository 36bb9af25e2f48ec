"""How an object lies in its grid: as the crop shows it in the axes of the crop, and filling the cube in others."""

from dataclasses import replace
from typing import cast, get_args

import numpy as np
import pytest

from ss4d.stages.data.axes import Placement, placement
from ss4d.stages.data.clip import SOURCE_SIZE, ClipSpec, crop_window, input_camera, make_clip
from ss4d.stages.data.mesh import AnimatedMesh, Doubles, assemble
from ss4d.stages.data.objects import make_object, stream
from ss4d.stages.data.render import Window
from ss4d.stages.data.shapes import ellipsoid
from ss4d.stages.errors import InputError
from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from ss4d.stages.training.variation import mirrored
from ss4d.stages.types import Axes, Camera

Scene = tuple[AnimatedMesh, Camera, Window]


def filmed(seed: int) -> Scene:
    mesh = make_object(None, seed, 3)
    camera = input_camera(stream(seed, "film"), mesh)[1]
    return mesh, camera, crop_window(mesh, camera, 64)


def aside() -> Scene:
    """A ball far from the middle of a camera's picture, left and above, and its crop."""
    mesh = assemble([ellipsoid(1, 1, 1)], 2)
    mesh = replace(mesh, vertices=mesh.vertices * np.float32(0.4) + np.float32([-0.5, 0.1, 0.6]))
    camera = orbit_camera(FRONT_YAW, 10.0, size=SOURCE_SIZE, radius=2.5, fov=50.0)
    return mesh, camera, crop_window(mesh, camera, 64)


def deep() -> Scene:
    """A rod that points at the camera."""
    mesh = assemble([ellipsoid(0.2, 1, 0.2)], 1)
    camera = orbit_camera(FRONT_YAW, 0.0, size=SOURCE_SIZE, radius=2.5, fov=40.0)
    return mesh, camera, crop_window(mesh, camera, 64)


def in_crop(scene: Scene, place: Placement, points: Doubles) -> Doubles:
    """Where points (n, 3) of the grid show, in sides of the crop from its middle, right and down."""
    _, camera, window = scene
    view = np.array(place.see(camera).world_to_camera)
    seen = points @ view[:3, :3].T + view[:3, 3]
    pixels = camera.focal * seen[:, :2] / seen[:, 2:] + (camera.width / 2, camera.height / 2)
    return cast(Doubles, (pixels - (window.left, window.top)) / window.side - 0.5)


ALL = {**{f"seed {seed}": lambda seed=seed: filmed(seed) for seed in range(12)}, "aside": aside, "deep": deep}


@pytest.mark.parametrize("name", ALL)
def test_the_crop_lays_out_a_grid_with_its_axes(name: str) -> None:
    scene = ALL[name]()
    mesh, camera, window = scene
    place = placement("crop", mesh, camera, window)
    points = place.place(mesh.solid()).vertices
    assert np.abs(points).max() <= 0.4801
    assert np.linalg.norm(points, axis=-1).max() <= 0.6601
    assert points[..., 1].min() == pytest.approx(-points[..., 1].max(), abs=1e-5), "the middle of its depth"
    np.testing.assert_allclose(in_crop(scene, place, np.zeros((1, 3))), 0, atol=1e-6)

    unit = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, 0, 0.5], [0, 0, -0.5]])
    left, right, top, bottom = in_crop(scene, place, unit)
    size = right[0] - left[0]
    # What is off the camera's axis is seen a little askew.
    np.testing.assert_allclose([left[1], right[1], top[0], bottom[0]], 0, atol=0.03)
    np.testing.assert_allclose([left[0], right[0], top[1], bottom[1]], np.array([-1, 1, -1, 1]) * size / 2, atol=0.03)
    ahead = in_crop(scene, place, np.array([[0, -0.5, 0], [0, 0.5, 0]]))
    np.testing.assert_allclose(ahead, 0, atol=1e-6)  # the way into the depth is the ray of the crop's middle
    assert size == pytest.approx(camera.focal / window.side / place.see(camera).world_to_camera[2][3], rel=0.02)
    full = max(np.abs(points).max() / 0.48, np.linalg.norm(points, axis=-1).max() / 0.66)
    assert size == pytest.approx(1, rel=0.02) or (size > 1 and full > 0.999), "smaller only if it had no room"


def test_a_deep_object_is_made_smaller() -> None:
    scene = deep()
    place = placement("crop", *scene)
    sides = in_crop(scene, place, np.array([[-0.5, 0, 0], [0.5, 0, 0]]))
    assert sides[1, 0] - sides[0, 0] > 1.5
    assert np.abs(place.place(scene[0]).vertices[..., 1]).max() == pytest.approx(0.48, abs=1e-4)


def test_where_the_crop_lies_in_the_picture_is_no_matter() -> None:
    """The same object, moved across the picture, lies in the middle of a grid that is turned as the ray is."""
    mesh, camera, window = aside()
    view = np.array(camera.world_to_camera)
    place = placement("crop", mesh, camera, window)
    points = place.place(mesh).vertices
    box = points[..., [0, 2]]
    np.testing.assert_allclose(box.min((0, 1)), -box.max((0, 1)), atol=0.05)  # but for perspective
    across = np.float32(0.9 * view[0, :3])
    moved = replace(mesh, vertices=mesh.vertices + across)
    there = crop_window(moved, camera, 64)
    assert abs(there.left - window.left) > SOURCE_SIZE / 8
    elsewhere = placement("crop", moved, camera, there)
    assert elsewhere.rotation[1] @ place.rotation[1] < 0.99, "it is seen from another side, by the ray"
    again = elsewhere.place(moved).vertices
    np.testing.assert_allclose(again @ elsewhere.rotation, points @ place.rotation, atol=0.03)


@pytest.mark.parametrize("axes", ["world", "yaw", "camera", "crop"])
def test_the_camera_sees_in_the_grid_what_it_saw_in_the_world(axes: Axes) -> None:
    mesh, camera, window = filmed(4)
    place = placement(axes, mesh, camera, window)
    for points, seen in ((mesh.vertices[0], camera), (place.place(mesh).vertices[0], place.see(camera))):
        view = np.array(seen.world_to_camera)
        there = points.astype(np.float64) @ view[:3, :3].T + view[:3, 3]
        pixels = seen.focal * there[:, :2] / there[:, 2:]
        if seen is camera:
            expected = pixels
    np.testing.assert_allclose(pixels, expected, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_grids_with_other_axes_are_filled(seed: int) -> None:
    mesh, camera, window = filmed(seed)
    world = placement("world", mesh, camera, window)
    np.testing.assert_array_equal(world.place(mesh).vertices, mesh.vertices)
    assert world.see(camera) == camera
    view = np.array(camera.world_to_camera)
    upward: dict[Axes, Doubles] = {"yaw": np.array([0.0, 0.0, 1.0]), "camera": -view[1, :3]}
    for axes, up in upward.items():
        for other in (window, replace(window, left=window.left - 50.0, side=window.side * 2)):
            turned = placement(axes, mesh, camera, other)
            points = turned.place(mesh.solid()).vertices
            np.testing.assert_allclose(turned.rotation[[0, 2]], [view[0, :3], up], atol=1e-12)
            np.testing.assert_allclose(points.min((0, 1)), -points.max((0, 1)), atol=1e-5)
            assert max(np.abs(points).max() / 0.48, np.linalg.norm(points, axis=-1).max() / 0.66) == pytest.approx(1)


@pytest.mark.parametrize("axes", get_args(Axes))
def test_a_clip_tells_its_axes(axes: Axes) -> None:
    for seed in (*range(6), 1769705996):  # the last one's object shows in the middle, whatever the axes
        spec = ClipSpec(seed=seed, num_frames=2, input_size=16, num_views=1, view_size=8, resolution=8, axes=axes)
        clip = make_clip(spec)
        assert [clip.axes, mirrored(clip).axes] == [axes, axes]


def test_unknown_axes_are_refused() -> None:
    with pytest.raises(InputError, match="axes must be one of world, yaw, camera, crop; got 'up'"):
        placement(cast(Axes, "up"), *filmed(0))
