"""Where a film of an asset is seen from: an orbit, the input's camera, or the cameras that a file lists."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ss4d.stages.errors import InputError
from ss4d.stages.export.turntable import plan_turntable
from ss4d.stages.input_camera import in_world
from ss4d.stages.types import Camera, InputCamera

MOST_BYTES = 2**26  # of a file of cameras
MOST_SIDE = 4096  # pixels
Finite = Annotated[float, Field(allow_inf_nan=False)]
Row = tuple[Finite, Finite, Finite, Finite]
Side = Annotated[int, Field(ge=1, le=MOST_SIDE)]


@dataclass(frozen=True)
class CameraPath:
    """Which frame of the clip each picture shows, counted from 0, and from where; how many are shown a second."""

    shots: Sequence[tuple[int, Camera]]
    fps: float


def orbit_path(num_frames: int, clip_fps: float, *, least: int, turns: int, pitch: float, size: int) -> CameraPath:
    """A turn around the object while it plays; see `plan_turntable`."""
    table = plan_turntable(num_frames, clip_fps, least=least, turns=turns, pitch=pitch, size=size)
    return CameraPath([(shot.frame, shot.camera) for shot in table.shots], table.fps)


def input_path(num_frames: int, clip_fps: float, camera: InputCamera, size: int) -> CameraPath:
    """The clip once, from where it was filmed."""
    return CameraPath([(t, in_world(camera, size)) for t in range(num_frames)], clip_fps)


def file_path(path: Path, num_frames: int, size: int | None) -> CameraPath:
    """The cameras of a file such as an export's `cameras.json`.

    Args:
        path: of the file.
        num_frames: of the clip.
        size: pixels from top to bottom; None: as the file has it.

    Raises:
        InputError: it cannot be read, or is no such file.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe might never begin, or end
        raise InputError(f"{path} is no file: give one such as an export's cameras.json")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise InputError(f"{path} has more than {MOST_BYTES // 2**20} MiB: it is no list of cameras")
    try:
        listed = _File.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        entry = ".".join(map(str, problem["loc"])) or "its content"
        raise InputError(
            f"{path} is no list of cameras as an export's cameras.json has it ({entry}: {problem['msg']})"
        ) from error
    if beyond := [one.frame for one in listed.cameras if one.frame >= num_frames]:
        raise InputError(f"{path} asks for frame {beyond[0]}, but the clip has {num_frames}, counted from 0")
    return CameraPath([(one.frame, one.camera(size)) for one in listed.cameras], listed.fps)


class _Intrinsics(BaseModel):
    model_config = ConfigDict(extra="ignore")

    fx: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    fy: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    cx: Finite
    cy: Finite


class _Entry(BaseModel):
    frame: Annotated[int, Field(ge=0)]
    width: Side
    height: Side
    intrinsics: _Intrinsics
    world_to_camera: tuple[Row, Row, Row, Row]

    def camera(self, size: int | None) -> Camera:
        """The camera, for a picture of `size` pixels from top to bottom.

        Its matrix is sheared and stretched where the principal point is not in the middle and pixels are not square: a
        `Camera` has no place for these, and to add a multiple of z to x before the division moves all pixels alike.
        """
        one, (right, down, away, last) = self.intrinsics, self.world_to_camera
        across, below = (one.cx - self.width / 2) / one.fx, (one.cy - self.height / 2) / one.fx
        stretch = one.fy / one.fx
        rows = (
            tuple(a + across * c for a, c in zip(right, away, strict=True)),
            tuple(stretch * b + below * c for b, c in zip(down, away, strict=True)),
        )
        matrix = tuple((row[0], row[1], row[2], row[3]) for row in (*rows, away, last))
        camera = Camera(world_to_camera=matrix, focal=one.fx, width=self.width, height=self.height)
        if size is None or size == self.height:
            return camera
        zoom = size / self.height
        width = min(MOST_SIDE, max(1, math.floor(self.width * zoom + 0.5)))
        return replace(camera, focal=one.fx * zoom, width=width, height=size)


class _File(BaseModel):
    fps: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
    cameras: Annotated[list[_Entry], Field(min_length=1, max_length=100_000)]
