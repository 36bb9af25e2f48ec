"""A turntable: the clip plays in a loop while the camera goes once around it; yaw and pitch are in degrees."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from ss4d.stages.ops.rasterize import Color, Rasterize
from ss4d.stages.preview import render_frames
from ss4d.stages.types import Camera, GaussianClip, Progress
from ss4d.stages.video_io import write_video

SMOOTH_FPS = 12  # below this the camera's motion falls apart into single pictures


@dataclass(frozen=True)
class Shot:
    """One picture of the turntable: the frame of the clip, counted from 0, and where it is seen from."""

    frame: int
    yaw: float
    pitch: float
    camera: Camera


@dataclass(frozen=True)
class Turntable:
    """The pictures in order and how many of them are shown a second."""

    shots: Sequence[Shot]
    fps: float


def plan_turntable(num_frames: int, clip_fps: float, *, least: int, turns: int, pitch: float, size: int) -> Turntable:
    """Spread `turns` around whole loops of the clip, so that the video can itself be looped without a jump.

    Args:
        num_frames: frames of the clip.
        clip_fps: its frames per second. A slow clip shows each frame in several pictures while the camera moves on.
        least: pictures to make at least.
        turns: full turns of the camera, starting at the front.
        pitch: degrees above the horizon.
        size: pixels along each side.
    """
    hold = max(1, math.ceil(SMOOTH_FPS / clip_fps))
    loops = math.ceil(least / (num_frames * hold))
    total = loops * num_frames * hold
    shots = []
    for picture in range(total):
        yaw = (FRONT_YAW + 360 * turns * picture / total) % 360
        shots.append(Shot(picture // hold % num_frames, yaw, pitch, orbit_camera(yaw, pitch, size=size)))
    return Turntable(shots, clip_fps * hold)


def write_turntable(
    path: Path,
    gaussians: GaussianClip,
    turntable: Turntable,
    *,
    render: Rasterize,
    background: Color,
    progress: Progress,
) -> None:
    """Render and encode the pictures one after another into an MP4; `progress` counts them."""

    def pictures() -> Iterator[Tensor]:
        shots = ((shot.frame, shot.camera) for shot in turntable.shots)
        for done, picture in enumerate(render_frames(gaussians, shots, render=render, background=background), start=1):
            yield picture
            progress(done, len(turntable.shots))

    write_video(path, pictures(), turntable.fps)
