"""Answers that need no learning, to be beaten: the mean training shape and silhouette inflation; and the truth itself.

World space is z up, cells are (b, t, x, y, z), sorted; cell i covers [i, i + 1] / R - 0.5.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ss4d.stages.data.axes import placement
from ss4d.stages.data.clip import HELD_OUT_SEED, TrainingClip, crop_window, input_camera, lit
from ss4d.stages.data.objects import family_of, make_object, stream
from ss4d.stages.data.voxels import surface_voxels, visible
from ss4d.stages.inflation import facing
from ss4d.stages.types import Axes, Camera, GaussianClip, Progress, silent

# A Gaussian's deviation along the surface and through it, in cells: a wider one closes the last holes, but fattens
# the outline by more than that gains.
SPREAD, FLATNESS = 0.35, 0.25
OPACITY = 0.98
SEEN = 0.1  # opacity above which a Gaussian counts as part of the object
MEAN_CLIPS, MEAN_FRAMES = 256, 16  # what the mean training shape is the mean of; seeds from 0


@dataclass(frozen=True, eq=False)
class Answer:
    """What a method makes of a clip: Gaussians to draw, and the cells (n, 5) it takes for occupied.

    Attributes:
        camera: that it takes for the input's, in its grid; None if it does not say.
    """

    gaussians: GaussianClip
    cells: Tensor
    camera: Camera | None = None


@dataclass(frozen=True, eq=False)
class MeanShape:
    """The mean training shape: cells (n, 3) int32, sorted, and their colors (n, 3) under the light of the views."""

    cells: Tensor
    colors: Tensor
    resolution: int


def mean_shape(
    resolution: int, num_clips: int = MEAN_CLIPS, *, axes: Axes = "world", progress: Progress = silent
) -> MeanShape:
    """The cells most often occupied in procedural clips that training may use, as many as a frame has on average.

    Args:
        resolution: cells along each axis.
        axes: of the grid.
        num_clips: of the seeds 0, 1, ...
        progress: told after every clip.
    """
    assert num_clips <= HELD_OUT_SEED
    counts = np.zeros((resolution, resolution, resolution))
    colors = np.zeros((resolution, resolution, resolution, 3))
    for seed in range(num_clips):
        mesh = make_object(family_of(seed), seed, MEAN_FRAMES)
        camera = input_camera(stream(seed, "film"), mesh)[1]
        place = placement(axes, mesh, camera, crop_window(mesh, camera, camera.width))
        coords, feats = surface_voxels(place.place(mesh), resolution)
        kept = visible(coords, resolution)
        cells = tuple(coords[kept, 2:].T)
        upright = torch.from_numpy(place.rotation.T).float()
        np.add.at(counts, cells, 1)
        np.add.at(colors, cells, lit(torch.from_numpy(feats[kept]), upright).numpy())
        progress(seed + 1, num_clips)
    size = round(counts.sum() / (num_clips * MEAN_FRAMES))
    chosen = np.sort(np.argsort(-counts, axis=None, kind="stable")[:size])
    often = np.stack(np.unravel_index(chosen, counts.shape), axis=1)
    mean_colors = colors.reshape(-1, 3)[chosen] / np.maximum(counts.reshape(-1)[chosen], 1)[:, None]
    return MeanShape(torch.from_numpy(often).int(), torch.from_numpy(mean_colors).float(), resolution)


def mean_shape_answer(shape: MeanShape, num_frames: int) -> Answer:
    """The mean training shape, standing still."""
    count = len(shape.cells)
    times = torch.arange(num_frames, dtype=torch.int32).repeat_interleave(count)[:, None]
    coords = torch.cat((torch.zeros_like(times), times, shape.cells.repeat(num_frames, 1)), dim=1)
    upright = torch.zeros(len(coords), 3)
    return Answer(
        voxel_gaussians(coords, shape.colors.repeat(num_frames, 1), upright, upright, num_frames, shape.resolution),
        coords,
    )


def truth_answer(clip: TrainingClip) -> Answer:
    """The clip's own voxels in the light of its views, one flat Gaussian each: what perfect voxels would score."""
    normals, offsets = clip.feats[:, 3:6], clip.feats[:, 6:]
    gaussians = voxel_gaussians(
        clip.coords, lit(clip.feats, clip.upright), normals, offsets, clip.num_frames, clip.resolution
    )
    return Answer(gaussians, clip.coords)


def voxel_gaussians(
    coords: Tensor, colors: Tensor, normals: Tensor, offsets: Tensor, num_frames: int, resolution: int
) -> GaussianClip:
    """One Gaussian for each cell, flat along its surface; a ball where the normal is zero.

    Args:
        coords: (n, 5), sorted.
        colors: (n, 3).
        normals: (n, 3), unit or zero.
        offsets: (n, 3) of the center from the cell's, in cells.
        num_frames: frames of the clip.
        resolution: cells along each axis.
    """
    oriented = normals.square().sum(1, keepdim=True) > 0.5
    up = torch.tensor([0.0, 0.0, 1.0])
    scales = torch.where(oriented, torch.tensor([SPREAD, SPREAD, FLATNESS]), torch.full((3,), SPREAD))
    counts = torch.bincount(coords[:, 1].long(), minlength=num_frames)
    return GaussianClip(
        means=(coords[:, 2:] + 0.5 + offsets) / resolution - 0.5,
        scales=scales / resolution,
        quats=facing(torch.where(oriented, normals, up)),
        colors=colors,
        opacities=torch.full((len(coords),), OPACITY),
        offsets=torch.cat((counts.new_zeros(1), counts.cumsum(0))),
    )


def occupied_by(gaussians: GaussianClip, resolution: int) -> Tensor:
    """The cells (n, 5) int32, sorted, that hold a center with opacity above 0.1 and can be seen from outside.

    Centers outside the grid count for none; "can be seen" is what `ss4d.stages.data.voxels.visible` says.
    """
    counts = gaussians.offsets[1:] - gaussians.offsets[:-1]
    times = torch.arange(gaussians.num_frames).repeat_interleave(counts)
    cells = torch.floor((gaussians.means + 0.5) * resolution).int()
    kept = (gaussians.opacities > SEEN) & (cells >= 0).all(1) & (cells < resolution).all(1)
    coords = torch.cat((torch.zeros_like(times)[kept, None], times[kept, None], cells[kept]), dim=1).int()
    coords = torch.unique(coords, dim=0)
    seen: Tensor = coords[torch.from_numpy(visible(coords.numpy(), resolution))]
    return seen
