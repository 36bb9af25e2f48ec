"""Voxels hold the surface, all of it and nothing else, and turn with it."""

import numpy as np
import pytest
import torch

from ss4d.stages.data.mesh import AnimatedMesh, Floats, Integers, assemble, rotation
from ss4d.stages.data.objects import make_object
from ss4d.stages.data.render import render_surface
from ss4d.stages.data.shapes import ellipsoid
from ss4d.stages.data.voxels import surface_voxels, visible
from ss4d.stages.ops.coords import Sites
from ss4d.stages.ops.geometry import orbit_camera


def samples(mesh: AnimatedMesh, count: int, seed: int = 0) -> Floats:
    """Random points (t, count, 3) of the surface, spread evenly."""
    rng = np.random.default_rng(seed)
    points = []
    for vertices in mesh.vertices:
        a, b, c = np.moveaxis(vertices[mesh.faces], 1, 0)
        area = np.linalg.norm(np.cross(b - a, c - a), axis=-1)
        face = rng.choice(len(area), count, p=area / area.sum(dtype=np.float64))
        u, v = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
        points.append(a[face] * (1 - u) + b[face] * u * (1 - v) + c[face] * u * v)
    return np.asarray(points, np.float32)


def dense(coords: Integers, frames: int, resolution: int) -> np.ndarray:
    grid = np.zeros((frames, resolution, resolution, resolution), bool)
    grid[tuple(coords[:, 1:].T)] = True
    return grid


@pytest.mark.parametrize(("family", "resolution"), [("quadruped", 32), ("butterfly", 32), ("vehicle", 64)])
def test_the_surface_lies_in_the_voxels_and_every_voxel_holds_some(family: str, resolution: int) -> None:
    mesh = make_object(family, 3, 3)
    coords, feats = surface_voxels(mesh, resolution)
    Sites(torch.from_numpy(coords))  # sorted, without duplicates
    assert coords.dtype == np.int32
    assert feats.dtype == np.float32
    grid = dense(coords, 3, resolution)
    for t, points in enumerate(samples(mesh, 20000)):
        cells = np.floor((points + 0.5) * resolution).astype(int)
        # A corner that dips into a cell by less than the samples' spacing may be missed.
        assert grid[t][tuple(cells.T)].mean() > 0.999
    # The mean of a cell's samples lies in the cell, no further from the surface than the cell is wide; the rest of the
    # tolerance is the gap between the random points.
    assert np.abs(feats[:, 6:]).max() <= 0.5
    near = (coords[:, 2:] + 0.5 + feats[:, 6:]) / resolution - 0.5
    some = near[coords[:, 1] == 1][::7]
    distance = torch.cdist(torch.from_numpy(some).float(), torch.from_numpy(samples(mesh, 20000)[1])).amin(1)
    assert distance.max() < 2.5 / resolution


def test_a_quarter_turn_permutes_the_voxels() -> None:
    mesh = make_object("crawler", 5, 2)
    coords, feats = surface_voxels(mesh, 32)
    for axis, (first, second) in {"x": (1, 2), "y": (2, 0), "z": (0, 1)}.items():
        turn = np.round(rotation(axis, 90)[0]).astype(np.float32)
        turned, turned_feats = surface_voxels(AnimatedMesh(mesh.vertices @ turn.T, mesh.faces, mesh.colors), 32)
        expected = coords.copy()
        expected[:, 2 + first], expected[:, 2 + second] = 31 - coords[:, 2 + second], coords[:, 2 + first]
        order = np.lexsort(expected.T[::-1])
        same = dense(turned, 2, 32) == dense(expected, 2, 32)
        assert (~same).sum() <= 2  # samples exactly on a border between cells
        if same.all():
            np.testing.assert_allclose(turned_feats[:, :3], feats[order, :3], atol=1e-2)
            np.testing.assert_allclose(turned_feats[:, 6:], feats[order, 6:] @ turn.T, atol=1e-2)


