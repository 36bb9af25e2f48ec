"""What a user chooses about the sparse structure; needs nothing that computes."""

from typing import Literal

from pydantic import Field

from ss4d.stages.sampler_config import SamplerConfig
from ss4d.stages.stage_config import StageConfig


class SparseStructureConfig(StageConfig):
    """How the structure is sampled."""

    method: Literal["flow"] = Field(default="flow", description="sampled from noise, guided by the image tokens")
    sampler: SamplerConfig = Field(default=SamplerConfig(), description="sampler of the occupancy latent")
