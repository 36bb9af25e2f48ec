"""What each stage of a run made, as pictures over time.

`DRAWN` is the one place that says how values are drawn: by their type, whichever stage gives them, or by its name.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from ss4d.pipelines.inspect.asset import CAMERAS
from ss4d.pipelines.inspect.camera_pictures import (
    INPUT_VIEW,
    aligned,
    alpha_pictures,
    as_gaussians,
    draw_overlaps,
    over_white,
    seen,
    side_views,
)
from ss4d.pipelines.inspect.drawing import (
    Floats,
    Picture,
    PrincipalColors,
    Strip,
    contact_sheet,
    draw_curves,
    draw_voxels,
    evenly,
    height_colors,
    outlined,
    resized,
)
from ss4d.pipelines.inspect.opened import OpenedRun, UnknownTypeError
from ss4d.stages.input_camera import in_grid
from ss4d.stages.input_files import InputConfig, input_digest
from ss4d.stages.meshing.draw import draw_mesh
from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from ss4d.stages.preview import WHITE
from ss4d.stages.types import (
    Camera,
    Clip,
    FittedGaussians,
    FittedVoxels,
    GaussianClip,
    InputCamera,
    MeshClip,
    StructuredLatents,
    Tokens,
    Value,
    Video,
    Voxels,
)
from ss4d.stages.video_io import read_video
from ss4d.storage.errors import StoreError
from ss4d.storage.files import write_bytes

SHEET_FRAMES, SHEET_SIZE = 8, 192
FINEST = 1024  # cells along a grid's axis that a picture is made of
OUTSIDE = 0.3  # brightness of what the mask leaves out
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
        self.run, self.size, self._at_most = run, size, at_most

    def strips(self, stage: str) -> list[Strip]:
        """The stage's value, drawn; nothing for files, or for a value that is not in `DRAWN`.

        Raises:
            StoreError: if it is not stored, or damaged.
        """
        opened = self.run[stage]
        if not opened.arrays():
            return []
        try:
            kind = opened.value_type()
        except UnknownTypeError:
            return []
        draw = DRAWN.get(stage) or DRAWN.get(kind)
        return draw(opened.value(), self) if draw else []

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
        path, file = folder / f"{stage}.png", io.BytesIO()
        contact_sheet(strips, self.size).save(file, "PNG")
        write_bytes(path, file.getvalue())  # in the place of a link, and not where it leads
        return path

    def stored(self, stage: str) -> Value | None:
        """What a stage of the run gave; None where it is not stored."""
        if stage not in self.run.stages or not self.run[stage].stored:
            return None
        return self.run[stage].value()

    def times(self, num_frames: int) -> list[int]:
        """The frames to show."""
        return evenly(num_frames, self._at_most)

    @cached_property
    def clip(self) -> Clip | None:
        """What the run cut out of its input; None where it is not stored."""
        value = self.stored("segmentation")
        return value if isinstance(value, Clip) else None


def draw_clip(clip: Clip, pictures: Pictures) -> list[Strip]:
    """The crop with the outline of the mask, and the mask."""
    times, size = pictures.times(len(clip.rgb)), pictures.size
    masks = alpha_pictures(clip, times, size)
    source = source_frames(pictures.run)
    if source is None:
        frames = resized(clip.rgb[times].numpy(), size)
        caption = "what was cut out, over black (the input is not where it was, so what was left out cannot be shown)"
    elif len(source.frames) != len(clip.rgb):
        raise StoreError(
            f"the record in {pictures.run.path} does not tell how the input was read: that gives {len(source.frames)} "
            f"frames, and the clip has {len(clip.rgb)}"
        )
    else:
        frames = _cropped(source, clip, times, size)
        frames[masks[..., 0] < 128] = (frames[masks[..., 0] < 128] * OUTSIDE).astype(np.uint8)
        caption = "the crop; bright and outlined is what was cut out, dark what was left out"
    return [
        Strip("Object", caption, times, outlined(frames, masks[..., 0] >= 128)),
        Strip("Mask", "white is the object", times, masks),
    ]


def draw_tokens(tokens: Tokens, pictures: Pictures) -> list[Strip]:
    """The principal components of each patch, beside the frames that the encoder was given."""
    num_frames, num_tokens, channels = tokens.feats.shape
    side, size = int(num_tokens**0.5), pictures.size
    patches = tokens.feats[:, num_tokens - side**2 :].numpy()  # the class token and registers come first
    times = pictures.times(num_frames)
    caption = f"each of the {side} x {side} patches in the colors of its three principal components over all frames"
    clip = pictures.clip
    if clip is None or len(clip.rgb) != num_frames:
        colors = PrincipalColors(patches.reshape(-1, channels))
        drawn = np.stack([colors(patches[t]).reshape(side, side, 3) for t in times])
        return [Strip("Image tokens", caption, times, resized((drawn * 255).astype(np.uint8), size))]
    covered = alpha_pictures(clip, list(range(num_frames)), side)[..., :1] / np.float32(255)
    inside = patches[covered.reshape(num_frames, -1) > 0.5]
    # Fitted to the object alone: else the first component would tell object from background and little more.
    colors = PrincipalColors(inside if len(inside) else patches.reshape(-1, channels))
    drawn = np.stack([colors(patches[t]).reshape(side, side, 3) * covered[t] for t in times])
    return [
        Strip("Object", "what the encoder is given", times, resized(clip.rgb[times].numpy(), size)),
        Strip("Image tokens", caption, times, resized((drawn * 255).astype(np.uint8), size)),
    ]


def draw_structure(voxels: Voxels, pictures: Pictures) -> list[Strip]:
    """The occupied cells in colors of their height."""
    coords = voxels.coords.numpy()
    times = pictures.times(voxels.num_frames)
    colors = height_colors(coords[:, 2:], voxels.resolution)
    caption = f"occupied cells of the {voxels.resolution}-cell grid, from the front right; color tells the height"
    return [Strip("Voxels", caption, times, _cells(coords, colors, voxels.resolution, times, pictures.size))]


def draw_latents(latents: StructuredLatents, pictures: Pictures) -> list[Strip]:
    """The occupied cells in colors of the principal components of their latents."""
    coords, feats = latents.coords.numpy(), latents.feats.numpy()
    times = pictures.times(latents.num_frames)
    colors = PrincipalColors(feats)(feats)
    caption = f"each cell's {feats.shape[1]} numbers in the colors of their three principal components over all frames"
    return [Strip("Latents", caption, times, _cells(coords, colors, latents.resolution, times, pictures.size))]


def draw_gaussians(gaussians: GaussianClip, pictures: Pictures) -> list[Strip]:
    """The asset from four sides."""
    times = pictures.times(gaussians.num_frames)
    mean = len(gaussians.means) / max(gaussians.num_frames, 1)
    caption = f"the Gaussians, {mean:,.0f} a frame"
    return _from_sides(caption, times, pictures.size, lambda camera: seen(gaussians, times, camera)[0])


def draw_meshes(meshes: MeshClip, pictures: Pictures) -> list[Strip]:
    """The meshes from four sides."""
    times = pictures.times(meshes.num_frames)
    mean = len(meshes.faces) / max(meshes.num_frames, 1)

    def draw(camera: Camera) -> Picture:
        shots = (draw_mesh(meshes.frame(t), camera, background=WHITE)[0] for t in times)
        return np.stack([(rgb * 255).round().byte().numpy() for rgb in shots])

    return _from_sides(f"the meshes, {mean:,.0f} triangles a frame", times, pictures.size, draw)


def _from_sides(caption: str, times: Sequence[int], size: int, draw: Callable[[Camera], Picture]) -> list[Strip]:
    cameras = {side: orbit_camera(FRONT_YAW - turn, PITCH, size=size) for side, turn in SIDES.items()}
    return [Strip(side, caption, times, draw(camera)) for side, camera in cameras.items()]


def draw_fitted_structure(fitted: FittedVoxels, pictures: Pictures) -> list[Strip]:
    """Input, the cells before and after from the input's side and from either side of it, and the loss."""
    first, camera = pictures.stored("sparse_structure"), pictures.stored("camera")
    before = as_gaussians(first) if isinstance(first, Voxels) else None
    strips = _compared(before, as_gaussians(fitted), camera, "the occupied cells; color tells the height", pictures)
    return [*strips, _loss(fitted, fitted.num_frames, pictures.size)]


