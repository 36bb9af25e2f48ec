"""What a user chooses about structured latents; needs nothing that computes."""

from typing import Annotated, Literal

from pydantic import Field

from ss4d.stages.sampler_config import SamplerConfig
from ss4d.stages.stage_config import AsBefore, StageConfig


class SlatConfig(StageConfig):
    """How structured latents are sampled."""

    method: Literal["flow"] = Field(default="flow", description="sampled from noise, guided by the image tokens")
    sampler: SamplerConfig = Field(default=SamplerConfig(), description="sampler of the structured latents")
    window: Annotated[int | None, AsBefore(None)] = Field(
        default=None,
        ge=4,
        description="frames that a longer clip is sampled in at once, in windows that overlap by half and are blended "
        "at every step, so that memory grows no faster than the clip; 32 is what the published model was made for; "
        "null: the whole clip",
    )
