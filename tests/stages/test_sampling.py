"""The sampler: exact on fields whose path is known, and faithful to the noise contract."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ss4d.stages.sampler_config import SamplerConfig
from ss4d.stages.sampler_params import SamplerParams
from ss4d.stages.sampling import (
    adams_bashforth_steps,
    clean_estimate,
    euler_steps,
    guided,
    latent_noise,
    one_by_one,
    sample,
    structure_noise,
    time_grid,
)

OWN = SamplerParams(steps=25, cfg_strength=5.0, cfg_interval=(0.5, 1.0), rescale_t=3.0)


@given(st.integers(1, 60), st.floats(0.1, 10))
def test_times_fall_from_one_to_zero_as_the_formula_says(steps: int, rescale_t: float) -> None:
    times = time_grid(steps, rescale_t)
    assert len(times) == steps + 1
    assert times[0] == pytest.approx(1, abs=1e-12)
    assert max(times) <= 1
    assert times[-1] == 0
    assert all(later < earlier for earlier, later in pairwise(times))
    for i, t in enumerate(times):
        u = 1 - i / steps
        assert t == pytest.approx(rescale_t * u / (1 + (rescale_t - 1) * u), abs=1e-12)


@given(st.integers(1, 20), st.floats(0.2, 5))
def test_a_straight_path_is_followed_exactly_in_any_number_of_steps(steps: int, rescale_t: float) -> None:
    noise, data = torch.randn(2, 3, 4, dtype=torch.float64)
    steps_taken = list(euler_steps(lambda x, t: noise - data, noise, time_grid(steps, rescale_t)))
    torch.testing.assert_close(steps_taken[-1].x, data)
    for step in steps_taken:
        torch.testing.assert_close(clean_estimate(step, sigma_min=0.0), data)


def test_a_curved_path_depends_on_each_time() -> None:
    # With v = t the path is the sum of the intervals, each weighted by its beginning.
    times = time_grid(4, 1.0)
    steps = list(euler_steps(lambda x, t: torch.full_like(x, t), torch.zeros(1, dtype=torch.float64), times))
    assert times == [1, 0.75, 0.5, 0.25, 0]
    assert steps[-1].x.item() == pytest.approx(-0.25 * (1 + 0.75 + 0.5 + 0.25))


def last_error(steps: int, rescale_t: float, interval: tuple[float, float]) -> float:
    """Of Adams-Bashforth for x' = 3 x, whose velocity is half as strong outside `interval`, from t = 1 to 0."""
    rate = lambda t: 3.0 if interval[0] <= t <= interval[1] else 1.5  # noqa: E731
    start = torch.ones(1, dtype=torch.float64)
    times = time_grid(steps, rescale_t)
    last = list(adams_bashforth_steps(lambda x, t: rate(t) * x, start, times, interval))[-1]
    change = next((t for t in times if t < interval[0]), 0.0)  # the first step that begins outside
    return abs(last.x.item() - np.exp(-3.0 * (1 - change) - 1.5 * change))


