"""Thin parts that the networks leave faint, closed to a sheet: the camera sees the object there, and through the asset.

Axes: t frame, n Gaussian, m pixel that lacks something, s pixel along one side.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from ss4d.stages.evaluation.metrics import iou
from ss4d.stages.fitting.filling import beside, spread
from ss4d.stages.fitting.pictures import FRAMES_AT_ONCE, OTHER_VIEWS, around, drawn, resized, unpacked
from ss4d.stages.ops.splat import Gaussians
from ss4d.stages.types import Camera, GaussianClip

SHOWN = 0.3  # alpha of a pixel that counts as the object's: of a thin part, none may be covered wholly
SOLID = 0.5  # of that alpha, what the asset has where nothing is lacking
RIM = 2  # pixels around what is solid that the fit covers better: from the side, a sheet there would stand out
FAINT = 0.1  # opacity of Gaussians that can be taken from where they are
# What is put into a pixel: its deviation, in pixels, and its opacity. Less of both leaves the fit more to do; more
# fattens other views: chosen on the tuning clips.
WIDTH, OPACITY = 0.45, 0.75
SMOOTHED = 40  # times that the depth of the sheet is averaged with what is around it
COARSE = 32  # pixels a side of the pictures by which outlines from other sides are compared
LIKENESS = 0.8  # of outlines from other sides before and after, at least


def closed(gaussians: GaussianClip, wanted: Tensor, camera: Camera, yaw: float) -> GaussianClip:
    """The clip, with a Gaussian in each pixel of the parts that `camera` saw and the asset lacks.

    They are the faintest ones of the frame, which hardly show where they were. They get their pixel's color and lie as
    deep as what is solid around them, so that they form a sheet that hangs on to it.
    A frame whose outlines from other sides would become others stays as it is: what lacks there is no thin part.

    Args:
        gaussians: of the clip.
        wanted: what the camera saw (t, s, s, 4), RGB over black and alpha, on the device to draw on.
        camera: in the frame of the Gaussians.
        yaw: of that camera, degrees from the front.
    """
    device, seen = wanted.device, resized(camera, wanted.shape[1])
    alpha, depth = _surface(gaussians, seen, device)
    wanted = wanted.cpu()
    covered = wanted[..., 3] > SHOWN
    known = covered & (alpha > SOLID * wanted[..., 3])
    depth = _sheet(depth, known, covered)
    lacking = _beyond(covered & ~known & (depth > 0), known)
    parts = torch.nonzero(lacking.flatten(1).any(1)).squeeze(1)
    if len(parts) == 0:
        return gaussians
    sheet = _with_sheet(gaussians, wanted, depth, lacking, seen)
    views = around(yaw, OTHER_VIEWS, COARSE)
    old, new = (unpacked(clip, device) for clip in (gaussians, sheet))
    likeness = torch.stack(
        [iou(*(_pictures(*clip, parts, view)[..., 3] > 0.5 for clip in (old, new))) for view in views]
    )
    lacking[parts[likeness.mean(0) < LIKENESS]] = False
    return _with_sheet(gaussians, wanted, depth, lacking, seen)


def _with_sheet(gaussians: GaussianClip, wanted: Tensor, depth: Tensor, lacking: Tensor, seen: Camera) -> GaussianClip:
    """The clip, with faint Gaussians put into the pixels (t, s, s) that lack something."""
    arrays = {name: getattr(gaussians, name).clone() for name in ("means", "scales", "colors", "opacities")}
    for t, pixels in enumerate(lacking):
        places = torch.nonzero(pixels)
        donors = _faintest(gaussians, t, len(places))
        if len(donors) == 0:
            continue
        chosen = torch.arange(len(donors)) * len(places) // len(donors)  # all of them, if there are donors enough
        wider = (len(places) / len(donors)) ** 0.5
        rows, columns = places[chosen].unbind(1)
        color, share = torch.split(wanted[t, rows, columns], [3, 1], dim=1)
        far = depth[t, rows, columns]
        arrays["means"][donors] = _unprojected(columns + 0.5, rows + 0.5, far, seen)
        arrays["scales"][donors] = (wider * WIDTH * far / seen.focal)[:, None].expand(-1, 3)
        arrays["colors"][donors] = color / share
        arrays["opacities"][donors] = OPACITY * share[:, 0]
    return replace(gaussians, **arrays)


def _surface(gaussians: GaussianClip, camera: Camera, device: torch.device) -> tuple[Tensor, Tensor]:
    """Alpha (t, s, s) of the asset, and its depth (t, s, s), the mean of what shows, on the CPU."""
    *toward, away = camera.world_to_camera[2]
    depths = gaussians.means @ torch.tensor(toward) + away
    asset, offsets = unpacked(replace(gaussians, colors=depths[:, None].repeat(1, 3)), device)
    pictures = _pictures(asset, offsets, torch.arange(gaussians.num_frames), camera)
    return pictures[..., 3], pictures[..., 0] / pictures[..., 3].clamp(min=1e-3)


def _pictures(asset: Gaussians, offsets: Tensor, frames: Tensor, camera: Camera) -> Tensor:
    """Pictures (k, s, s, 4) of the frames (k), on the CPU."""
    with torch.no_grad():
        return torch.cat(
            [drawn(asset, offsets, some, [camera] * len(some)).cpu() for some in torch.split(frames, FRAMES_AT_ONCE)]
        )


def _sheet(depth: Tensor, known: Tensor, covered: Tensor) -> Tensor:
    """Depths (t, s, s), handed on from where they are known to what is covered and hangs on to it; 0 elsewhere."""
    depth = spread(torch.where(known, depth, 0.0), known.float(), covered)
    there = (depth > 0).float()
    free = (depth > 0) & ~known
    counts = beside(there).clamp(min=1)
    for _ in range(SMOOTHED):
        depth = torch.where(free, beside(depth) / counts, depth)
    return depth


def _beyond(lacking: Tensor, known: Tensor) -> Tensor:
    """Of the pixels (t, s, s) that lack something, those further than `RIM` from what is known, and those around."""

    def grown(pixels: Tensor, by: int) -> Tensor:
        largest: Tensor = functional.max_pool2d(pixels.float()[:, None], 2 * by + 1, stride=1, padding=by)
        return largest[:, 0] > 0

    beyond = lacking & ~grown(known, RIM)
    for _ in range(RIM + 1):
        beyond = lacking & grown(beyond, 1)
    return beyond


def _faintest(gaussians: GaussianClip, t: int, count: int) -> Tensor:
    """Rows of at most `count` faint Gaussians of a frame, the faintest first."""
    first, stop = int(gaussians.offsets[t]), int(gaussians.offsets[t + 1])
    opacities = gaussians.opacities[first:stop]
    faint = int((opacities < FAINT).sum())
    return first + opacities.argsort(stable=True)[: min(count, faint)]


def _unprojected(x: Tensor, y: Tensor, depths: Tensor, camera: Camera) -> Tensor:
    """Points (m, 3) that show at pixels x (m) and y (m), from the left upper corner, at these depths (m)."""
    matrix = torch.tensor(camera.world_to_camera)
    across = (torch.stack([x, y], dim=1) - camera.width / 2) / camera.focal * depths[:, None]
    points = torch.cat([across, depths[:, None]], dim=1) - matrix[:3, 3]
    placed: Tensor = points @ matrix[:3, :3].inverse().T
    return placed
