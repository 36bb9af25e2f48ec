"""Rotations and cameras against hand-computed cases and against what holds for every rotation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from ss4d.stages.ops.geometry import orbit_camera, quaternion_product, quaternion_to_matrix, rotate_gaussians
from ss4d.stages.types import Camera, GaussianClip

ANGLES = st.floats(-720, 720)


def random_quats(count: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 4, generator=draw, dtype=torch.float64), dim=-1)


def pixel(camera: Camera, point: tuple[float, float, float]) -> tuple[float, float, float]:
    """Column, row and depth of a world point."""
    x, y, z, _ = (torch.tensor(camera.world_to_camera) @ torch.tensor([*point, 1.0])).tolist()
    return camera.focal * x / z + camera.width / 2, camera.focal * y / z + camera.height / 2, z


def test_matrices_are_rotations_and_products_compose() -> None:
    left, right = random_quats(50, 0), random_quats(50, 1)
    matrices = quaternion_to_matrix(left)
    assert_close(matrices @ matrices.mT, torch.eye(3, dtype=torch.float64).expand_as(matrices))
    assert_close(matrices.det(), torch.ones(50, dtype=torch.float64))
    assert_close(quaternion_to_matrix(quaternion_product(left, right)), matrices @ quaternion_to_matrix(right))


def test_length_and_sign_of_a_quaternion_do_not_matter() -> None:
    quats = random_quats(50, 2)
    assert_close(quaternion_to_matrix(-3 * quats), quaternion_to_matrix(quats))


def test_a_quarter_turn_about_z_moves_x_to_y() -> None:
    quat = torch.tensor([math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)], dtype=torch.float64)
    assert_close(
        quaternion_to_matrix(quat) @ torch.eye(3, dtype=torch.float64)[0], torch.eye(3, dtype=torch.float64)[1]
    )


def test_turned_gaussians_keep_their_shape_and_turn_their_covariance() -> None:
    draw = torch.Generator().manual_seed(3)
    gaussians = GaussianClip(
        means=torch.randn(20, 3, generator=draw),
        scales=torch.rand(20, 3, generator=draw),
        quats=random_quats(20, 4).float(),
        colors=torch.rand(20, 3, generator=draw),
        opacities=torch.rand(20, generator=draw),
        offsets=torch.tensor([0, 5, 5, 20]),
    )
    quat = random_quats(1, 5)[0]
    turned, matrix = rotate_gaussians(gaussians, quat), quaternion_to_matrix(quat).float()

    def covariances(clip: GaussianClip) -> torch.Tensor:
        axes = quaternion_to_matrix(clip.quats) * clip.scales[:, None]
        return axes @ axes.mT

    assert_close(turned.means, gaussians.means @ matrix.T, atol=1e-6, rtol=0)
    assert_close(covariances(turned), matrix @ covariances(gaussians) @ matrix.T, atol=1e-6, rtol=0)
    assert turned.scales is gaussians.scales
    assert turned.offsets is gaussians.offsets


@given(yaw=ANGLES, pitch=st.floats(-90, 90), radius=st.floats(0.5, 10))
def test_camera_sits_where_the_formula_says_and_sees_the_origin_in_the_center(
    yaw: float, pitch: float, radius: float
) -> None:
    camera = orbit_camera(yaw, pitch, size=100, radius=radius)
    view = torch.tensor(camera.world_to_camera, dtype=torch.float64)
    rotation = view[:3, :3]
    assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64))
    assert rotation.det() > 0
    a, b = math.radians(yaw), math.radians(pitch)
    place = (math.sin(a) * math.cos(b), math.cos(a) * math.cos(b), math.sin(b))
    assert_close(-rotation.T @ view[:3, 3], radius * torch.tensor(place, dtype=torch.float64))
    assert pixel(camera, (0, 0, 0)) == pytest.approx((50, 50, radius))
    assert float(rotation[0, 2]) == 0, "the horizon is level"
    assert float(rotation[1, 2]) <= 1e-12, "up in the world is up in the picture"


def test_a_camera_at_plus_y_sees_up_above_and_plus_x_to_the_left() -> None:
    camera = orbit_camera(0, 0, size=200)
    assert camera.focal == pytest.approx(100 / math.tan(math.radians(20)))
    assert pixel(camera, (0, 0, 0.5)) == pytest.approx((100, 100 - camera.focal * 0.25, 2))
    assert pixel(camera, (0.5, 0, 0)) == pytest.approx((100 - camera.focal * 0.25, 100, 2))
    assert pixel(camera, (0, 0.5, 0)) == pytest.approx((100, 100, 1.5))


def test_yaw_moves_the_camera_from_plus_y_to_plus_x() -> None:
    assert pixel(orbit_camera(90, 0, size=200), (0.5, 0, 0)) == pytest.approx((100, 100, 1.5))


def test_the_edge_of_the_field_of_view_is_the_edge_of_the_image() -> None:
    camera = orbit_camera(0, 0, size=64, radius=1, fov=90)
    assert pixel(camera, (-1, 0, 0)) == pytest.approx((64, 32, 1))
