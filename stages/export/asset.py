"""The export stage: a clip of Gaussians becomes the files a user opens."""

from pathlib import Path

from ss4d.stages.export.cameras import write_cameras
from ss4d.stages.export.config import ExportConfig
from ss4d.stages.export.ply import write_ply
from ss4d.stages.export.turntable import plan_turntable, write_turntable
from ss4d.stages.ops.geometry import FRONT_YAW, matrix_to_quaternion, rotate_gaussians
from ss4d.stages.ops.rasterize import Rasterize
from ss4d.stages.types import GaussianClip, InputCamera, Progress, silent


def export_asset(
    config: ExportConfig,
    gaussians: GaussianClip,
    clip_fps: float,
    folder: Path,
    *,
    render: Rasterize,
    camera: InputCamera | None = None,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Writes `frames/frame0001.ply` and so on, `cameras.json` and `turntable.mp4` (docs/model.md, section 9).

    Args:
        config: what the turntable looks like.
        gaussians: the clip; a frame may be empty.
        clip_fps: its frames per second, above 0.
        folder: an empty folder.
        render: the rasterizer.
        camera: of the input, if it is known: the asset is turned upright by it, and the turntable begins at its side.
        progress: told after each file or picture.

    Returns:
        The files written, relative to `folder`.
    """
    if camera is not None:
        gaussians = rotate_gaussians(gaussians, matrix_to_quaternion(camera.upright.double()))
    turntable = plan_turntable(
        gaussians.num_frames,
        clip_fps,
        least=config.frames,
        turns=config.turns,
        pitch=config.pitch,
        size=config.size,
        start=None if camera is None else (FRONT_YAW + float(camera.yaw), float(camera.pitch)),
    )
    total = gaussians.num_frames + len(turntable.shots)
    files = [f"frames/frame{t + 1:04d}.ply" for t in range(gaussians.num_frames)]
    (folder / "frames").mkdir()
    for t, name in enumerate(files):
        write_ply(folder / name, gaussians.frame(t))
        progress(t + 1, total)
    write_cameras(folder / "cameras.json", turntable, camera)
    write_turntable(
        folder / "turntable.mp4",
        gaussians,
        turntable,
        render=render,
        background=(config.background,) * 3,
        progress=lambda done, _: progress(gaussians.num_frames + done, total),
    )
    return (*files, "cameras.json", "turntable.mp4")
