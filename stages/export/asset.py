"""The export stage: a clip of Gaussians becomes the files a user opens."""

from dataclasses import replace
from pathlib import Path

from ss4d.stages.export.cameras import write_cameras
from ss4d.stages.export.config import ExportConfig
from ss4d.stages.export.formats import write_formats
from ss4d.stages.export.scene import Scene
from ss4d.stages.export.turntable import plan_turntable, write_turntable
from ss4d.stages.export.visible import most_visible
from ss4d.stages.ops.geometry import FRONT_YAW, matrix_to_quaternion, rotate_gaussians, rotate_mesh
from ss4d.stages.ops.rasterize import Rasterize
from ss4d.stages.types import Clip, GaussianClip, InputCamera, MeshClip, Progress, silent


def export_asset(
    config: ExportConfig,
    gaussians: GaussianClip,
    clip_fps: float,
    folder: Path,
    *,
    render: Rasterize,
    camera: InputCamera | None = None,
    clip: Clip | None = None,
    meshes: MeshClip | None = None,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Writes the files of each format, `cameras.json` and `turntable.mp4` (docs/model.md, section 9).

    Without the video, `cameras.json` is the same: it has the axes, the rate and the input's camera, which no other file
    has, and a turn that `ss4d render` can draw at any time.

    Args:
        config: which formats, and what the turntable looks like.
        gaussians: the clip; a frame may be empty.
        clip_fps: its frames per second, above 0.
        folder: an empty folder.
        render: the rasterizer.
        camera: of the input, if it is known: the asset is turned upright by it, and the turntable begins at its side.
        clip: the input, which the page of the format `html` shows beside the asset; None: it does not.
        meshes: the clip as meshes, if a format is made of them.
        progress: told after each frame of a format, and after each picture.

    Returns:
        The files written, relative to `folder`.

    Raises:
        InputError: a format cannot hold the asset, or its package is not installed.
    """
    scene = as_scene(config, gaussians, clip_fps, camera, clip=clip, meshes=meshes)
    turntable = scene.turntable
    before = 0 if config.max_gaussians is None else scene.num_frames
    steps = before + len(config.formats) * scene.num_frames
    total = steps + (len(turntable.shots) if config.turntable else 0)
    if config.max_gaussians is not None:
        scene = capped(scene, config.max_gaussians, lambda done, _: progress(done, total))
    files = write_formats(config.formats, scene, folder, progress=lambda done, _: progress(before + done, total))
    write_cameras(folder / "cameras.json", turntable, camera)
    if not config.turntable:
        return (*files, "cameras.json")
    write_turntable(
        folder / "turntable.mp4",
        scene.gaussians,
        turntable,
        render=render,
        background=(config.background,) * 3,
        progress=lambda done, _: progress(steps + done, total),
    )
    return (*files, "cameras.json", "turntable.mp4")


def as_scene(
    config: ExportConfig,
    gaussians: GaussianClip,
    clip_fps: float,
    camera: InputCamera | None,
    name: str = "asset",
    clip: Clip | None = None,
    meshes: MeshClip | None = None,
) -> Scene:
    """An asset as the writers of formats take it: turned upright, with the turn around it.

    `clip` is the input; one of another number of frames, as a package's stages may make of it, is not shown.
    """
    if camera is not None:
        upright = matrix_to_quaternion(camera.upright.double())
        gaussians = rotate_gaussians(gaussians, upright)
        meshes = None if meshes is None else rotate_mesh(meshes, upright)
    turntable = plan_turntable(
        gaussians.num_frames,
        clip_fps,
        least=config.frames,
        turns=config.turns,
        pitch=config.pitch,
        size=config.size,
        start=None if camera is None else (FRONT_YAW + float(camera.yaw), float(camera.pitch)),
    )
    beside = clip if clip is not None and len(clip.rgb) == gaussians.num_frames else None
    return Scene(
        gaussians=gaussians,
        fps=clip_fps,
        camera=camera,
        turntable=turntable,
        meshes=meshes,
        name=name,
        clip=beside,
    )


def capped(scene: Scene, at_most: int, progress: Progress) -> Scene:
    """The scene with at most so many Gaussians in each frame, those that show the most."""
    return replace(scene, gaussians=most_visible(scene.gaussians, at_most, progress))