def draw_fitted(fitted: FittedGaussians, pictures: Pictures) -> list[Strip]:
    """Input, the asset before and after from the input's side and from either side of it, and the loss."""
    camera = next((found for stage in CAMERAS if (found := pictures.stored(stage)) is not None), None)
    caption = "the Gaussians, before they are turned upright"
    strips = _compared(pictures.stored("decoding"), fitted, camera, caption, pictures)
    return [*strips, _loss(fitted, fitted.num_frames, pictures.size)]


def _compared(
    before: Value | None, after: GaussianClip, camera: Value | None, caption: str, pictures: Pictures
) -> list[Strip]:
    """Input, and both assets from the camera and from either side of it; what is missing is left out."""
    times, size, clip = pictures.times(after.num_frames), pictures.size, pictures.clip
    strips = []
    if clip is not None and len(clip.rgb) == after.num_frames:
        strips.append(Strip("Input", "what the fit is to look like", times, over_white(clip, times, size)))
    if isinstance(camera, InputCamera):
        for name, view in {INPUT_VIEW: in_grid(camera, size), **side_views(camera, size)}.items():
            for word, asset in (("before", before), ("after", after)):
                if isinstance(asset, GaussianClip) and asset.num_frames == after.num_frames:
                    strips.append(Strip(f"{name}, {word}", caption, times, seen(asset, times, view)[0]))
    return strips


