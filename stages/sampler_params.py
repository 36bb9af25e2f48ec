"""The numbers that flows are sampled with, as a model folder publishes them (docs/model.md, section 4)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ss4d.stages.typed_json import Bounds, Lenient

Solver = Literal["euler", "adams_bashforth"]
MOST_STEPS = 10_000  # a hundred times as many as anything needs
Time = Annotated[float, Bounds(least=0, most=1)]  # 0 is data, 1 is noise


@dataclass(frozen=True, kw_only=True)
class SamplerParams:
    """What a sampler does: a model folder publishes these values, a configuration may replace them.

    What a folder leaves out has the value here: the authors', or, where their format does not know the field, the one
    that the published models were made for.
    """

    steps: Annotated[int, Bounds(least=1, most=MOST_STEPS)] = 50  # Euler steps
    cfg_strength: Annotated[float, Bounds(least=0)] = 3.0  # weight of classifier-free guidance
    cfg_interval: tuple[Time, Time] = (0.0, 1.0)  # guidance acts for t in this closed interval
    rescale_t: Annotated[float, Bounds(least=1e-3, most=1e3)] = 1.0  # above 1 spends more steps near the noise
    # Factor on the noise at the start: below 1, samples come closer to each other.
    temperature: Annotated[float, Bounds(least=0)] = 1.0

    def __post_init__(self) -> None:
        """Refuses an interval that runs backward."""
        if self.cfg_interval[0] > self.cfg_interval[1]:
            raise ValueError(f"cfg_interval must run from the smaller to the larger time, got {self.cfg_interval}")


@dataclass(frozen=True, kw_only=True)
class LatentNormalization(Lenient):
    """Mean and standard deviation of each latent channel; the flow works on latents of mean 0 and deviation 1."""

    mean: tuple[float, ...]
    std: tuple[Annotated[float, Bounds(above=0)], ...]

    def __post_init__(self) -> None:
        """Refuses means and deviations of different numbers of channels."""
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std must be equally long, got {len(self.mean)} and {len(self.std)} values")
