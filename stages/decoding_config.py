"""What a user chooses about the decoding of latents; needs nothing that computes."""

from typing import Literal

from pydantic import Field

from ss4d.stages.stage_config import StageConfig


class DecodingConfig(StageConfig):
    """Latents to Gaussians; the decoder's own options say how."""

    method: Literal["gaussians"] = Field(default="gaussians", description="by the Gaussian decoder")