def draw_camera(camera: InputCamera, pictures: Pictures) -> list[Strip]:
    """Input, what the camera was found by as it sees it and from either side, and the overlap of outlines."""
    cells = pictures.stored("sparse_structure")
    asset: Value | None
    if isinstance(cells, Voxels):
        asset, what = as_gaussians(cells), "the occupied cells"
    else:  # a run that makes no voxels has Gaussians
        asset, what = pictures.stored("decoding"), "the Gaussians"
    strips, _ = _aligned({"": camera}, asset, what, pictures)
    return [*strips, _noted("", camera, pictures)]


def draw_fitted_camera(camera: InputCamera, pictures: Pictures) -> list[Strip]:
    """Input, what the camera was fitted to as it saw it before and after and from either side, and the overlaps."""
    before = pictures.stored("camera")
    if not isinstance(before, InputCamera):
        cameras = {"after": camera}
    elif torch.equal(before.shift, camera.shift) and torch.equal(before.fov, camera.fov):
        cameras = {"before and after": camera}
    else:
        cameras = {"before": before, "after": camera}
    strips, overlaps = _aligned(cameras, pictures.stored("decoding"), "the Gaussians", pictures)
    if not overlaps:
        return [*strips, _noted("after", camera, pictures)]
    # Not those of the cameras: the first one's, and the second one's if it was left as it was, are those of voxels.
    return [*strips, draw_overlaps(overlaps, "in these pictures", pictures.size)]


def _noted(word: str, camera: InputCamera, pictures: Pictures) -> Strip:
    return draw_overlaps({word: camera.overlap.numpy()}, "as the stage noted it", pictures.size)


# What draws a value of each type, or of a stage by its name, given the `Pictures` of its run.
DRAWN: Mapping[type[Value] | str, Callable[[Any, Pictures], list[Strip]]] = {
    Clip: draw_clip,
    Tokens: draw_tokens,
    Voxels: draw_structure,
    StructuredLatents: draw_latents,
    GaussianClip: draw_gaussians,
    MeshClip: draw_meshes,
    FittedGaussians: draw_fitted,
    FittedVoxels: draw_fitted_structure,
    InputCamera: draw_camera,
    "camera_fit": draw_fitted_camera,  # before its type, which does not tell that the camera was fitted
}


def _aligned(
    cameras: Mapping[str, InputCamera], asset: Value | None, what: str, pictures: Pictures
) -> tuple[list[Strip], dict[str, Floats]]:
    """See `aligned`; what is not of as many frames as the cameras is left out."""
    num_frames, clip = len(list(cameras.values())[-1].overlap), pictures.clip
    return aligned(
        cameras,
        asset if isinstance(asset, GaussianClip) and asset.num_frames == num_frames else None,
        clip if clip is not None and len(clip.rgb) == num_frames else None,
        what=what,
        times=pictures.times(num_frames),
        size=pictures.size,
    )


def _loss(fitted: FittedGaussians | FittedVoxels, num_frames: int, size: int) -> Strip:
    """The loss over the steps of a fit, and how many frames it left alone."""
    left = int((fitted.fitted == 0).sum())
    caption = f"from {_number(fitted.loss, 0)} to {_number(fitted.loss, -1)} in {len(fitted.loss)} steps"
    caption += f"; {left} of {num_frames} frames came out no better and were left as they were" if left else ""
    return Strip("Loss", caption, [0], draw_curves([fitted.loss.numpy()], size)[None])


def _number(values: Tensor, index: int) -> str:
    return f"{float(values[index]):.4f}" if len(values) else "-"


def source_frames(run: OpenedRun) -> Video | None:
    """The frames the run was made from, read again; None where the input is gone or was changed.

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


def _cells(coords: NDArray[np.int32], colors: Floats, resolution: int, times: Sequence[int], size: int) -> Picture:
    """Pictures of the occupied cells (n, 5) = (b, t, x, y, z) of the frames `times`, in `colors` (n, 3)."""
    if not (resolution <= FINEST and (coords[:, 2:] >= 0).all() and (coords[:, 2:] < resolution).all()):
        raise StoreError(f"the voxels cannot be drawn: some lie outside of their grid of {resolution} cells")
    frames = [draw_voxels(coords[coords[:, 1] == t, 2:], colors[coords[:, 1] == t], resolution, size) for t in times]
    return resized(np.stack(frames), size)
