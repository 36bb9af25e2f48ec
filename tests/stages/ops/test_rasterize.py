"""The rasterizer against its slow twin on random scenes, and what must hold for every scene."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from ss4d.stages.ops import rasterize_reference
from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.ops.rasterize import CLASSIC, MIP_SPLATTING, ScreenFilter, contributions, rasterize
from ss4d.stages.types import Camera, GaussianClip

BACKGROUND = (0.2, 0.5, 0.9)
CAMERA = orbit_camera(30, 20, size=45)


def scene(count: int, seed: int, *, scale: float = 0.03, spread: float = 0.3) -> GaussianClip:
    """Random Gaussians of very different sizes and shapes, some opaque, some hardly visible."""
    draw = torch.Generator().manual_seed(seed)
    return GaussianClip(
        means=spread * torch.randn(count, 3, generator=draw),
        scales=scale * torch.exp(torch.randn(count, 3, generator=draw)),
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=draw), dim=-1),
        colors=1.4 * torch.rand(count, 3, generator=draw) - 0.2,
        opacities=torch.sigmoid(3 * torch.randn(count, generator=draw)),
        offsets=torch.tensor([0, count]),
    )


def one(**changes: torch.Tensor) -> GaussianClip:
    """One round white Gaussian at the origin, changed."""
    values = {
        "means": torch.zeros(1, 3),
        "scales": torch.full((1, 3), 0.1),
        "quats": torch.tensor([[1.0, 0, 0, 0]]),
        "colors": torch.ones(1, 3),
        "opacities": torch.tensor([0.8]),
    }
    return GaussianClip(**(values | changes), offsets=torch.tensor([0, 1]))


def rows(gaussians: GaussianClip, index: torch.Tensor) -> GaussianClip:
    arrays = {name: getattr(gaussians, name)[index] for name in ("means", "scales", "quats", "colors", "opacities")}
    return GaussianClip(**arrays, offsets=torch.tensor([0, len(index)]))


def check_against_reference(gaussians: GaussianClip, camera: Camera, screen_filter: ScreenFilter) -> None:
    """A Gaussian at the brink of 1/255 or of the last transmittance may fall on either side of it in float32."""
    fast = rasterize(gaussians, camera, background=BACKGROUND, screen_filter=screen_filter)
    slow = rasterize_reference.rasterize(gaussians, camera, background=BACKGROUND, screen_filter=screen_filter)
    for got, expected in zip(fast, slow, strict=True):
        error = (got - expected).abs()
        assert error.max() < 5e-3
        assert error.mean() < 2e-5


@pytest.mark.parametrize("screen_filter", [MIP_SPLATTING, CLASSIC], ids=["mip", "classic"])
@pytest.mark.parametrize("scale", [0.001, 0.03, 0.5], ids=["tiny", "medium", "huge"])
def test_agrees_with_the_reference(scale: float, screen_filter: ScreenFilter) -> None:
    for seed in range(2):
        check_against_reference(scene(300, seed, scale=scale), CAMERA, screen_filter)


def test_agrees_from_inside_the_cloud_and_on_an_oblong_image() -> None:
    """Here Gaussians lie behind the camera, beside it, and so near that they fill the screen."""
    inside = orbit_camera(200, -35, size=50, radius=0.2)
    check_against_reference(scene(400, 7), replace(inside, width=70, height=37), MIP_SPLATTING)


def test_agrees_on_needles_across_the_whole_image() -> None:
    """As an unfactored quadratic form these lose their digits in float32."""
    gaussians = scene(60, 8)
    needles = torch.tensor([0.5, 0.0005, 0.0005]).expand(60, 3).clone()
    check_against_reference(replace(gaussians, scales=needles), orbit_camera(30, 20, size=150), MIP_SPLATTING)


def test_an_empty_scene_is_background() -> None:
    rgb, alpha = rasterize(rows(scene(1, 0), torch.tensor([], dtype=torch.int64)), CAMERA, background=BACKGROUND)
    assert_close(rgb, torch.tensor(BACKGROUND).expand_as(rgb))
    assert not alpha.any()


def test_the_order_of_gaussians_does_not_matter() -> None:
    gaussians = scene(2000, 1)
    shuffled = rows(gaussians, torch.randperm(2000, generator=torch.Generator().manual_seed(0)))
    for got, expected in zip(rasterize(shuffled, CAMERA), rasterize(gaussians, CAMERA), strict=True):
        assert torch.equal(got, expected)


def test_the_result_is_the_same_on_any_number_of_threads_and_beside_other_renderings() -> None:
    gaussians, threads = scene(2000, 2), torch.get_num_threads()
    expected = rasterize(gaussians, CAMERA)[0]
    with ThreadPoolExecutor(8) as pool:
        pictures = [pool.submit(rasterize, gaussians, CAMERA) for _ in range(16)]
        assert all(torch.equal(picture.result()[0], expected) for picture in pictures)
    torch.set_num_threads(1)
    try:
        assert torch.equal(rasterize(gaussians, CAMERA)[0], expected)
    finally:
        torch.set_num_threads(threads)


def test_what_is_behind_the_camera_or_too_near_is_not_seen() -> None:
    position = -torch.tensor(CAMERA.world_to_camera)[:3, :3].T @ torch.tensor(CAMERA.world_to_camera)[:3, 3]
    for along in (1.5, 0.997):  # in units of the distance to the origin, the second 0.006 in front of the camera
        assert not rasterize(one(means=along * position[None]), CAMERA)[1].any()
    assert rasterize(one(means=0.9 * position[None]), CAMERA)[1].any()


def test_not_a_number_is_not_seen() -> None:
    for name in ("means", "scales", "opacities"):
        broken = one(**{name: getattr(one(), name) * math.nan})
        assert not rasterize(broken, CAMERA)[1].any(), name


def test_the_middle_of_one_gaussian_has_the_alpha_one_can_compute() -> None:
    camera = orbit_camera(0, 0, size=61)  # odd, so that a pixel's center is the Gaussian's
    variance = (camera.focal / 2 * 0.1) ** 2  # of the 0.1 wide Gaussian 2 units away, in pixel^2
    rgb, alpha = rasterize(one(colors=torch.tensor([[0.5, -3.0, 1.0]])), camera)
    expected = 0.8 * variance / (variance + 0.1)
    assert alpha[30, 30].item() == pytest.approx(expected, rel=1e-5)
    assert rgb[30, 30].tolist() == pytest.approx([0.5 * expected, 0, expected], rel=1e-5)
    beside = expected * math.exp(-0.5 * 9 / (variance + 0.1))
    assert alpha[30, 33].item() == pytest.approx(beside, rel=1e-5)
    assert alpha[33, 30].item() == pytest.approx(beside, rel=1e-5)
    classic = rasterize(one(), camera, screen_filter=CLASSIC)[1]
    assert classic[30, 30].item() == pytest.approx(0.8, rel=1e-5)


def test_alpha_is_capped_and_faint_gaussians_are_skipped() -> None:
    opaque = one(scales=torch.full((1, 3), 0.5), opacities=torch.tensor([1.0]))
    assert rasterize(opaque, CAMERA)[1].max().item() == pytest.approx(0.99, rel=1e-6)
    assert not rasterize(one(opacities=torch.tensor([0.0039])), CAMERA)[1].any()


def test_the_nearer_gaussian_hides_the_farther_one() -> None:
    camera = orbit_camera(0, 0, size=61)
    both = GaussianClip(
        means=torch.tensor([[0.0, -0.3, 0.0], [0.0, 0.3, 0.0]]),
        scales=torch.full((2, 3), 0.2),
        quats=torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4).clone(),
        colors=torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]),
        opacities=torch.tensor([0.9, 0.9]),
        offsets=torch.tensor([0, 2]),
    )
    red, green, _ = rasterize(both, camera)[0][30, 30].tolist()
    assert green == pytest.approx(0.9, abs=1e-2)
    assert red == pytest.approx(0.09, abs=1e-2)


def test_a_small_gaussian_keeps_its_light_as_the_image_shrinks() -> None:
    """What the opacity compensation is for: the sum over pixels scales with the area of a pixel."""
    small = one(scales=torch.full((1, 3), 0.004))
    light = [rasterize(small, orbit_camera(0, 0, size=size))[1].sum().item() / size**2 for size in (401, 201, 101)]
    assert light == pytest.approx([light[0]] * 3, rel=0.15)


def test_contributions_are_the_pixels_that_each_gaussian_makes_up() -> None:
    some, camera = scene(40, seed=6), orbit_camera(30, 20, size=48)
    shown = contributions(some, camera)
    for row in range(40):
        colors = torch.zeros(40, 3)
        colors[row] = 1
        assert_close(
            shown[row], rasterize(replace(some, colors=colors), camera)[0][..., 0].double().sum(), atol=1e-3, rtol=1e-4
        )
    assert_close(shown.sum(), rasterize(some, camera)[1].double().sum(), atol=1e-2, rtol=1e-4)
    assert contributions(scene(0, seed=0), camera).shape == (0,)
