"""What a user chooses about the exported files; needs nothing that computes."""

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from ss4d.stages.stage_config import AsBefore, StageConfig

# In the order in which they are written; `ss4d.stages.export.formats` says what each is.
FormatName = Literal["ply", "compressed_ply", "spz", "glb", "gaussian_glb", "usd", "4d.zip", "html"]
FORMAT_NAMES: tuple[FormatName, ...] = get_args(FormatName)
OF_MESHES: tuple[FormatName, ...] = ("glb",)  # the others are made of Gaussians
Formats = Annotated[tuple[FormatName, ...], Field(strict=False)]  # a list from a YAML file may stand for a tuple


class ExportConfig(StageConfig):
    """Which files an asset becomes, and what its turntable looks like."""

    method: Literal["asset"] = Field(default="asset", description="the asset's files, a turntable and its cameras")
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
    formats: Annotated[Formats, AsBefore(("ply",))] = Field(
        default=("ply",), description=f"kinds of files, of {', '.join(FORMAT_NAMES)}"
    )
    turntable: Annotated[bool, AsBefore(True)] = Field(
        default=True, description="whether to make the video; cameras.json is written anyway"
    )
    max_gaussians: Annotated[int | None, AsBefore(None)] = Field(
        default=None, ge=1, description="most Gaussians of a frame, those that show the most; null: all"
    )

    @field_validator("formats")
    @classmethod
    def _in_order(cls, formats: tuple[FormatName, ...]) -> tuple[FormatName, ...]:
        """The same formats in another order are the same files, and have the same key."""
        if len(set(formats)) != len(formats):
            raise ValueError("names a format twice")
        return tuple(name for name in FORMAT_NAMES if name in formats)


def needs_meshes(config: ExportConfig) -> bool:
    """Whether any of the formats is made of meshes."""
    return any(name in OF_MESHES for name in config.formats)