@pytest.mark.parametrize("rescale_t", [1.0, 3.0])
@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.5, 1.0)])
def test_adams_bashforth_errs_by_the_square_of_the_step(rescale_t: float, interval: tuple[float, float]) -> None:
    errors = [last_error(steps, rescale_t, interval) for steps in (20, 40, 80, 160)]
    orders = [np.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert orders[-1] == pytest.approx(2, abs=0.15)
    assert min(orders) > 1.5


def test_adams_bashforth_follows_a_straight_path_and_tells_of_each_velocity() -> None:
    noise, data = torch.randn(2, 3, 4, dtype=torch.float64)
    steps = list(adams_bashforth_steps(lambda x, t: noise - data, noise, time_grid(5, 3.0), (0.5, 1.0)))
    torch.testing.assert_close(steps[-1].x, data)
    assert all(torch.equal(step.v, noise - data) for step in steps)


def test_the_solver_is_the_one_asked_for() -> None:
    params = SamplerParams(steps=40, cfg_strength=0.0, cfg_interval=(0.5, 1), rescale_t=1.0)
    grow, start = (lambda x, t: 2 * x), torch.ones(1, dtype=torch.float64)
    exact = np.exp(-2.0)
    euler = abs(sample(grow, one_by_one(grow, grow), start, params, solver="euler").item() - exact)
    second = abs(sample(grow, one_by_one(grow, grow), start, params, solver="adams_bashforth").item() - exact)
    assert second < euler / 20


def test_the_clean_estimate_keeps_the_least_noise() -> None:
    x, v, sigma_min = torch.randn(3, 5), torch.randn(3, 5), 0.1
    (step,) = euler_steps(lambda x, t: v, x, [0.5, 0.0])
    torch.testing.assert_close(clean_estimate(step, sigma_min), 0.9 * x - (0.1 + 0.9 * 0.5) * v)


@pytest.mark.parametrize(("t", "expected"), [(0.5, 7.0), (0.8, 7.0), (0.49, 3.0), (0.81, 3.0)])
def test_guidance_acts_in_the_closed_interval_alone(t: float, expected: float) -> None:
    velocity = guided(lambda x, t: x + 3, lambda x, t: (x + 3, x + 1), strength=2, interval=(0.5, 0.8))
    assert velocity(torch.zeros(1), t).item() == expected


def test_without_strength_the_unconditional_velocity_is_never_asked() -> None:
    def never(x: torch.Tensor, t: float) -> torch.Tensor:
        raise AssertionError("asked")

    assert guided(lambda x, t: x + 3, never, strength=0, interval=(0, 1))(torch.zeros(1), 0.5).item() == 3


def test_sampling_tells_of_every_step() -> None:
    heard: list[tuple[int, int]] = []
    params = SamplerParams(steps=3, cfg_strength=1.0, cfg_interval=(0, 1), rescale_t=1.0)
    sample(lambda x, t: x, lambda x, t: (x, x), torch.ones(2), params, lambda *call: heard.append(call))
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_temperature_is_a_factor_on_the_noise() -> None:
    params = SamplerParams(steps=2, cfg_strength=0.0, cfg_interval=(0, 1), rescale_t=1.0, temperature=0.25)
    plain = replace(params, temperature=1.0)
    noise = torch.tensor([4.0, -8.0])
    grow = lambda x, t: x - t  # noqa: E731
    both = one_by_one(grow, grow)
    assert torch.equal(sample(grow, both, noise, params), sample(grow, both, noise / 4, plain))
    assert not torch.equal(sample(grow, both, noise, params), sample(grow, both, noise, plain))


def test_the_latents_noise_follows_the_structures_from_one_seed() -> None:
    shape = (2, 3, 4, 4, 4)
    whole = torch.Generator().manual_seed(7)
    first, second = torch.randn(shape, generator=whole), torch.randn((5, 8), generator=whole)
    assert torch.equal(structure_noise(shape, torch.Generator().manual_seed(7)), first)
    assert torch.equal(latent_noise(shape, (5, 8), torch.Generator().manual_seed(7)), second)


def test_a_null_is_filled_from_the_model_folder_and_a_value_is_kept() -> None:
    config = SamplerConfig(steps=3, cfg_interval=(0.1, 0.2)).resolve(OWN)
    assert config.params() == SamplerParams(steps=3, cfg_strength=5.0, cfg_interval=(0.1, 0.2), rescale_t=3.0)
    with pytest.raises(ValueError, match=r"\['cfg_strength', 'rescale_t', 'temperature'\]"):
        SamplerConfig(steps=3, cfg_interval=(0.1, 0.2)).params()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("steps", 0),
        ("steps", 2.5),
        ("cfg_strength", -1),
        ("cfg_strength", float("nan")),
        ("cfg_interval", (0.7, 0.2)),
        ("cfg_interval", (0.0, 1.1)),
        ("rescale_t", 0),
        ("rescale_t", float("inf")),
        ("temperature", -0.1),
        ("solver", "heun"),
        ("stepz", 3),
    ],
)
def test_an_impossible_value_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ValidationError, match=option):
        SamplerConfig.model_validate({option: value})


@pytest.mark.parametrize("rescale_t", [1.0, 3.0, 4.0, 5.0])
def test_times_are_those_of_numpy_to_the_last_bit(rescale_t: float) -> None:
    t = np.linspace(1, 0, 26)
    assert time_grid(25, rescale_t) == (rescale_t * t / (1 + (rescale_t - 1) * t)).tolist()
