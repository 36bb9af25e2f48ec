"""What a user chooses about inflation; needs nothing that computes."""

from typing import Literal

from pydantic import Field

from ss4d.stages.stage_config import StageConfig


class InflationConfig(StageConfig):
    """What the solid is like."""

    method: Literal["inflation"] = Field(default="inflation", description="the silhouette as a solid, without a model")
    depth: float = Field(
        0.8, gt=0, le=1, description="thickness over width of a round part: 1 makes a ball of a disc, less flattens it"
    )
    resolution: int = Field(
        144, ge=16, le=512, description="cells across the crop; Gaussians are one cell apart on the surface"
    )
