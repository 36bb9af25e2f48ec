"""The export stage: a clip of Gaussians becomes the files a user opens."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from ss4d.stages.export.cameras import write_cameras
from ss4d.stages.export.ply import write_ply
from ss4d.stages.export.turntable import plan_turntable, write_turntable
from ss4d.stages.ops.rasterize import Rasterize
from ss4d.stages.stage_config import StageConfig
from ss4d.stages.types import GaussianClip, Progress, silent


class ExportConfig(StageConfig):
    """What the turntable looks like; the PLY files have no settings."""

    method: Literal["asset"] = Field(default="asset", description="PLY files, a turntable and its cameras")
    size: int = Field(default=512, ge=16, le=4096, description="width and height of the turntable in pixels")
    frames: int = Field(
        default=96, ge=1, description="least number of turntable frames; rounded up to whole loops of the clip"
    )
    turns: int = Field(default=1, ge=0, description="full turns of the camera; 0 stays at the front")
    pitch: float = Field(default=15.0, ge=-90, le=90, description="height of the camera above the horizon in degrees")
    background: float = Field(default=1.0, ge=0, le=1, description="gray behind the object, 0 black to 1 white")


def export_asset(
    config: ExportConfig,
    gaussians: GaussianClip,
    clip_fps: float,
    folder: Path,
    *,
    render: Rasterize,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Write `frames/frame0001.ply` and so on, `cameras.json` and `turntable.mp4` (docs/model.md, section 9).

    Args:
        config: what the turntable looks like.
        gaussians: the clip; a frame may be empty.
        clip_fps: its frames per second, above 0.
        folder: an empty folder.
        render: the rasterizer.
        progress: told after each file or picture.

    Returns:
        The files written, relative to `folder`.
    """
    turntable = plan_turntable(
        gaussians.num_frames,
        clip_fps,
        least=config.frames,
        turns=config.turns,
        pitch=config.pitch,
        size=config.size,
    )
    total = gaussians.num_frames + len(turntable.shots)
    files = [f"frames/frame{t + 1:04d}.ply" for t in range(gaussians.num_frames)]
    (folder / "frames").mkdir()
    for t, name in enumerate(files):
        write_ply(folder / name, gaussians.frame(t))
        progress(t + 1, total)
    write_cameras(folder / "cameras.json", turntable)
    write_turntable(
        folder / "turntable.mp4",
        gaussians,
        turntable,
        render=render,
        background=(config.background,) * 3,
        progress=lambda done, _: progress(gaussians.num_frames + done, total),
    )
    return (*files, "cameras.json", "turntable.mp4")
