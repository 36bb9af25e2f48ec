"""Every loss against a loop that follows its definition word by word, and what must hold on any input."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ss4d.stages.training import losses


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Of one image (h, w, c), window by window."""
    place = np.arange(11) - 5
    window = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for c in range(a.shape[2]):
        for i in range(a.shape[0] - 10):
            for j in range(a.shape[1] - 10):
                p, q = a[i : i + 11, j : j + 11, c], b[i : i + 11, j : j + 11, c]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                found.append(
                    (2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)),
                )
    return float(np.mean(found))


def test_ssim_agrees_with_a_loop_over_windows() -> None:
    a, b = draw(2, 17, 14, 3), draw(2, 17, 14, 3, seed=1)
    b[1] = 0.9 * a[1] + 0.1 * b[1]
    expected = torch.tensor([slow_ssim(*(x[k].double().numpy() for x in (a, b))) for k in range(2)])
    assert_close(losses.ssim(a, b), expected.float(), atol=1e-5, rtol=1e-5)


def test_ssim_is_one_for_equal_images_only_and_symmetric() -> None:
    a, b = draw(3, 16, 16, 3), draw(3, 16, 16, 3, seed=1)
    assert_close(losses.ssim(a, a), torch.ones(3))
    assert (losses.ssim(a, b) < 0.5).all()
    assert_close(losses.ssim(a, b), losses.ssim(b, a))


def test_ssim_keeps_its_digits_under_autocast() -> None:
    a, b = draw(1, 16, 16, 3), draw(1, 16, 16, 3, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = losses.ssim(a, b)
    assert torch.equal(inside, losses.ssim(a, b))


def test_following_the_gradient_of_ssim_leads_to_the_target() -> None:
    target = draw(1, 16, 16, 1)
    image = draw(1, 16, 16, 1, seed=1).requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        (1 - losses.ssim(image, target)).sum().backward()
        optimizer.step()
    assert losses.ssim(image, target).item() > 0.98


def test_l1_and_psnr_are_what_they_say() -> None:
    a, b = draw(2, 4, 5, 3), draw(2, 4, 5, 3, seed=1)
    pairs = list(zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
    assert losses.l1(a, b).item() == pytest.approx(sum(abs(p - q) for p, q in pairs) / len(pairs))
    first = pairs[:60]
    error = sum((p - q) ** 2 for p, q in first) / 60
    assert losses.psnr(a, b)[0].item() == pytest.approx(10 * math.log10(1 / error), abs=1e-4)
    assert losses.psnr(a + 5, torch.ones_like(a)).min() == 100  # cut to 1, and equal images have no infinite ratio


def test_kl_agrees_with_a_loop_and_with_torch() -> None:
    mean, logvar = 2 * normal(7, 3), normal(7, 3, seed=1)
    terms = [
        (m * m + math.exp(v) - 1 - v) / 2
        for m, v in zip(mean.flatten().tolist(), logvar.flatten().tolist(), strict=True)
    ]
    assert losses.gaussian_kl(mean, logvar).item() == pytest.approx(sum(terms) / 21, rel=1e-5)
    ours = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    theirs = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0)).mean()
    assert_close(losses.gaussian_kl(mean, logvar), theirs)
    assert losses.gaussian_kl(torch.zeros(5), torch.zeros(5)) == 0


def test_kl_and_samples_stay_finite_on_extreme_variances() -> None:
    mean, logvar = torch.zeros(2), torch.tensor([-1e4, 1e4])
    assert losses.gaussian_kl(mean, logvar).isfinite()
    assert losses.sample(mean, logvar, torch.ones(2)).isfinite().all()


def test_samples_have_the_mean_and_the_variance() -> None:
    mean, logvar = torch.tensor([1.0, -2.0]), torch.tensor([0.5, -1.0])
    drawn = losses.sample(mean, logvar, normal(200_000, 2))
    assert_close(drawn.mean(0), mean, atol=0.02, rtol=0)
    assert_close(drawn.var(0), logvar.exp(), atol=0.02, rtol=0)


def test_bce_agrees_with_a_loop() -> None:
    logits, occupied = 3 * normal(2, 3, 3, 3), (draw(2, 3, 3, 3) > 0.7).float()
    terms = []
    for z, y in zip(logits.double().flatten().tolist(), occupied.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        terms.append(-(y * math.log(p) + (1 - y) * math.log(1 - p)))
    assert losses.bce(logits, occupied).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_dice_and_iou_agree_with_loops() -> None:
    logits, occupied = 3 * normal(4, 1, 3, 3, 3), (draw(4, 1, 3, 3, 3) > 0.7).float()
    coefficients, ratios = [], []
    for grid, truth in zip(logits, occupied, strict=True):
        overlap = total = both = either = 0.0
        for z, y in zip(grid.flatten().tolist(), truth.flatten().tolist(), strict=True):
            p = 1 / (1 + math.exp(-z))
            overlap, total = overlap + p * y, total + p + y
            both, either = both + (z > 0 and y > 0), either + (z > 0 or y > 0)
        coefficients.append(1 - (2 * overlap + 1) / (total + 1))
        ratios.append(both / either)
    assert losses.dice(logits, occupied).item() == pytest.approx(sum(coefficients) / 4, rel=1e-5)
    assert_close(losses.iou(logits, occupied), torch.tensor(ratios))


def test_a_perfect_occupancy_costs_nothing_even_if_empty() -> None:
    occupied = (draw(2, 1, 4, 4, 4) > 0.8).float()
    occupied[1] = 0
    logits = 60 * (2 * occupied - 1)
    for loss in (losses.bce, losses.dice):
        assert loss(logits, occupied).item() == pytest.approx(0, abs=1e-6)
        assert loss(-logits, occupied).item() > 0.5
    assert losses.iou(logits, occupied).tolist() == [1, 1]


def test_regularisers_agree_with_loops() -> None:
    opacities, scales = draw(6, 1), draw(6, 3, seed=1)
    expected = sum((1 - o) ** 2 for o in opacities.flatten().tolist()) / 6
    assert losses.transparency(opacities).item() == pytest.approx(expected)
    expected = sum(math.prod(8 * s for s in row) for row in scales.tolist()) / 6
    assert losses.volume(scales, 8).item() == pytest.approx(expected)


def test_regularisers_ask_nothing_of_no_gaussian() -> None:
    assert losses.transparency(torch.zeros(0, 1)).item() == 0
    assert losses.volume(torch.zeros(0, 3), 8).item() == 0
