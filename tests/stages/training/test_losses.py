"""Every loss against a loop that follows its definition word by word, and what must hold on any input."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ss4d.stages.training import losses


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_l1_is_what_it_says() -> None:
    a, b = draw(2, 4, 5, 3), draw(2, 4, 5, 3, seed=1)
    pairs = list(zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
    assert losses.l1(a, b).item() == pytest.approx(sum(abs(p - q) for p, q in pairs) / len(pairs))


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


def test_dice_agrees_with_a_loop() -> None:
    logits, occupied = 3 * normal(4, 1, 3, 3, 3), (draw(4, 1, 3, 3, 3) > 0.7).float()
    coefficients = []
    for grid, truth in zip(logits, occupied, strict=True):
        overlap = total = 0.0
        for z, y in zip(grid.flatten().tolist(), truth.flatten().tolist(), strict=True):
            p = 1 / (1 + math.exp(-z))
            overlap, total = overlap + p * y, total + p + y
        coefficients.append(1 - (2 * overlap + 1) / (total + 1))
    assert losses.dice(logits, occupied).item() == pytest.approx(sum(coefficients) / 4, rel=1e-5)


def test_a_perfect_occupancy_costs_nothing_even_if_empty() -> None:
    occupied = (draw(2, 1, 4, 4, 4) > 0.8).float()
    occupied[1] = 0
    logits = 60 * (2 * occupied - 1)
    for loss in (losses.bce, losses.dice):
        assert loss(logits, occupied).item() == pytest.approx(0, abs=1e-6)
        assert loss(-logits, occupied).item() > 0.5


def test_motion_is_how_far_changes_are_off() -> None:
    images, targets = draw(3, 4, 5, 3), draw(3, 4, 5, 3, seed=1)
    followed = torch.tensor([[0, 1], [1, 2]])
    off = [(images[k + 1] - images[k]) - (targets[k + 1] - targets[k]) for k in range(2)]
    assert losses.motion(images, targets, followed).item() == pytest.approx(torch.stack(off).abs().mean().item())
    assert losses.motion(targets + 0.1, targets, followed).item() == pytest.approx(0, abs=1e-6)
    assert losses.motion(images, targets, followed[:, :0]).item() == 0


def test_voxels_that_are_wrong_alike_in_all_frames_have_the_right_motion() -> None:
    occupied = (draw(2, 4, 50) > 0.7).float()
    wrong = occupied.clone()
    wrong[:, :, :10] = 1 - occupied[:, :1, :10].repeat(1, 4, 1)
    occupied[:, :, :10] = occupied[:, :1, :10]
    assert losses.occupancy_motion(60 * (2 * wrong - 1), occupied).item() == pytest.approx(0, abs=1e-6)
    still = occupied[:, :1].expand(-1, 4, -1)
    change = (occupied[:, 1:] - occupied[:, :-1]).abs().sum().item()
    expected = change / (still[:, 1:].sum().item() + occupied[:, 1:].sum().item() + 1)
    assert losses.occupancy_motion(60 * (2 * still - 1), occupied).item() == pytest.approx(expected, rel=1e-5)
    assert losses.occupancy_motion(occupied[:, :1], occupied[:, :1]).item() == 0


def test_regularisers_agree_with_loops() -> None:
    opacities, scales = draw(6, 1), draw(6, 3, seed=1)
    expected = sum((1 - o) ** 2 for o in opacities.flatten().tolist()) / 6
    assert losses.transparency(opacities).item() == pytest.approx(expected)
    expected = sum(math.prod(8 * s for s in row) for row in scales.tolist()) / 6
    assert losses.volume(scales, 8).item() == pytest.approx(expected)


def test_regularisers_ask_nothing_of_no_gaussian() -> None:
    assert losses.transparency(torch.zeros(0, 1)).item() == 0
    assert losses.volume(torch.zeros(0, 3), 8).item() == 0
