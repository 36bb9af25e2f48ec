"""How a user chooses a sampler's values: null means the model folder's own (docs/model.md, section 4)."""

from dataclasses import asdict
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ss4d.stages.sampler_params import MOST_STEPS, SamplerParams, Solver
from ss4d.stages.stage_config import AsBefore

UnitTime = Annotated[float, Field(ge=0, le=1)]


class SamplerConfig(BaseModel):
    """A sampler's values; every null is filled from the model folder by `resolve` before a stage runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    steps: int | None = Field(default=None, ge=1, le=MOST_STEPS, description="Euler steps; null: the model's own")
    cfg_strength: float | None = Field(
        default=None, ge=0, description="strength of guidance by the images, 0 is none; null: the model's own"
    )
    cfg_interval: tuple[UnitTime, UnitTime] | None = Field(
        default=None,
        description="guidance acts between these times, 0 data to 1 noise; null: the model's own",
    )
    rescale_t: float | None = Field(
        default=None, ge=1e-3, le=1e3, description="above 1 spends more steps near the noise; null: the model's own"
    )
    temperature: float | None = Field(
        default=None,
        ge=0,
        description="factor on the noise at the start; below 1, frames differ less by chance, and so do results of "
        "other seeds; null: the model's own",
    )

    solver: Annotated[Solver, AsBefore("euler")] = Field(
        default="euler",
        description="euler, as the models were made for; adams_bashforth: each step also looks at the velocity of the "
        "step before, so that structured latents need up to half as many; not below 4 steps with guidance",
    )

    @model_validator(mode="after")
    def _interval_is_ordered(self) -> Self:
        if self.cfg_interval and self.cfg_interval[0] > self.cfg_interval[1]:
            raise ValueError(f"cfg_interval must run from the smaller to the larger time, got {self.cfg_interval}")
        return self

    def resolve(self, own: SamplerParams) -> Self:
        """This configuration with every null replaced by the model folder's `own` value."""
        return self.model_copy(update={k: v for k, v in asdict(own).items() if getattr(self, k) is None})

    def params(self) -> SamplerParams:
        """The values as the sampler takes them.

        Raises:
            ValueError: if a value is still null.
        """
        if unresolved := [name for name, value in self if value is None]:
            raise ValueError(f"sampler values {unresolved} are null: fill them with resolve() from the model folder")
        return SamplerParams(**self.model_dump(exclude={"solver"}))
