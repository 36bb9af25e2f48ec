"""How long networks take on this machine, estimated from their arithmetic and from how fast matrices are multiplied."""

import time

import torch

from ss4d.stages.ops.device import Device
from ss4d.stages.roles import LATENT_FLOW, STRUCTURE_FLOW
from ss4d.stages.sampler_params import SamplerParams
from ss4d.stages.sampling import time_grid

SIDES: dict[Device, int] = {"cpu": 1024, "cuda": 8192}  # of the matrices whose products are timed


def passes(role: str, sampler: SamplerParams | None) -> int:
    """How often a network runs for a clip: a flow at each step, and twice where it is guided."""
    if sampler is None or role not in (STRUCTURE_FLOW, LATENT_FLOW):
        return 1
    first, last = sampler.cfg_interval
    times = time_grid(sampler.steps, sampler.rescale_t)[:-1]
    return len(times) + sum(first <= t <= last for t in times) * (sampler.cfg_strength > 0)


def product_rate(dtype: torch.dtype, device: Device = "cpu") -> float:
    """Operations a second at which a device of this machine multiplies matrices, measured."""
    size, times = SIDES[device], 3
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    (matrix @ matrix)[0, 0].item()  # the first time, torch prepares
    started = time.perf_counter()
    for _ in range(times):
        product = matrix @ matrix
    product[0, 0].item()  # waits for the device
    return times * 2 * size**3 / (time.perf_counter() - started)


def said_duration(seconds: float) -> str:
    """A duration that is estimated, in words."""
    minutes = seconds / 60
    return f"about {minutes / 60:.0f} hours" if minutes >= 90 else f"about {max(1, round(minutes))} min"
