"""What each stage of a run made, as pictures over time that a person reads at a glance."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from ss4d.pipelines.inspect.drawing import (
    Floats,
    Picture,
    PrincipalColors,
    Strip,
    contact_sheet,
    draw_voxels,
    evenly,
    height_colors,
    outline,
    resized,
)
from ss4d.pipelines.inspect.opened import OpenedRun
from ss4d.stages.input_files import InputConfig, input_digest
from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.preview import render_frames
from ss4d.stages.types import Clip, GaussianClip, StructuredLatents, Tokens, Value, Video, Voxels
from ss4d.stages.video_io import read_video
from ss4d.storage.errors import StoreError

V = TypeVar("V", bound=Value)
SHEET_FRAMES, SHEET_SIZE = 8, 192
FINEST = 1024  # cells along a grid's axis that a picture is made of
OUTSIDE = 0.3  # brightness of what the mask leaves out
EDGE = (255, 64, 160)  # color of the mask's outline
PITCH = 15.0  # degrees that the cameras look down
SIDES = {"Front": 0.0, "From the right": 90.0, "Back": 180.0, "From the left": 270.0}  # degrees around the object


class Pictures:
    """Draws the stages of one run; what several pictures need is read once.

    Args:
        run: the run.
        at_most: frames shown, spread over the clip.
        size: sides of a picture in pixels.
    """

    def __init__(self, run: OpenedRun, *, at_most: int = SHEET_FRAMES, size: int = SHEET_SIZE) -> None:
        self._run, self._at_most, self._size = run, at_most, size
        self._drawers: dict[str, Callable[[], list[Strip]]] = {
            "segmentation": self._segmentation,
            "conditioning": self._conditioning,
            "sparse_structure": self._sparse_structure,
            "slat": self._slat,
            "decoding": self._decoding,
        }

    def strips(self, stage: str) -> list[Strip]:
        """What the stage made, a strip a thing; none for a stage that gives files.

        Raises:
            StoreError: if it is not stored, or damaged.
        """
        return self._drawers[stage]() if stage in self._drawers else []

    def write(self, stage: str, folder: Path) -> Path | None:
        """Writes the stage's strips as one PNG file in `folder`, which is made if missing; None if there are none.

        Raises:
            StoreError: if the stage is not stored, or damaged.
            OSError: if the file cannot be written.
        """
        strips = self.strips(stage)
        if not strips:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stage}.png"
        contact_sheet(strips, self._size).save(path)
        return path

    def _segmentation(self) -> list[Strip]:
        clip = self._clip
        times = evenly(len(clip.rgb), self._at_most)
        masks = resized(np.repeat(clip.alpha[times].numpy()[..., None], 3, axis=-1), self._size)
        source = source_frames(self._run)
        if source is None:
            pictures = resized(clip.rgb[times].numpy(), self._size)
            caption = (
                "what was cut out, over black (the input is not where it was, so what was left out cannot be shown)"
            )
        else:
            pictures = _cropped(source, clip, times, self._size)
            pictures[masks[..., 0] < 128] = (pictures[masks[..., 0] < 128] * OUTSIDE).astype(np.uint8)
            caption = "the crop; bright and outlined is what was cut out, dark what was left out"
        for picture, mask in zip(pictures, masks, strict=True):
            picture[outline(mask[..., 0] >= 128)] = EDGE
        return [
            Strip("Object", caption, times, pictures),
            Strip("Mask", "white is the object", times, masks),
        ]

    def _conditioning(self) -> list[Strip]:
        tokens = self._value("conditioning", Tokens)
        num_frames, num_tokens, channels = tokens.feats.shape
        side = int(num_tokens**0.5)
        patches = tokens.feats[:, num_tokens - side**2 :].numpy()  # the class token and registers come first
        times = evenly(num_frames, self._at_most)
        caption = f"each of the {side} x {side} patches in the colors of its three principal components over all frames"
        if not self._run["segmentation"].stored:
            colors = PrincipalColors(patches.reshape(-1, channels))
            pictures = np.stack([colors(patches[t]).reshape(side, side, 3) for t in times])
            return [Strip("Image tokens", caption, times, resized((pictures * 255).astype(np.uint8), self._size))]
        clip = self._clip
        covered = resized(np.repeat(clip.alpha.numpy()[..., None], 3, axis=-1), side)[..., :1] / np.float32(255)
        inside = patches[covered.reshape(num_frames, -1) > 0.5]
        # Fitted to the object alone: else the first component would tell object from background and little more.
        colors = PrincipalColors(inside if len(inside) else patches.reshape(-1, channels))
        pictures = np.stack([colors(patches[t]).reshape(side, side, 3) * covered[t] for t in times])
        return [
            Strip("Object", "what the encoder is given", times, resized(clip.rgb[times].numpy(), self._size)),
            Strip("Image tokens", caption, times, resized((pictures * 255).astype(np.uint8), self._size)),
        ]

    def _sparse_structure(self) -> list[Strip]:
        voxels = self._value("sparse_structure", Voxels)
        coords = voxels.coords.numpy()
        times = evenly(voxels.num_frames, self._at_most)
        colors = height_colors(coords[:, 2:], voxels.resolution)
        caption = f"occupied cells of the {voxels.resolution}-cell grid, from the front right; color tells the height"
        return [Strip("Voxels", caption, times, self._voxel_pictures(coords, colors, voxels.resolution, times))]

    def _slat(self) -> list[Strip]:
        latents = self._value("slat", StructuredLatents)
        coords, feats = latents.coords.numpy(), latents.feats.numpy()
        times = evenly(latents.num_frames, self._at_most)
        colors = PrincipalColors(feats)(feats)
        caption = (
            f"each cell's {feats.shape[1]} numbers in the colors of their three principal components over all frames"
        )
        return [Strip("Latents", caption, times, self._voxel_pictures(coords, colors, latents.resolution, times))]

    def _decoding(self) -> list[Strip]:
        gaussians = self._value("decoding", GaussianClip)
        times = evenly(gaussians.num_frames, self._at_most)
        mean = len(gaussians.means) / max(gaussians.num_frames, 1)
        strips = []
        for side, turn in SIDES.items():
            camera = orbit_camera(FRONT_YAW - turn, PITCH, size=self._size)
            pictures = [p.numpy() for p in render_frames(gaussians, ((t, camera) for t in times), render=rasterize)]
            strips.append(Strip(side, f"the Gaussians, {mean:,.0f} a frame", times, np.stack(pictures)))
        return strips

    @cached_property
    def _clip(self) -> Clip:
        return self._value("segmentation", Clip)

    def _value(self, stage: str, kind: type[V]) -> V:
        value = self._run[stage].value()
        assert isinstance(value, kind)
        return value

    def _voxel_pictures(
        self, coords: NDArray[np.int32], colors: Floats, resolution: int, times: Sequence[int]
    ) -> Picture:
        if not (resolution <= FINEST and (coords[:, 2:] >= 0).all() and (coords[:, 2:] < resolution).all()):
            raise StoreError(f"the voxels cannot be drawn: some lie outside of their grid of {resolution} cells")
        pictures = [
            draw_voxels(coords[coords[:, 1] == t, 2:], colors[coords[:, 1] == t], resolution, self._size) for t in times
        ]
        return resized(np.stack(pictures), self._size)


def source_frames(run: OpenedRun) -> Video | None:
    """The frames the run was made from, read again; None where the input is no longer what it was.

    Raises:
        StoreError: if the record does not tell how to read it.
        InputError: if it cannot be read.
    """
    path = Path(run.record.input.path)
    if not (path.is_file() or path.is_dir()) or input_digest(path) != run.record.input.sha256:
        return None
    try:
        config = InputConfig.model_validate(run.record.config.get("input", {}))
    except ValidationError as error:
        raise StoreError(f"the record in {run.path} does not tell how the input was read: {error}") from error
    return read_video(path, config)


def _cropped(source: Video, clip: Clip, times: Sequence[int], size: int) -> Picture:
    """The part of the input frames that the clip shows, its background included."""
    left, top, right, bottom = clip.crop.tolist()
    frames = (source.frames[t, ..., :3].numpy() for t in times)
    return np.stack(
        [np.asarray(Image.fromarray(f).crop((left, top, right, bottom)).resize((size, size))) for f in frames]
    )
