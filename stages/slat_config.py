"""What a user chooses about structured latents; needs nothing that computes."""

from typing import Literal

from pydantic import Field

from ss4d.stages.sampler_config import SamplerConfig
from ss4d.stages.stage_config import StageConfig


class SlatConfig(StageConfig):
    """How structured latents are sampled."""

    method: Literal["flow"] = Field(default="flow", description="sampled from noise, guided by the image tokens")
    sampler: SamplerConfig = Field(default=SamplerConfig(), description="sampler of the structured latents")
