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


def plan_turntable(
    num_frames: int,
    clip_fps: float,
    *,
    least: int,
    turns: int,
    pitch: float,
    size: int,
    start: tuple[float, float] | None = None,
) -> Turntable:
    """Spread `turns` around whole loops of the clip, so that the video can itself be looped without a jump.

    Args:
        num_frames: frames of the clip.
        clip_fps: its frames per second. A slow clip shows each frame in several pictures while the camera moves on.
        least: pictures to make at least.
        turns: full turns of the camera.
        pitch: degrees above the horizon.
        size: pixels along each side.
        start: yaw and pitch of the first picture; from there the camera goes over to `pitch`, which it reaches half a
            turn away, and back. None: the front, at `pitch`.
    """
    hold = max(1, math.ceil(SMOOTH_FPS / clip_fps))
    loops = math.ceil(least / (num_frames * hold))
    total = loops * num_frames * hold
    first_yaw, first_pitch = start or (FRONT_YAW, pitch)
    shots = []
    for picture in range(total):
        turned = 2 * math.pi * turns * picture / total
        yaw = (first_yaw + math.degrees(turned)) % 360
        height = pitch + (first_pitch - pitch) * (1 + math.cos(turned)) / 2
        shots.append(Shot(picture // hold % num_frames, yaw, height, orbit_camera(yaw, height, size=size)))
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
