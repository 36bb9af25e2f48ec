"""The numbers that flows are sampled with, as a model folder publishes them (docs/model.md, section 4)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SamplerParams:
    """What a sampler does: a model folder publishes these values, a configuration may replace them.

    What a folder leaves out has the value here: the authors', or, where their format does not know the field, the one
    that the published models were made for.
    """

    steps: int = 50  # Euler steps, at least 1
    cfg_strength: float = 3.0  # weight of classifier-free guidance, at least 0
    cfg_interval: tuple[float, float] = (0.0, 1.0)  # guidance acts for t in this closed interval, within 0 to 1
    rescale_t: float = 1.0  # above 1 spends more steps near the noise; greater than 0
    temperature: float = 1.0  # factor on the noise at the start: below 1, samples come closer to each other


@dataclass(frozen=True, kw_only=True)
class LatentNormalization:
    """Mean and standard deviation of each latent channel; the flow works on latents of mean 0 and deviation 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]  # each greater than 0
