"""Silhouette inflation: the solver against a dense one, shapes with known solids, and what a viewer would see."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ss4d.stages.inflation import PERSISTENCE, facing, inflate, squared_thickness, surface
from ss4d.stages.inflation_config import InflationConfig
from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera, quaternion_to_matrix
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import Clip


def disc(size: int, radius: float, x: float = 0.5, y: float = 0.5) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] + 0.5
    return (rows - y * size) ** 2 + (columns - x * size) ** 2 < radius**2


def clip_of(masks: np.ndarray, color: np.ndarray | None = None) -> Clip:
    """A clip with these masks (t, s, s), in one color or in colors (s, s, 3)."""
    rgb = np.broadcast_to(np.array([200, 120, 40]) if color is None else color, (*masks.shape, 3)) * masks[..., None]
    return Clip(
        rgb=torch.from_numpy(rgb.astype(np.uint8)),
        alpha=torch.from_numpy((masks * 255).astype(np.uint8)),
        crop=torch.tensor([0, 0, 10, 10]),
        confidence=torch.ones(len(masks)),
        method="alpha",
        fps=12.0,
    )


def dense_solution(masks: np.ndarray) -> np.ndarray:
    """The same equations, written down one by one and solved at once."""
    cells = [tuple(cell) for cell in np.argwhere(masks)]
    place = {cell: n for n, cell in enumerate(cells)}
    matrix = np.zeros((len(cells), len(cells)))
    for (t, y, x), n in place.items():
        for neighbor in ((t, y - 1, x), (t, y + 1, x), (t, y, x - 1), (t, y, x + 1)):
            if neighbor in place:
                matrix[n, n] += 1
                matrix[n, place[neighbor]] -= 1
            else:
                matrix[n, n] += 2  # u there is -u here, so that u is 0 half way
        for later in ((t - 1, y, x), (t + 1, y, x)):
            if later in place:
                matrix[n, n] += float(PERSISTENCE)
                matrix[n, place[later]] -= float(PERSISTENCE)
    solution = np.zeros(masks.shape)
    solution[masks] = np.linalg.solve(matrix, np.full(len(cells), 4.0)) if cells else 0
    return solution


@settings(max_examples=15, deadline=None)
@given(arrays(np.bool_, (3, 5, 6), elements=st.booleans()))
def test_solves_the_equations(masks: np.ndarray) -> None:
    square = squared_thickness(masks)
    np.testing.assert_allclose(square[masks], dense_solution(masks)[masks], rtol=5e-3)
    assert (square[~masks] < 0).all()


def test_disc_becomes_ball() -> None:
    square = squared_thickness(disc(64, 20)[None])[0]
    assert np.sqrt(square.max()) == pytest.approx(20, rel=0.03)
    points, normals, cells = surface(square, depth=1.0)
    center = points - [32, 32, 0]
    np.testing.assert_allclose(np.linalg.norm(center, axis=1), 20, atol=0.8)
    assert ((normals * center).sum(1) / 20 > 0.85).all()
    assert disc(64, 20)[cells[:, 0], cells[:, 1]].all()


@pytest.mark.parametrize("depth", [0.3, 0.8])
def test_front_and_back_are_alike_and_flattened(depth: float) -> None:
    points, normals, _ = surface(squared_thickness(disc(48, 15)[None])[0], depth)
    half = len(points) // 2
    np.testing.assert_array_equal(points[:half] * [1, 1, -1], points[half:])
    np.testing.assert_array_equal(normals[:half] * [1, 1, -1], normals[half:])
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, rtol=1e-5)
    assert points[:, 2].max() == pytest.approx(15 * depth, abs=0.7)


@settings(max_examples=20, deadline=None)
@given(arrays(np.bool_, (1, 12, 12), elements=st.booleans()))
def test_every_cell_of_any_mask_is_covered(masks: np.ndarray) -> None:
    points, _, cells = surface(squared_thickness(masks)[0], 0.5)
    assert np.isfinite(points).all()
    covered = np.zeros_like(masks[0])
    covered[cells[:, 0], cells[:, 1]] = True
    np.testing.assert_array_equal(covered, masks[0])


def test_frames_hold_each_other_steady() -> None:
    joined, parted = disc(48, 14), disc(48, 14)
    parted[:, 23:25] = False
    apart = squared_thickness(joined[None])[0] - squared_thickness(parted[None])[0]
    coupled = squared_thickness(np.stack([joined, parted]))
    assert np.abs(coupled[0] - coupled[1])[parted].mean() < 0.5 * np.abs(apart)[parted].mean()


@pytest.mark.parametrize("yaw", [FRONT_YAW, FRONT_YAW + 60, FRONT_YAW + 90, 0.0])
def test_solid_from_every_side(yaw: float) -> None:
    gaussians = inflate(InflationConfig(depth=1.0, resolution=64), clip_of(disc(96, 40)[None]))
    _, alpha = rasterize(gaussians, orbit_camera(yaw, 10, size=96))
    # A ball of radius 0.5 at distance 2 covers sin = 1/4 of the view's axis, tan = 1 / sqrt(15).
    radius = 96 / (2 * np.tan(np.radians(20))) / np.sqrt(15)
    assert (alpha.numpy()[disc(96, radius - 1.5)] > 0.99).all()
    assert (alpha.numpy()[~disc(96, radius + 2)] < 0.05).all()


def test_faces_the_viewer_with_the_right_side_up() -> None:
    corner = disc(60, 10, x=0.75, y=0.3)  # to the right and up
    colors = np.zeros((60, 60, 3))
    colors[:, :45], colors[:, 45:] = (250, 10, 10), (10, 10, 250)
    gaussians = inflate(InflationConfig(resolution=60), clip_of(corner[None], colors))
    right, down, forward = np.array(orbit_camera(FRONT_YAW, 0, size=1).world_to_camera)[:3, :3]
    means = gaussians.means.numpy()
    assert (means @ right).mean() == pytest.approx(0.25 * 1.2, abs=0.01)
    assert (means @ down).mean() == pytest.approx(-0.2 * 1.2, abs=0.01)
    assert means[: len(means) // 2] @ forward == pytest.approx(-(means[len(means) // 2 :] @ forward))
    red = (means @ right) < 0.25 * 1.2 - 0.03
    blue = (means @ right) > 0.25 * 1.2 + 0.03
    assert (gaussians.colors[red][:, 0] > 0.9).all()
    assert (gaussians.colors[blue][:, 2] > 0.9).all()


def test_dark_rim_of_premultiplied_colors_is_not_seen() -> None:
    soft = np.clip(41 - np.hypot(*(np.mgrid[:96, :96] - 47.5)), 0, 1)  # an edge of one pixel
    clip = clip_of(soft[None])
    gaussians = inflate(InflationConfig(resolution=96), clip)
    assert (gaussians.colors - torch.tensor([200, 120, 40]) / 255).abs().max() < 0.02


def test_empty_frames_stay_empty() -> None:
    masks = np.stack([disc(32, 10), np.zeros((32, 32), bool), disc(32, 8)])
    told: list[tuple[int, int]] = []
    gaussians = inflate(InflationConfig(resolution=32), clip_of(masks), progress=lambda *x: told.append(x))
    counts = gaussians.offsets.diff()
    assert counts[1] == 0
    assert (counts[[0, 2]] > 0).all()
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert inflate(InflationConfig(resolution=32), clip_of(masks[1:2])).num_frames == 1


def test_stays_in_the_cube() -> None:
    gaussians = inflate(InflationConfig(depth=1.0, resolution=48), clip_of(np.ones((1, 48, 48), bool)))
    assert gaussians.means.abs().max() <= 0.5


def test_facing_turns_z_to_the_normal() -> None:
    normals = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    normals = torch.cat((normals, torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])))
    torch.testing.assert_close(quaternion_to_matrix(facing(normals))[..., 2], normals, atol=1e-5, rtol=0)
