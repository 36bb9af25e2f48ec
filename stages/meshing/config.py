"""What a user chooses about meshes; needs nothing that computes."""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Literal

from pydantic import Field

from ss4d.stages.stage_config import AsBefore, StageConfig

SurfaceName = Literal["auto", "marching_cubes", "flexicubes"]


class MeshConfig(StageConfig):
    """How finely a frame's Gaussians become a textured mesh."""

    method: Literal["fusion"] = Field(
        default="fusion", description="depth pictures from all around, fused to a closed surface for each frame"
    )
    grid: int = Field(default=96, ge=16, le=512, description="cells along the object's longest side")
    views: int = Field(default=32, ge=12, le=512, description="pictures of each frame from all around")
    faces: int = Field(default=8000, ge=100, le=1_000_000, description="most triangles of a frame")
    texture: int = Field(default=512, ge=64, le=8192, description="pixels of a side of a frame's texture")
    surface: SurfaceName = Field(
        default="auto",
        description="what finds the surface in the grid: marching_cubes, or flexicubes of kaolin; auto: flexicubes "
        "where it is installed",
    )
    topology: Annotated[Literal["free", "fixed"], AsBefore("free")] = Field(
        default="free",
        description="fixed: one mesh that moves, if the clip keeps its topology; free: each frame has its own",
    )


def chosen_surface(name: SurfaceName) -> SurfaceName:
    """What "auto" stands for on this machine; any other name is itself."""
    if name != "auto":
        return name
    try:
        numbers = version("kaolin").split(".")
    except PackageNotFoundError:
        return "marching_cubes"
    # Older ones have no FlexiCubes, and what the package index has under that name is empty.
    return "flexicubes" if (int(numbers[0]), int(numbers[1])) >= (0, 16) else "marching_cubes"
