"""The rasterizer of triangles: what samples see and where on it, against plain arithmetic and other packages."""

import numpy as np
import pytest
import torch

from ss4d.stages.ops.cuda import nvdiffrast_triangles
from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.ops.probes import TRIANGLE_TOLERANCE, triangle_error
from ss4d.stages.ops.triangles import lens, project, see_triangles

CAMERA = orbit_camera(20, 10, size=64)


def test_each_sample_sees_the_nearest_triangle() -> None:
    assert triangle_error(see_triangles) < 1e-3  # samples on an edge may be on either side of it


def test_a_wrong_rasterizer_is_found() -> None:
    def first_only(points, faces, height, width):
        return see_triangles(points, faces[:1], height, width)

    assert triangle_error(first_only) > TRIANGLE_TOLERANCE


def test_weights_tell_the_place_in_space() -> None:
    """Of a triangle that is seen aslant, so that weights on the screen would be others."""
    vertices = np.array([[0.4, 0.9, 0.3], [-0.4, -0.9, 0.3], [0.1, 0.2, -0.4]], np.float32)
    view = lens(CAMERA)
    seen = see_triangles(project(vertices, view, np.float32(1)), np.array([[0, 1, 2]], np.int32), 64, 64)
    row, column = (seen.face == 0).nonzero()
    assert len(row) > 100
    again = project(np.einsum("nk,kc->nc", seen.weights[row, column], vertices), view, np.float32(1))
    np.testing.assert_allclose(again[:, 0], column + 0.5, atol=1e-2)
    np.testing.assert_allclose(again[:, 1], row + 0.5, atol=1e-2)
    np.testing.assert_allclose(1 / again[:, 2], seen.depth[row, column], rtol=1e-4)
    assert np.isinf(seen.depth[seen.face < 0]).all()
    assert not seen.weights[seen.face < 0].any()


def test_a_triangle_that_reaches_behind_the_camera_is_left_out() -> None:
    vertices = np.array([[0.0, 0, 0], [0.1, 0, 0.1], [0, 9.0, 0]], np.float32)
    points = project(vertices, lens(orbit_camera(0, 0, size=8)), np.float32(1))
    assert points[2, 2] == 0
    assert (see_triangles(points, np.array([[0, 1, 2]], np.int32), 8, 8).face == -1).all()


def test_nvdiffrast_sees_what_ours_sees() -> None:
    pytest.importorskip("nvdiffrast.torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    see = nvdiffrast_triangles(torch.device("cuda"))
    assert triangle_error(see) < TRIANGLE_TOLERANCE
    draw = np.random.default_rng(0)
    points = np.concatenate([draw.uniform(0, 60, (60, 2)), draw.uniform(0.3, 0.7, (60, 1))], axis=1).astype(np.float32)
    faces = np.arange(60, dtype=np.int32).reshape(-1, 3)
    ours, theirs = (draw_with(points, faces, 52, 60) for draw_with in (see_triangles, see))
    same = ours.face == theirs.face
    assert same.mean() > 1 - TRIANGLE_TOLERANCE
    np.testing.assert_allclose(theirs.weights[same], ours.weights[same], atol=0.05)
