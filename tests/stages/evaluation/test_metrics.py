"""Every measure against loops that say what it means."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ss4d.stages.evaluation.metrics import flicker, motion_error, occupancy_iou, psnr, ssim


def random_images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(seed))


def slow_psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    total = sum((float(x) - float(y)) ** 2 for x, y in zip(a.flatten(), b.flatten(), strict=True))
    return 10 * math.log10(1 / (total / a.numel()))


def slow_ssim(a: torch.Tensor, b: torch.Tensor) -> float:
    """Pixel by pixel, with means, variances and covariance as they are defined."""
    weights = np.array([[math.exp(-(i * i + j * j) / (2 * 1.5**2)) for i in range(-5, 6)] for j in range(-5, 6)])
    weights /= weights.sum()
    height, width, channels = a.shape
    values = []
    for channel in range(channels):
        for y in range(5, height - 5):
            for x in range(5, width - 5):
                p, q = (i[y - 5 : y + 6, x - 5 : x + 6, channel].double().numpy() for i in (a, b))
                mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
                var_p, var_q = (weights * (p - mean_p) ** 2).sum(), (weights * (q - mean_q) ** 2).sum()
                covariance = (weights * (p - mean_p) * (q - mean_q)).sum()
                structure = (2 * mean_p * mean_q + 0.01**2) * (2 * covariance + 0.03**2)
                values.append(structure / ((mean_p**2 + mean_q**2 + 0.01**2) * (var_p + var_q + 0.03**2)))
    return float(np.mean(values))


def test_psnr_against_a_loop() -> None:
    a, b = random_images(2, 3, 5, 4), random_images(2, 3, 5, 4, seed=1)
    expected = [[slow_psnr(x, y) for x, y in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)]
    torch.testing.assert_close(psnr(a, b), torch.tensor(expected), rtol=1e-5, atol=0)


def test_psnr_of_a_known_error_and_of_none() -> None:
    a = torch.full((4, 4, 3), 0.5)
    assert float(psnr(a, a + 0.1)) == pytest.approx(20, abs=1e-4)
    assert float(psnr(a, a)) == pytest.approx(100)


def test_ssim_against_a_loop() -> None:
    a = random_images(2, 13, 15)
    b = (a + 0.3 * random_images(2, 13, 15, seed=1)).clamp(0, 1)
    expected = torch.tensor([slow_ssim(x, y) for x, y in zip(a, b, strict=True)])
    torch.testing.assert_close(ssim(a, b), expected, rtol=0, atol=2e-5)


def test_ssim_keeps_leading_axes_is_symmetric_and_one_for_equals() -> None:
    a, b = random_images(2, 3, 12, 14), random_images(2, 3, 12, 14, seed=1)
    assert ssim(a, b).shape == (2, 3)
    torch.testing.assert_close(ssim(a, b), ssim(b, a))
    torch.testing.assert_close(ssim(a, a), torch.ones(2, 3))


def test_ssim_keeps_its_digits_under_autocast() -> None:
    a, b = random_images(1, 16, 16), random_images(1, 16, 16, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ssim(a, b)
    assert torch.equal(inside, ssim(a, b))


def test_following_the_gradient_of_ssim_leads_to_the_target() -> None:
    target = random_images(1, 16, 16)[..., :1]
    image = random_images(1, 16, 16, seed=1)[..., :1].requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        (1 - ssim(image, target)).sum().backward()
        optimizer.step()
    assert ssim(image, target).item() > 0.98


cells = st.sets(st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=40)


@settings(deadline=None)
@given(cells, cells)
def test_iou_against_sets(some: set[tuple[int, ...]], others: set[tuple[int, ...]]) -> None:
    def tensor(chosen: set[tuple[int, ...]]) -> torch.Tensor:
        return torch.tensor([(0, *cell) for cell in sorted(chosen)], dtype=torch.int32).reshape(-1, 5)

    expected = []
    for t in range(2):
        a, b = ({cell for cell in chosen if cell[0] == t} for chosen in (some, others))
        expected.append(len(a & b) / len(a | b) if a | b else 1.0)
    torch.testing.assert_close(occupancy_iou(tensor(some), tensor(others), 2, 4), torch.tensor(expected))


def slow_change(images: torch.Tensor) -> float:
    """Mean absolute change over views, steps and channel values, in a loop."""
    steps = [
        abs(float(x) - float(y))
        for view in images
        for before, after in pairwise(view)
        for x, y in zip(before.flatten(), after.flatten(), strict=True)
    ]
    return sum(steps) / len(steps)


def test_flicker_and_motion_error_against_loops() -> None:
    a, b = random_images(2, 3, 4, 4), 0.5 * random_images(2, 3, 4, 4, seed=1)
    assert flicker(a, b) == pytest.approx((slow_change(a) - slow_change(b)) / slow_change(b), rel=1e-4)
    assert motion_error(a, b) == pytest.approx(slow_change(a - b) / slow_change(b), rel=1e-4)


def test_flicker_and_motion_error_of_known_answers() -> None:
    truth = random_images(2, 5, 6, 6)
    still = truth[:, :1].expand_as(truth)
    assert flicker(truth, truth) == pytest.approx(0)
    assert motion_error(truth, truth) == pytest.approx(0)
    assert flicker(still, truth) == pytest.approx(-1)
    assert motion_error(still, truth) == pytest.approx(1)
    assert flicker(2 * truth, truth) == pytest.approx(1)


def test_no_flicker_where_the_truth_does_not_move() -> None:
    still = random_images(2, 1, 6, 6).expand(2, 4, 6, 6, 3)
    assert flicker(still, still) is None
    assert motion_error(still[:, :1], still[:, :1]) is None
