"""What the input's camera sees of an asset, how well outlines agree there, and where its crop stands around the asset.

Of several cameras the last is the one that holds: it is drawn in `CURVE`, and those before it in `EARLIER`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ss4d.pipelines.inspect.drawing import (
    CURVE,
    EARLIER,
    Floats,
    Picture,
    Strip,
    draw_curves,
    height_colors,
    outlined,
    resized,
)
from ss4d.stages.evaluation.metrics import iou
from ss4d.stages.fitting.alignment import SOLID
from ss4d.stages.input_camera import in_grid, view_of, yaw_in_grid
from ss4d.stages.ops.geometry import FRONT_YAW, ORBIT_RADIUS, orbit_camera
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.preview import WHITE
from ss4d.stages.types import Camera, Clip, GaussianClip, InputCamera, Voxels

INPUT_VIEW = "Input view"
SIDE_VIEW = 60  # degrees to either side of the input
AROUND = 2.6  # world units from the cube's middle, where pictures from beside show the whole border
BLOB = 0.35  # standard deviation of the Gaussian that stands for a cell, in cells
NEAREST = 0.1  # world units: what is nearer to a camera is drawn as if it were so far away


def side_views(camera: InputCamera, size: int, radius: float = ORBIT_RADIUS) -> dict[str, Camera]:
    """Cameras to either side of the input's, as it sees left and right; they look at the middle of the model's grid."""
    level = bool((camera.upright.diagonal() == 1).all())  # the grid stands upright, so that the pitch is the same in it
    around, height = FRONT_YAW + yaw_in_grid(camera), float(camera.pitch) if level else 0.0
    return {
        f"{SIDE_VIEW} degrees to the {side}": orbit_camera(around + turn, height, size=size, radius=radius)
        for side, turn in (("right", -SIDE_VIEW), ("left", SIDE_VIEW))
    }


def seen(gaussians: GaussianClip, times: Sequence[int], view: Camera) -> tuple[Picture, NDArray[np.bool_]]:
    """Pictures of the frames `times` over white, and what the Gaussians cover there (t, row, column)."""
    shots = [rasterize(gaussians.frame(t), view, background=WHITE) for t in times]
    rgb, alpha = (torch.stack(layers) for layers in zip(*shots, strict=True))
    return (rgb.clamp(0, 1) * 255).round().byte().numpy(), (alpha > SOLID).numpy()


def as_gaussians(voxels: Voxels) -> GaussianClip:
    """A Gaussian for each cell, in colors of the height."""
    cells, side = voxels.coords[:, 2:], 1 / voxels.resolution
    return GaussianClip(
        means=(cells.float() + 0.5) * side - 0.5,
        scales=torch.full((len(cells), 3), BLOB * side),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(len(cells), 1),
        colors=torch.from_numpy(height_colors(cells.numpy(), voxels.resolution)),
        opacities=torch.ones(len(cells)),
        offsets=torch.searchsorted(voxels.coords[:, 1].contiguous(), torch.arange(voxels.num_frames + 1)),
    )


def alpha_pictures(clip: Clip, times: Sequence[int], size: int) -> Picture:
    """The masks of the frames `times`, white on the object."""
    return resized(np.repeat(clip.alpha[times].numpy()[..., None], 3, axis=-1), size)


def over_white(clip: Clip, times: Sequence[int], size: int) -> Picture:
    """The cut out object over white."""
    rgb, alpha = clip.rgb[times].numpy(), clip.alpha[times].numpy()
    return resized(np.minimum(rgb.astype(np.uint16) + 255 - alpha[..., None], 255).astype(np.uint8), size)


def aligned(
    cameras: Mapping[str, InputCamera],
    asset: GaussianClip | None,
    clip: Clip | None,
    *,
    what: str,
    times: Sequence[int],
    size: int,
) -> tuple[list[Strip], dict[str, Floats]]:
    """The input, the asset from each camera within the mask's outline, and from beside within the cameras' crops.

    Args:
        cameras: by a word that tells them apart, "" for a single one.
        asset: what is drawn, in the model's grid; None if it is not there.
        clip: the input; None if it is not there.
        what: the asset is called.
        times: the frames to show.
        size: sides of a picture in pixels.

    Returns:
        The strips; and for each camera how much the outlines of the asset and of the mask overlap in these frames.
    """
    strips: list[Strip] = []
    overlaps: dict[str, Floats] = {}
    masks = None if clip is None else alpha_pictures(clip, times, size)[..., 0] >= 128
    if clip is not None and masks is not None:
        caption = "what was cut out, and its outline, which lies over the pictures from the camera, too"
        strips.append(Strip("Input", caption, times, outlined(over_white(clip, times, size), masks)))
    if asset is None:
        return strips, overlaps
    for word, camera in cameras.items():
        drawn, covered = seen(asset, times, in_grid(camera, size))
        if masks is not None:
            overlaps[word] = iou(torch.from_numpy(covered), torch.from_numpy(masks)).numpy()
            drawn = outlined(drawn, masks)
        title = f"{INPUT_VIEW}, {word}" if word else INPUT_VIEW
        strips.append(Strip(title, f"{what}; {_told(camera)}", times, drawn))
    views = [in_grid(camera, size) for camera in cameras.values()]
    for name, view in side_views(list(cameras.values())[-1], size, AROUND).items():
        drawn = with_borders(seen(asset, times, view)[0], view, views)
        caption = f"{what} and the border of what the camera sees, at the depth of the cube's middle{_legend(cameras)}"
        strips.append(Strip(name, caption, times, drawn))
    return strips, overlaps


def draw_overlaps(overlaps: Mapping[str, Floats], measured: str, size: int) -> Strip:
    """How much outline and mask overlap by frame.

    Args:
        overlaps: of each camera, by words as in `aligned`.
        measured: how.
        size: sides of the picture in pixels.
    """
    means = " and ".join(f"{values.mean():.3f} {word}".strip() for word, values in overlaps.items())
    caption = f"of outline and mask by frame, {measured}, from 0 to 1; {means} on average{_legend(overlaps)}"
    return Strip("Overlap", caption, [0], draw_curves(list(overlaps.values()), size, highest=1.0)[None])


def with_borders(pictures: Picture, view: Camera, cameras: Sequence[Camera]) -> Picture:
    """Pictures from `view` with the borders of what each camera sees, at the depth of the world's origin."""
    images = [Image.fromarray(picture) for picture in pictures]
    for camera in cameras:
        border = _projected(_corners(camera), view)
        for image in images:
            color = CURVE if camera is cameras[-1] else EARLIER
            ImageDraw.Draw(image).line([*border, border[0]], fill=color, width=2)
    return np.stack([np.asarray(image) for image in images])


