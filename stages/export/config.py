"""What a user chooses about the exported files; needs nothing that computes."""

from typing import Literal

from pydantic import Field

from ss4d.stages.stage_config import StageConfig


class ExportConfig(StageConfig):
    """What the turntable looks like; the PLY files have no settings."""

    method: Literal["asset"] = Field(default="asset", description="PLY files, a turntable and its cameras")
    size: int = Field(default=512, ge=16, le=4096, description="width and height of the turntable in pixels")
    frames: int = Field(
        default=96,
        ge=1,
        le=100_000,
        description="least number of turntable frames; rounded up to whole loops of the clip",
    )
    turns: int = Field(default=1, ge=0, le=1000, description="full turns of the camera; 0 stays at the front")
    pitch: float = Field(default=15.0, ge=-90, le=90, description="height of the camera above the horizon in degrees")
    background: float = Field(default=1.0, ge=0, le=1, description="gray behind the object, 0 black to 1 white")
