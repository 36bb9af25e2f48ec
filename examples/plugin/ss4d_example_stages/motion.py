"""A stage of its own: where the object is in each frame and how large it is, as a table and a plot.

It gives files; what computes is in `motion_files`, so that naming the stage costs no import of torch.
"""

from typing import Literal

from pydantic import Field

from ss4d.pipelines.implementation import Deferred, Implementation, Stage
from ss4d.stages.stage_config import StageConfig


class MotionConfig(StageConfig):
    """What counts as the object, and how the plot looks."""

    method: Literal["gaussians"] = Field("gaussians", description="the object is its Gaussians, by opacity and volume")
    opacity: float = Field(0.1, ge=0, le=1, description="Gaussians below this opacity are left out")
    size: int = Field(480, ge=120, le=4096, description="height of the plot, pixels; it is twice as wide")


MOTION = Stage(
    name="motion", output=None, default="gaussians", meaning="tells the path and the size of the object over time"
)
BY_GAUSSIANS = Implementation(
    stage="motion",
    config=MotionConfig,
    run=Deferred("ss4d_example_stages.motion_files:write_motion"),
    inputs=("decoding", "segmentation"),
)
