"""Rectified flow: from noise at t = 1 to data at t = 0 along a velocity field (docs/model.md, section 4).

Tensors keep whatever axes the caller's velocity function understands; t is a Python float (64 bits) in 0 to 1.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ss4d.stages.errors import ModelError
from ss4d.stages.sampler_params import SamplerParams, Solver
from ss4d.stages.types import Progress, silent

Velocity = Callable[[Tensor, float], Tensor]  # (x, t) -> v, shaped like x
WithAndWithout = Callable[[Tensor, float], tuple[Tensor, Tensor]]  # (x, t) -> v under a condition and under none


@dataclass(frozen=True)
class Step:
    """One step: the state after it, and the velocity `v` at (`x_before`, `t`)."""

    t: float
    x_before: Tensor
    v: Tensor
    x: Tensor


def time_grid(steps: int, rescale_t: float) -> list[float]:
    """The `steps` + 1 times from 1 down to 0, bent toward the noise by `rescale_t`."""
    t = np.linspace(1, 0, steps + 1)  # as the authors; torch's differs in the last bit for most numbers of steps
    # Rounding may lift the first time above 1 and so out of a guidance interval that ends at 1.
    times: list[float] = np.minimum(rescale_t * t / (1 + (rescale_t - 1) * t), 1).tolist()
    return times


def one_by_one(conditional: Velocity, unconditional: Velocity) -> WithAndWithout:
    """Velocities that have no work in common."""
    return lambda x, t: (conditional(x, t), unconditional(x, t))


def guided(
    conditional: Velocity, with_and_without: WithAndWithout, strength: float, interval: tuple[float, float]
) -> Velocity:
    """Classifier-free guidance inside the closed interval of t, the conditional velocity alone outside it."""

    def velocity(x: Tensor, t: float) -> Tensor:
        if strength == 0 or not interval[0] <= t <= interval[1]:
            return conditional(x, t)
        v, without = with_and_without(x, t)
        return (1 + strength) * v - strength * without

    return velocity


def euler_steps(velocity: Velocity, noise: Tensor, times: Sequence[float]) -> Iterator[Step]:
    """Follows the velocity from `noise` along `times`, one step at a time."""
    x = noise
    for t, t_next in pairwise(times):
        v = velocity(x, t)
        x_before, x = x, x - (t - t_next) * v
        yield Step(t, x_before, v, x)


def adams_bashforth_steps(
    velocity: Velocity, noise: Tensor, times: Sequence[float], interval: tuple[float, float]
) -> Iterator[Step]:
    """Follows the velocity in steps of second order, which look back at the velocity of the step before.

    The velocity may jump at the ends of the closed `interval` of t: the first step beyond one, like the very first, is
    an Euler step. The error falls with the square of the number of steps where the velocity is smooth.
    """
    x = noise
    last_v, last_length, was_inside = None, 0.0, False
    for t, t_next in pairwise(times):
        v, length, inside = velocity(x, t), t - t_next, interval[0] <= t <= interval[1]
        slope = v
        if last_v is not None and inside == was_inside:
            back = length / (2 * last_length)
            slope = (1 + back) * v - back * last_v
        x_before, x = x, x - length * slope
        last_v, last_length, was_inside = v, length, inside
        yield Step(t, x_before, v, x)


def clean_estimate(step: Step, sigma_min: float) -> Tensor:
    """The data that a step's velocity points at; `sigma_min` is the noise left in the data at t = 0."""
    return (1 - sigma_min) * step.x_before - (sigma_min + (1 - sigma_min) * step.t) * step.v


def sample(
    conditional: Velocity,
    with_and_without: WithAndWithout,
    noise: Tensor,
    params: SamplerParams,
    progress: Progress = silent,
    *,
    solver: Solver = "euler",
) -> Tensor:
    """The sample that `noise` flows to under guidance, shaped like `noise`; `progress` hears of every step."""
    velocity = guided(conditional, with_and_without, params.cfg_strength, params.cfg_interval)
    x, times = params.temperature * noise, time_grid(params.steps, params.rescale_t)
    if solver == "euler":
        steps = euler_steps(velocity, x, times)
    else:
        steps = adams_bashforth_steps(velocity, x, times, params.cfg_interval if params.cfg_strength else (0.0, 1.0))
    for done, step in enumerate(steps, start=1):
        x = step.x
        progress(done, params.steps)
    return x


def structure_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """The first numbers of a seed: float32 noise of the occupancy latent, `shape` = (t, c, r, r, r).

    `generator` must be a CPU generator freshly seeded, so that a seed means the same numbers on every device.
    """
    return torch.randn(tuple(shape), generator=generator)


def latent_noise(structure_shape: Sequence[int], shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """The numbers of a seed that follow the structure's: float32 noise of the structured latents, `shape` = (n, c).

    The structure's numbers are drawn and discarded, so that this stage rerun alone sees what it saw in a whole run
    (docs/model.md, section 4).
    """
    structure_noise(structure_shape, generator)
    return torch.randn(tuple(shape), generator=generator)


def network_time(t: float, num_frames: int, device: torch.device) -> Tensor:
    """`t` as the networks take it: 1000 t, float32, (1, num_frames)."""
    return torch.full((1, num_frames), 1000 * t, dtype=torch.float32, device=device)


def network_condition(tokens: Tensor, channels: int, device: torch.device) -> Tensor:
    """Image tokens (t, l, c) as the networks take them: (1, t, l, c) on `device`.

    Raises:
        ModelError: if c is not `channels`, the width the network was built for.
    """
    if tokens.shape[-1] != channels:
        raise ModelError(
            f"image tokens of {tokens.shape[-1]} channels do not fit a flow that takes {channels}: "
            "image encoder and flow are not of one model"
        )
    return tokens.to(device)[None]
