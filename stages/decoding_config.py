"""What a user chooses about the decoding of latents; needs nothing that computes."""

from typing import Annotated, Literal

from pydantic import Field

from ss4d.stages.stage_config import AsBefore, StageConfig


class DecodingConfig(StageConfig):
    """Latents to Gaussians; the decoder's own options say how."""

    method: Literal["gaussians"] = Field(default="gaussians", description="by the Gaussian decoder")
    window: Annotated[int | None, AsBefore(None)] = Field(
        default=None,
        ge=4,
        description="frames that a longer clip is decoded in at once, in windows that overlap by half and are blended; "
        "null: the whole clip",
    )
