"""What a user chooses about segmentation; needs nothing that computes."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ss4d.stages.stage_config import AsBefore, StageConfig

Pixel = Annotated[int, Field(ge=0, le=1_000_000)]
# A list from a YAML file may stand for a tuple.
BoxField = Annotated[tuple[Pixel, Pixel, Pixel, Pixel], Field(strict=False)]
PointField = Annotated[tuple[Pixel, Pixel], Field(strict=False)]


class SegmentationConfig(StageConfig):
    """How the object is separated from its background."""

    method: Literal["auto", "alpha", "color_key", "saliency"] = Field(
        "auto", description="auto: the input's alpha, else a border of one color, else saliency"
    )
    size: int = Field(518, ge=14, le=2048, description="side of the cropped frames, pixels")
    box: BoxField | None = Field(
        None, description="the object in the first frame used: left, top, right, bottom in pixels; null: not given"
    )
    mask: Annotated[Path | None, AsBefore(None)] = Field(
        None, description="a folder or video of masks, one a frame, white on the object; null: not given"
    )
    point: PointField | None = Field(
        None, description="a pixel of the object in the first frame used: x, y; null: not given"
    )