def _legend(words: Mapping[str, object]) -> str:
    return " (gray before, blue after)" if len(words) > 1 else ""


def _told(camera: InputCamera) -> str:
    """The camera's numbers."""
    view = view_of(camera)
    yaw, pitch = (
        f"{angle:.1f}{f' ± {spread:.1f}' if spread else ''}"
        for angle, spread in zip((view.yaw, view.pitch), camera.spread.tolist(), strict=True)
    )
    right, down = (100 * shift for shift in view.shift)
    return (
        f"yaw {yaw}, pitch {pitch}, field of view {float(camera.fov):.1f} degrees, distance {view.distance:.2f}, "
        f"middle of the cube {abs(right):.1f} % {'left' if right < 0 else 'right'} and {abs(down):.1f} % "
        f"{'up' if down < 0 else 'down'}"
    )


def _corners(camera: Camera) -> NDArray[np.float64]:
    """Those (4, 3) of what the camera sees at the depth of the world's origin."""
    matrix = np.array(camera.world_to_camera)
    reach = matrix[2, 3] / camera.focal / 2
    across = reach * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (camera.width, camera.height)
    there = np.column_stack([across, np.full(4, matrix[2, 3]), np.ones(4)])
    return (there @ np.linalg.inv(matrix).T)[:, :3]


def _projected(points: NDArray[np.float64], camera: Camera) -> list[tuple[float, float]]:
    """Where points (n, 3) show in the camera's picture, in pixels."""
    matrix = np.array(camera.world_to_camera)[:3]
    x, y, z = matrix[:, :3] @ points.T + matrix[:, 3:]
    depth = np.maximum(z, NEAREST)
    u, v = camera.width / 2 + camera.focal * x / depth, camera.height / 2 + camera.focal * y / depth
    return [(float(column), float(row)) for column, row in zip(u, v, strict=True)]
