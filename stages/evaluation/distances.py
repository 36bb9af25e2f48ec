"""How far apart two results of one stage are, in numbers that a person can weigh.

Shares and intersections over union lie between 0 and 1, a relative distance is the RMS of a difference over the RMS of
what differs: 0 is equal, 1.4 unrelated.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ss4d.stages.evaluation.metrics import occupancy_iou, psnr
from ss4d.stages.meshing.draw import draw_mesh
from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from ss4d.stages.ops.rasterize import Rasterize
from ss4d.stages.preview import WHITE, render_frames
from ss4d.stages.types import Camera, Clip, GaussianClip, MeshClip, StructuredLatents, Tokens, Value, Voxels

VIEWS, PITCH, SIZE = 4, 15.0, 256  # cameras all around the object, degrees above the horizon, pixels
Measures = Mapping[str, float]
Shots = Sequence[tuple[int, Camera]]


class IncomparableError(ValueError):
    """Two results have no common measure, such as clips of different length."""


def distances(a: Value, b: Value, render: Rasterize) -> Measures:
    """How far apart two values of one type are; what is measured depends on the type.

    Args:
        a: a stage's value.
        b: another one of the same stage.
        render: the rasterizer that pictures of Gaussians are drawn with.

    Raises:
        IncomparableError: in one phrase.
    """
    of: Mapping[type[Value], Callable[[Any, Any], Measures]] = {
        Clip: clip_distance,
        Tokens: tokens_distance,
        Voxels: voxels_distance,
        StructuredLatents: latents_distance,
        GaussianClip: lambda x, y: gaussians_distance(x, y, render),
        MeshClip: meshes_distance,
    }
    if type(a) is not type(b):
        raise IncomparableError(f"{type(a).__name__} and {type(b).__name__} have no common measure")
    for kind in type(a).__mro__:
        if kind in of:
            return of[kind](a, b)
    return arrays_distance(*({name: getattr(value, name) for name in value.specs()} for value in (a, b)))


def arrays_distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Measures:
    """Relative distance of each array, for values that no measure of their own is known for.

    Numbers that are not finite in either are left out; `NAME_finite_in_one` counts those that are in one of them only.
    """
    if a.keys() != b.keys():
        raise IncomparableError(f"arrays {', '.join(a)} against {', '.join(b)}")
    measures: dict[str, float] = {}
    for name in a:
        if a[name].shape != b[name].shape:
            raise IncomparableError(f"{name} of {tuple(a[name].shape)} against {tuple(b[name].shape)}")
        finite_a, finite_b = a[name].isfinite(), b[name].isfinite()
        both = finite_a & finite_b
        measures[f"{name}_distance"] = relative_distance(a[name][both], b[name][both])
        if num_odd := int((finite_a != finite_b).sum()):
            measures[f"{name}_finite_in_one"] = num_odd
    return measures


def clip_distance(a: Clip, b: Clip) -> Measures:
    """IoU of the masks (alpha above half) in each frame, in pixels of the source, however each was cropped."""
    _same("frames", len(a.alpha), len(b.alpha))
    left, top = (min(int(a.crop[i]), int(b.crop[i])) for i in (0, 1))
    right, bottom = (max(int(a.crop[i]), int(b.crop[i])) for i in (2, 3))
    places = np.arange(top, bottom) + 0.5, np.arange(left, right) + 0.5
    ious = []
    for t in range(len(a.alpha)):
        masks = [_in_source(clip.alpha[t].numpy() > 127, clip.crop.tolist(), *places) for clip in (a, b)]
        either = int((masks[0] | masks[1]).sum())
        ious.append(int((masks[0] & masks[1]).sum()) / either if either else 1.0)
    return {"mask_iou": float(np.mean(ious)), "mask_iou_least": min(ious)}


def _in_source(
    mask: NDArray[np.bool_], crop: list[int], rows: NDArray[Any], columns: NDArray[Any]
) -> NDArray[np.bool_]:
    """A cropped mask (s, s) at the given places (y) and (x) of the source; False outside the crop."""
    left, top, right, bottom = crop
    y = np.floor((rows - top) / (bottom - top) * len(mask)).astype(np.int64)
    x = np.floor((columns - left) / (right - left) * len(mask)).astype(np.int64)
    padded = np.pad(mask, 1)  # what lies outside falls on the padding
    return padded[np.ix_(np.clip(y, -1, len(mask)) + 1, np.clip(x, -1, len(mask)) + 1)]


def tokens_distance(a: Tokens, b: Tokens) -> Measures:
    """Relative distance of all tokens."""
    if a.feats.shape != b.feats.shape:
        raise IncomparableError(f"tokens of {tuple(a.feats.shape)} and of {tuple(b.feats.shape)}")
    return {"token_distance": relative_distance(a.feats, b.feats)}


def voxels_distance(a: Voxels, b: Voxels) -> Measures:
    """IoU of the occupied cells of each frame."""
    _same("frames", a.num_frames, b.num_frames)
    _same("cells along an axis", a.resolution, b.resolution)
    ious = occupancy_iou(a.coords, b.coords, a.num_frames, a.resolution)
    return {
        "voxel_iou": float(ious.mean()),
        "voxel_iou_least": float(ious.min()),
        "voxels_a": len(a.coords),
        "voxels_b": len(b.coords),
    }


def latents_distance(a: StructuredLatents, b: StructuredLatents) -> Measures:
    """Relative distance of the latents on voxels that both have, and which share of all voxels these are."""
    _same("frames", a.num_frames, b.num_frames)
    _same("cells along an axis", a.resolution, b.resolution)
    _same("channels", a.feats.shape[1], b.feats.shape[1])
    shape = (1, a.num_frames, *(a.resolution,) * 3)
    cells_a, cells_b = (np.ravel_multi_index(tuple(x.coords.numpy().T), shape) for x in (a, b))
    shared, rows_a, rows_b = np.intersect1d(cells_a, cells_b, assume_unique=True, return_indices=True)
    num_either = len(a.coords) + len(b.coords) - len(shared)
    share = {"voxels_shared": len(shared) / num_either if num_either else 1.0}
    if not len(shared):
        return share
    return {**share, "latent_distance": relative_distance(a.feats[rows_a], b.feats[rows_b])}


def gaussians_distance(a: GaussianClip, b: GaussianClip, render: Rasterize) -> Measures:
    """How far pictures of them lie apart, see `_picture_ratios`."""
    _same("frames", a.num_frames, b.num_frames)

    def drawn(clip: GaussianClip, shots: Shots) -> Tensor:
        return torch.stack(list(render_frames(clip, shots, render=render))).float() / 255

    ratios = _picture_ratios(a.num_frames, lambda shots: (drawn(a, shots), drawn(b, shots)))
    return {**ratios, "gaussians_a": len(a.means), "gaussians_b": len(b.means)}


def meshes_distance(a: MeshClip, b: MeshClip) -> Measures:
    """How far pictures of them lie apart, see `_picture_ratios`."""
    _same("frames", a.num_frames, b.num_frames)

    def drawn(clip: MeshClip, shots: Shots) -> Tensor:
        return torch.stack([draw_mesh(clip.frame(t), camera, background=WHITE)[0] for t, camera in shots])

    ratios = _picture_ratios(a.num_frames, lambda shots: (drawn(a, shots), drawn(b, shots)))
    return {**ratios, "faces_a": len(a.faces), "faces_b": len(b.faces)}


def _picture_ratios(num_frames: int, both: Callable[[Shots], tuple[Tensor, Tensor]]) -> Measures:
    """PSNR (dB, at most 100) between pictures of the first, middle and last frame from four sides, over white."""
    cameras = [orbit_camera(FRONT_YAW + 360 * view / VIEWS, PITCH, size=SIZE) for view in range(VIEWS)]
    frames = sorted({0, (num_frames - 1) // 2, num_frames - 1})
    ratios = psnr(*both([(frame, camera) for frame in frames for camera in cameras]))
    return {"psnr": float(ratios.mean()), "psnr_least": float(ratios.min())}


def relative_distance(a: Tensor, b: Tensor) -> float:
    """RMS of a - b over the RMS of both: 0 if they are equal, 2 if they are opposite."""
    size = (a.double().square().mean() + b.double().square().mean()) / 2
    difference = (a.double() - b.double()).square().mean()
    return float((difference / size).sqrt()) if size > 0 else 0.0


def _same(what: str, a: int, b: int) -> None:
    if a != b:
        raise IncomparableError(f"{a} {what} against {b}")