def test_features_are_means_over_the_cells_surface() -> None:
    """A color that is linear in the place is, on average, the color at the mean place."""
    mesh = make_object("folding", 2, 2)
    still = AnimatedMesh(mesh.vertices[:1], mesh.faces, mesh.vertices[0] + 0.5)
    coords, feats = surface_voxels(still, 32)
    np.testing.assert_allclose(feats[:, :3], (coords[:, 2:] + 0.5 + feats[:, 6:]) / 32, atol=1e-5)
    length = np.linalg.norm(feats[:, 3:6], axis=-1)
    assert length.max() < 1 + 1e-5
    assert (length > 0.999).mean() > 0.99


def test_a_flat_square_fills_one_layer_with_its_normal() -> None:
    vertices = np.array(
        [[[-0.45, -0.45, 0.01], [0.45, -0.45, 0.01], [0.45, 0.45, 0.01], [-0.45, 0.45, 0.01]]], np.float32
    )
    mesh = AnimatedMesh(vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32), np.full((4, 3), 0.25, np.float32))
    coords, feats = surface_voxels(mesh, 20)
    assert len(coords) == 18 * 18
    assert set(coords[:, 4]) == {10}
    np.testing.assert_allclose(feats[:, :6], np.tile([0.25, 0.25, 0.25, 0, 0, 1], (324, 1)), atol=1e-5)
    np.testing.assert_allclose(feats[:, 8], 0.2 - 0.5, atol=1e-4)
    np.testing.assert_allclose(feats[:, 6:8], 0, atol=0.1)


def test_frames_are_independent_and_the_outermost_border_is_inside() -> None:
    mesh = make_object("ball", 1, 3)
    coords, feats = surface_voxels(mesh, 32)
    alone, alone_feats = surface_voxels(AnimatedMesh(mesh.vertices[1:2], mesh.faces, mesh.colors), 32)
    np.testing.assert_array_equal(coords[coords[:, 1] == 1][:, 2:], alone[:, 2:])
    np.testing.assert_array_equal(feats[coords[:, 1] == 1], alone_feats)
    edge = AnimatedMesh(
        np.array([[[0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [-0.5, 0.5, 0.5]]], np.float32),
        np.array([[0, 1, 2]], np.int32),
        np.ones((3, 3), np.float32),
    )
    coords, _ = surface_voxels(edge, 8)
    assert coords.min() == 0
    assert coords.max() == 7


def test_what_parts_hide_in_each_other_is_found() -> None:
    shell = ellipsoid(1, 1, 1)
    mesh = assemble([shell, ellipsoid(0.3, 0.3, 0.3).shifted(x=[0, 1.5])], 2)
    coords, _ = surface_voxels(mesh, 32)
    seen = visible(coords, 32)
    alone, _ = surface_voxels(AnimatedMesh(mesh.vertices[:1], shell.faces, mesh.colors), 32)
    first = coords[:, 1] == 0
    np.testing.assert_array_equal(coords[first & seen][:, 2:], alone[:, 2:])  # the inner ball is hidden, the outer not
    assert seen[~first].all()  # the ball has come out
    assert len(visible(coords[:0], 32)) == 0


@pytest.mark.parametrize("family", ["vehicle", "folding", "quadruped"])
def test_whatever_a_camera_sees_is_visible(family: str) -> None:
    mesh = make_object(family, 4, 2)
    coords, _ = surface_voxels(mesh, 32)
    seen = visible(coords, 32)
    assert 0.3 < seen.mean() < 0.995
    grid, whole = dense(coords[seen], 2, 32), dense(coords, 2, 32)
    for yaw, pitch in ((0, 10), (130, 50), (250, -20)):
        camera = orbit_camera(yaw, pitch, size=64)
        view = np.array(camera.world_to_camera)
        depth = render_surface(mesh, [camera])[0][0]
        t, row, column = np.nonzero(np.isfinite(depth))
        rays = np.stack(((column + 0.5 - 32) / camera.focal, (row + 0.5 - 32) / camera.focal, np.ones(len(row))), -1)
        points = (rays * depth[t, row, column][:, None] - view[:3, 3]) @ view[:3, :3]
        cells = (t, *np.floor((points + 0.5) * 32).astype(int).T)
        # Few pixels are lost: those in creases narrower than a cell.
        assert grid[cells][whole[cells]].mean() > 0.96
