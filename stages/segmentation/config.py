"""What a user chooses about segmentation; needs nothing that computes."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ss4d.stages.stage_config import AsBefore, StageConfig

Pixel = Annotated[int, Field(ge=0, le=1_000_000)]
# A list from a YAML file may stand for a tuple.
BoxField = Annotated[tuple[Pixel, Pixel, Pixel, Pixel], Field(strict=False)]
PointField = Annotated[tuple[Pixel, Pixel], Field(strict=False)]


class CropConfig(StageConfig):
    """How large the object is cut out, and where the user points at it."""

    size: int = Field(518, ge=14, le=2048, description="side of the cropped frames, pixels")
    box: BoxField | None = Field(
        None, description="the object in the first frame used: left, top, right, bottom in pixels; null: not given"
    )
    point: PointField | None = Field(
        None, description="a pixel of the object in the first frame used: x, y; null: not given"
    )


class SegmentationConfig(CropConfig):
    """How the object is separated from its background."""

    method: Literal["auto", "alpha", "color_key", "saliency"] = Field(
        "auto", description="auto: the input's alpha, else a border of one color, else saliency"
    )
    mask: Annotated[Path | None, AsBefore(None)] = Field(
        None, description="a folder or video of masks, one a frame, white on the object; null: not given"
    )


class BirefnetConfig(CropConfig):
    """Separates the object by BiRefNet, whatever is behind it."""

    method: Literal["birefnet"] = Field("birefnet", description="BiRefNet: what stands out, frame by frame")
    weights: Path | None = Field(
        None, description="its ONNX file; null: the one that `ss4d download birefnet` has fetched"
    )


class Sam2Config(CropConfig):
    """Follows the object at `point` or in `box` by SAM 2."""

    method: Literal["sam2"] = Field("sam2", description="SAM 2: what is at the point or in the box, followed")
    weights: Path | None = Field(
        None,
        description="its safetensors file, config.json beside it; null: the one that `ss4d download sam2` has fetched",
    )

    @model_validator(mode="after")
    def _is_told_where(self) -> Self:
        if self.box is None and self.point is None:
            raise ValueError("sam2 needs point=[x, y] or box=[left, top, right, bottom] of the object, to follow it")
        return self
