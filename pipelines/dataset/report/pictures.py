"""The pictures of a dataset's report: a strip of small frames for each clip, kept in the dataset's folder.

A strip is drawn once. Its name is a digest of the artifact that it shows and of how it is drawn, so a second report
draws only new ones.
"""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ss4d.pipelines.dataset.report.sheet import Card
from ss4d.pipelines.errors import USER_ERRORS
from ss4d.pipelines.inspect.drawing import evenly
from ss4d.pipelines.values import read_value
from ss4d.pipelines.workers import results
from ss4d.stages.input_files import InputConfig
from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.preview import render_frames
from ss4d.stages.processors import num_processors
from ss4d.stages.reading.counts import num_frames
from ss4d.stages.types import GaussianClip, Progress
from ss4d.stages.video_io import read_video
from ss4d.storage.artifact import Artifact
from ss4d.storage.errors import StoreError
from ss4d.storage.files import leads_out, write_bytes
from ss4d.storage.refs import ArtifactRef, artifact_key
from ss4d.storage.store import ArtifactStore, open_store

FRAMES, SIZE, QUALITY = 8, 128, 75  # of a strip: most frames, pixels of a side, WebP's quality
REVISION = 1  # raise it when the same artifact would give another picture
TURNTABLE = "turntable.mp4"
PITCH = 15.0  # degrees that the camera looks down, as in the turntable
WHITE = 255
BATCH = 16  # pictures per batch for a process
FEW = 48  # pictures that this process draws before others would have started

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """A strip of frames.

    Attributes:
        refs: artifacts to draw it from: the first that has something to show.
        name: of its file in the folder of pictures.
    """

    refs: tuple[ArtifactRef, ...]
    name: str

    @property
    def of_asset(self) -> bool:
        """Whether it shows the asset, or else the segmented object of the input."""
        return self.refs[0].stage != "segmentation"


@dataclass(frozen=True)
class PictureBatch:
    """Pictures for one process to draw."""

    store: str
    folder: Path
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Drawn:
    """The result of a batch: its number of pictures, and a sentence for each that could not be drawn, by name."""

    count: int
    problems: dict[str, str]


def picture_of(card: Card) -> Picture | None:
    """The picture of a clip: its asset, or else its segmented object; None if it has neither."""
    asset = [ref for stage in ("export", "decoding") if (ref := card.done(stage)) is not None]
    cut_out = card.done("segmentation")
    refs = asset or ([] if cut_out is None else [cut_out])
    if not refs:
        return None
    recipe = {
        "frames": FRAMES,
        "size": SIZE,
        "quality": QUALITY,
        "revision": REVISION,
        "of": [str(ref) for ref in refs],
    }
    digest = artifact_key(recipe)
    return Picture(tuple(refs), f"{digest[:2]}/{digest}.webp")


def draw_pictures(
    pictures: Sequence[Picture], store: str, folder: Path, *, workers: int | None, progress: Progress
) -> dict[str, str]:
    """Draws the pictures that are not in the folder yet; gives a sentence for each that cannot be drawn, by name.

    Raises:
        WorkerError: a process died.
        OSError: the folder cannot be written.
    """
    new = [picture for picture in dict.fromkeys(pictures) if not _is_drawn(folder, picture)]
    problems: dict[str, str] = {}
    done = 0
    progress(0, len(new))
    for drawn in _drawn([PictureBatch(store, folder, batch) for batch in _batches(new)], workers):
        problems |= drawn.problems
        done += drawn.count
        progress(done, len(new))
    return problems


def draw(batch: PictureBatch) -> Drawn:
    """Draws the pictures of a batch.

    Raises:
        OSError: the folder cannot be written.
    """
    store = open_store(batch.store)
    problems = {}
    for picture in batch.pictures:
        try:
            _refuse_links(batch.folder, picture)
            data = _strip(_frames(store, picture))
        except USER_ERRORS as error:
            problems[picture.name] = str(error)
            continue
        path = batch.folder / picture.name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
    return Drawn(len(batch.pictures), problems)


def _is_drawn(folder: Path, picture: Picture) -> bool:
    """Whether the folder has a picture, and not a link to what may be anything."""
    path = folder / picture.name
    return path.is_file() and not path.is_symlink() and not _is_elsewhere(folder, picture)


def _refuse_links(folder: Path, picture: Picture) -> None:
    if _is_elsewhere(folder, picture):
        raise StoreError(f"{folder / picture.name} would lie somewhere else, through a link on the way")


def _is_elsewhere(folder: Path, picture: Picture) -> bool:
    return leads_out(folder.parent, f"{folder.name}/{picture.name}")


def _batches(pictures: Sequence[Picture]) -> Iterator[list[Picture]]:
    remaining = iter(pictures)
    while batch := list(islice(remaining, BATCH)):
        yield batch


def _drawn(batches: Sequence[PictureBatch], workers: int | None) -> Iterator[Drawn]:
    few = sum(len(batch.pictures) for batch in batches) <= FEW or (workers or num_processors()) == 1
    return map(draw, batches) if few else results(draw, batches, workers)


def _frames(store: ArtifactStore, picture: Picture) -> list[Pixels]:
    for ref in picture.refs:
        artifact = store.open(ref)
        match ref.stage:
            case "export":
                if TURNTABLE in artifact.attributes["files"]:
                    return _of_turntable(artifact)
            case "decoding":
                return _of_gaussians(artifact)
            case _:
                return _of_clip(artifact)
    raise StoreError(f"{picture.refs[0]} has no {TURNTABLE}, and the Gaussians that it was made of are not stored")


def _of_turntable(artifact: Artifact) -> list[Pixels]:
    """Frames spread over the video in which camera and clip go around once."""
    path = artifact.file(TURNTABLE)
    step = math.ceil(num_frames(path) / FRAMES)
    return [frame[..., :3].numpy() for frame in read_video(path, InputConfig(step=step, count=FRAMES)).frames]


def _of_gaussians(artifact: Artifact) -> list[Pixels]:
    """Frames as the turntable would show them."""
    gaussians = read_value(GaussianClip, artifact)
    shots = (
        (k * gaussians.num_frames // FRAMES, orbit_camera(FRONT_YAW + 360 * k / FRAMES, PITCH, size=SIZE))
        for k in range(FRAMES)
    )
    return [picture.numpy() for picture in render_frames(gaussians, shots, render=rasterize)]


def _of_clip(artifact: Artifact) -> list[Pixels]:
    """The segmented object over white."""
    rgb, alpha = artifact.read("rgb"), artifact.read("alpha")
    times = evenly(len(rgb), FRAMES)
    behind = WHITE - alpha[times][..., None].astype(np.uint16)
    return list(np.minimum(rgb[times] + behind, WHITE).astype(np.uint8))


def _strip(frames: Sequence[Pixels]) -> bytes:
    """The frames beside each other as one WebP file."""
    sheet = Image.new("RGB", (SIZE * len(frames), SIZE), "white")
    for k, frame in enumerate(frames):
        fitted = ImageOps.pad(Image.fromarray(frame), (SIZE, SIZE), Image.Resampling.LANCZOS, color="white")
        sheet.paste(fitted, (k * SIZE, 0))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=QUALITY, method=4)
    return file.getvalue()
