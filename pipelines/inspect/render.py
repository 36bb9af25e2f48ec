"""A film of a run's asset from any cameras, drawn of what is stored."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.inspect.asset import read_camera, read_clip, read_gaussians
from ss4d.pipelines.inspect.opened import OpenedRun
from ss4d.stages.input_pictures import input_picture
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.rendering.files import Background, check_target, write_film
from ss4d.stages.rendering.kinds import Kind, pictures
from ss4d.stages.rendering.paths import CameraPath, file_path, input_path, orbit_path
from ss4d.stages.types import Clip, Progress
from ss4d.storage.files import delete, owned_name

BACKGROUNDS: dict[str, Background] = {
    "white": (1.0, 1.0, 1.0),
    "gray": (0.5, 0.5, 0.5),
    "black": (0.0, 0.0, 0.0),
    "transparent": None,
}
DEFAULT_SIZE = 512


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a film shows.

    Attributes:
        cameras: "orbit", "input", or a file such as an export's `cameras.json`.
        kind: colors, depth or normals.
        size: pixels from top to bottom; None: 512, or as a file has it.
        background: a name of `BACKGROUNDS`, or "#rrggbb".
        beside_input: the input's frame to the left.
        least, turns, pitch: of an orbit, see `plan_turntable`.
    """

    cameras: str = "orbit"
    kind: Kind = "color"
    size: int | None = None
    background: str = "white"
    beside_input: bool = False
    least: int = 96
    turns: int = 1
    pitch: float = 15.0


def render_run(run: OpenedRun, target: Path, wanted: Wanted, progress: Progress) -> int:
    """Writes a film and gives the number of its pictures.

    Args:
        run: its Gaussians must be stored.
        target: .mp4, .gif or .webp, or without an ending a folder of PNG files; its folder is made if it is missing.
        wanted: what to show.
        progress: told after each picture.

    Raises:
        ConfigError: the run knows no camera of its input, or there is no such background.
        InputError: no such film can be written, or the file of cameras cannot be read.
        StoreError: the asset is not stored, or damaged.
        OSError: the folder cannot be written.
    """
    background = _background(wanted.background)
    check_target(target, background)
    gaussians, clip = read_gaussians(run), read_clip(run)
    path = _path(run, wanted, gaussians.num_frames, clip.fps)
    drawn = pictures(gaussians, path, wanted.kind, rasterize)
    if wanted.beside_input:
        drawn = _beside(clip, path, drawn)
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_name(f".{owned_name()}{target.suffix}")  # whole or not there at all
    try:
        write_film(made, _told(drawn, len(path.shots), progress), path.fps, background)
        made.replace(target)
    finally:
        delete(made)
    return len(path.shots)


def _background(text: str) -> Background:
    if text in BACKGROUNDS:
        return BACKGROUNDS[text]
    if not re.fullmatch("#[0-9a-fA-F]{6}", text):
        raise ConfigError(f"--background is {', '.join(BACKGROUNDS)} or a color such as #204080; got {text!r}")
    red, green, blue = (int(text[k : k + 2], 16) / 255 for k in (1, 3, 5))
    return red, green, blue


def _path(run: OpenedRun, wanted: Wanted, num_frames: int, fps: float) -> CameraPath:
    size = wanted.size or DEFAULT_SIZE
    if wanted.cameras == "orbit":
        return orbit_path(num_frames, fps, least=wanted.least, turns=wanted.turns, pitch=wanted.pitch, size=size)
    if wanted.cameras != "input":
        return file_path(Path(wanted.cameras), num_frames, wanted.size)
    camera = read_camera(run)
    if camera is None:
        raise ConfigError(
            f"{run.path} does not know where its input was seen from: run it with --set camera.method=auto, or show an "
            "orbit"
        )
    return input_path(num_frames, fps, camera, size)


def _told(drawn: Iterator[Tensor], total: int, progress: Progress) -> Iterator[Tensor]:
    for done, picture in enumerate(drawn, start=1):
        yield picture
        progress(done, total)


def _beside(clip: Clip, path: CameraPath, drawn: Iterator[Tensor]) -> Iterator[Tensor]:
    """Each picture with the input's frame to its left, as high as it is."""
    for (t, camera), picture in zip(path.shots, drawn, strict=True):
        resized = input_picture(clip, t).resize((camera.height, camera.height), Image.Resampling.LANCZOS)
        left = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
        yield torch.cat([left.view(camera.height, camera.height, 4).float() / 255, picture], dim=1)
