"""What a user chooses about the image tokens; needs nothing that computes."""

from typing import Literal

from pydantic import Field

from ss4d.stages.stage_config import StageConfig


class ConditioningConfig(StageConfig):
    """Nothing to choose: the image encoder comes with the model folder."""

    method: Literal["image_tokens"] = Field(
        default="image_tokens", description="what the model folder's image encoder sees"
    )
