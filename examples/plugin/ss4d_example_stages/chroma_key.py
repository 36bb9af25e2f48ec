"""Segmentation by a background of a color that the user names, as in front of a green screen."""

from typing import Annotated, Literal

import torch
from pydantic import Field

from ss4d.pipelines.implementation import Implementation
from ss4d.pipelines.stage_inputs import StageInputs
from ss4d.stages.segmentation.crop import crop_clip
from ss4d.stages.stage_config import StageConfig
from ss4d.stages.types import Clip

Level = Annotated[int, Field(ge=0, le=255)]


class ChromaKeyConfig(StageConfig):
    """Which color is background."""

    method: Literal["chroma_key"] = Field("chroma_key", description="everything that has not the named color")
    color: tuple[Level, Level, Level] = Field((0, 255, 0), description="red, green, blue of the background")
    tolerance: int = Field(40, ge=0, le=255, description="largest difference of a background's channel, levels")
    size: int = Field(518, ge=14, le=2048, description="side of the cropped frames, pixels")


def chroma_key(config: ChromaKeyConfig, inputs: StageInputs) -> Clip:
    """The object in front of the named color, cropped."""
    video = inputs.video()
    rgb = video.frames[..., :3]
    difference = (rgb.int() - torch.tensor(config.color)).abs().amax(-1)
    alpha = torch.where(difference > config.tolerance, 255, 0).byte()
    cropped, opacity, crop = crop_clip(torch.cat([rgb, alpha[..., None]], dim=-1), config.size)
    inputs.progress(1, 1)
    return Clip(
        rgb=cropped,
        alpha=opacity,
        crop=crop,
        confidence=(alpha > 0).flatten(1).any(1).float(),
        method=config.method,
        fps=video.fps,
    )


CHROMA_KEY = Implementation(stage="segmentation", config=ChromaKeyConfig, run=chroma_key, source=True)
