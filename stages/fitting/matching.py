"""Find the camera from which voxels look like the masks: a search over directions, then descent along gradients.

Places in the crop are counted as in `ss4d.stages.input_camera`.

Axes: t frame (a few, spread over the clip), n voxel, c candidate, s pixel along one side.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ss4d.stages.evaluation.metrics import iou
from ss4d.stages.input_camera import View, focal_length, rotation, world_to_camera
from ss4d.stages.ops.splat import Gaussians, Views, splat
from ss4d.stages.types import Progress, silent

FRAMES = 8  # looked at, at most
COARSE, FINE, EDGES = 24, 48, 128  # pixels a side: in the search, after it, and where the object ends
YAWS = tuple(range(-90, 91, 10))
PITCHES = (-15.0, -7.5, 0.0, 7.5, 15.0, 22.5, 30.0, 37.5, 45.0, 60.0)
DISTANCES = (1.6, 2.4)
CELLS = 16  # of the grid that is matched, along each axis
STARTS = 3  # candidates that are refined
STEPS = 40
RATES = {"yaw": 0.02, "pitch": 0.02, "distance": 0.02, "focal": 0.01, "shift": 0.004}  # radians, logarithms, sides
USUAL_PITCH, SPREAD_OF_PITCH, USUAL_DISTANCE = 12.0, 20.0, 2.0
PRIOR = 0.01  # what an unusual camera has to explain better
CORNER = 0.3  # from a cell's middle to each of the points that stand for it, along each axis, in cells
CELL = 0.3  # deviation of the ball that stands for a cell, in cells
BEYOND = 0.25  # how far the center of an outermost cell lies outside of the surface on average, in cells


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a camera, in degrees and world units; None: to be found."""

    yaw: float | None = None
    pitch: float | None = None
    distance: float | None = None
    fov: float | None = None


def matched(coords: Tensor, resolution: int, masks: Tensor, known: Known, progress: Progress = silent) -> View:
    """The camera from which the voxels look most like the masks.

    Args:
        coords: (n, 5) cells.
        resolution: of their grid.
        masks: (t, s, s) 0 to 1, any size.
        known: what is not to be found.
        progress: hears of the search and of every refinement.
    """
    times = [round(k * (len(masks) - 1) / max(min(FRAMES, len(masks)) - 1, 1)) for k in range(min(FRAMES, len(masks)))]
    chosen = torch.tensor(times)
    coords, resolution = _coarser(coords, resolution)
    points, frames = _points(coords, resolution, chosen)
    coarse, grown = _small(masks[chosen], COARSE), _grown(masks[chosen])
    candidates = [
        (yaw, pitch, distance)
        for yaw, pitch, distance in itertools.product(
            YAWS if known.yaw is None else (known.yaw,),
            PITCHES if known.pitch is None else (known.pitch,),
            DISTANCES if known.distance is None else (known.distance,),
        )
    ]
    views = [_framed(points, frames, coarse, resolution, *candidate, known) for candidate in candidates]
    found = [view for view in views if view is not None]
    if not found:
        return View(yaw=known.yaw or 0.0, pitch=known.pitch or 0.0, distance=2.0, focal=1.5, shift=(0.0, 0.0))
    scores = [float(_overlap(points, frames, grown, resolution, view).mean()) - _unusual(view) for view in found]
    best = sorted(range(len(found)), key=lambda number: -scores[number])[:STARTS]
    progress(1, 1 + len(best))
    fine = _small(masks[chosen], FINE)
    refined = []
    for number, index in enumerate(best):
        refined.append(_refined(points, frames, fine, resolution, found[index], known))
        progress(2 + number, 1 + len(best))
    best_view = min(refined, key=lambda pair: pair[1])[0]
    # Drawn as balls, the cells look larger than the object: its size follows from their centers instead.
    place = (best_view.yaw, best_view.pitch, best_view.distance)
    return _framed(points, frames, _small(masks[chosen], EDGES), resolution, *place, known) or best_view


def explained(coords: Tensor, resolution: int, masks: Tensor, view: View) -> Tensor:
    """Intersection over union (t) of the masks (t, s, s) and of the outlines of the voxels (n, 5) in that view."""
    coords, resolution = _coarser(coords, resolution)
    points, frames = _points(coords, resolution, torch.arange(len(masks)))
    return _overlap(points, frames, _grown(masks), resolution, view)


def _coarser(coords: Tensor, resolution: int) -> tuple[Tensor, int]:
    """The cells on a grid of at most `CELLS` along each axis."""
    step = -(-resolution // CELLS)
    if step == 1:
        return coords, resolution
    cells = torch.cat([coords[:, :2], torch.div(coords[:, 2:], step, rounding_mode="floor")], dim=1)
    return torch.unique(cells, dim=0), -(-resolution // step)


def _points(coords: Tensor, resolution: int, times: Tensor) -> tuple[Tensor, Tensor]:
    """Centers (n, 3) of the cells of the frames `times`, and the place (n) of each one's frame among these."""
    places = torch.full((int(coords[:, 1].max()) + 2,) if len(coords) else (1,), -1)
    kept = times[times < len(places)]
    places[kept] = torch.arange(len(kept))
    frames = places[coords[:, 1].long()]
    return ((coords[:, 2:].float() + 0.5) / resolution - 0.5)[frames >= 0], frames[frames >= 0]


def _small(masks: Tensor, size: int) -> Tensor:
    return torch.nn.functional.interpolate(masks[:, None], (size, size), mode="area")[:, 0]


def _grown(masks: Tensor) -> Tensor:
    """Small masks (t, s, s), grown by a pixel, as what cells cover is fatter than the object by most of a cell."""
    return torch.nn.functional.max_pool2d(_small(masks, COARSE)[:, None], 3, stride=1, padding=1)[:, 0]


def _edges(u: Tensor, v: Tensor, frames: Tensor, count: int) -> Tensor:
    """Left, top, right and bottom (t, 4) of the points of each frame; infinite where a frame has none."""
    edges = []
    for values, kind in ((u, "amin"), (v, "amin"), (u, "amax"), (v, "amax")):
        empty = values.new_full((count,), math.inf if kind == "amin" else -math.inf)
        edges.append(empty.scatter_reduce(0, frames, values, kind))
    return torch.stack(edges, dim=1)


def _framed(
    points: Tensor,
    frames: Tensor,
    masks: Tensor,
    resolution: int,
    yaw: float,
    pitch: float,
    distance: float,
    known: Known,
) -> View | None:
    """The view from there whose focal length and shift bring the edges of the voxels onto those of the masks."""
    size, count = masks.shape[1], len(masks)
    shown = torch.nonzero(masks > 0.5)
    across, down = ((shown[:, axis].float() + 0.5) / size - 0.5 for axis in (2, 1))
    theirs = _edges(across, down, shown[:, 0], count)
    theirs = theirs + torch.tensor([-0.5, -0.5, 0.5, 0.5]) / size
    turned = points @ rotation(torch.tensor(math.radians(yaw)), torch.tensor(math.radians(pitch))).T
    depth = turned[:, 2] + distance
    ours = _edges(turned[:, 0] / depth, turned[:, 1] / depth, frames, count)
    ours = ours + ours.new_tensor([1.0, 1.0, -1.0, -1.0]) * (BEYOND / resolution / distance)
    both = (ours.isfinite() & theirs.isfinite()).all(1)
    if not both.any():
        return None
    ours, theirs = ours[both].view(-1, 2), theirs[both].view(-1, 2)  # (edges, x and y)
    middle_ours, middle_theirs = ours.mean(0), theirs.mean(0)
    apart = ours - middle_ours
    focal = float((apart * (theirs - middle_theirs)).sum() / apart.square().sum().clamp(min=1e-9))
    if known.fov is not None:
        focal = focal_length(known.fov)
    if focal <= 0:
        return None
    x, y = (middle_theirs - focal * middle_ours).tolist()
    return View(yaw=yaw, pitch=pitch, distance=distance, focal=focal, shift=(x, y))


def _overlap(points: Tensor, frames: Tensor, masks: Tensor, resolution: int, view: View) -> Tensor:
    """Intersection over union (t) of the masks and of what the cells cover, drawn as 8 points each; 1 of nothing."""
    size = masks.shape[1]
    corners = torch.tensor(list(itertools.product((-CORNER, CORNER), repeat=3))) / resolution
    turn = rotation(torch.tensor(math.radians(view.yaw)), torch.tensor(math.radians(view.pitch)))
    turned = (points[:, None] + corners).flatten(0, 1) @ turn.T
    pixels = view.focal * turned[:, :2] / (turned[:, 2:] + view.distance) + torch.tensor(view.shift)
    places = ((pixels + 0.5) * size).floor().long()
    inside = ((places >= 0) & (places < size)).all(1)
    covered = torch.zeros(masks.shape, dtype=torch.bool)
    covered[frames.repeat_interleave(len(corners))[inside], places[inside, 1], places[inside, 0]] = True
    return iou(covered, masks > 0.5)


def _unusual(view: View) -> float:
    return PRIOR * ((view.pitch - USUAL_PITCH) / SPREAD_OF_PITCH) ** 2


def _as_gaussians(points: Tensor, frames: Tensor, num_frames: int, resolution: int) -> tuple[Gaussians, Tensor]:
    """A round Gaussian in each cell, nearly opaque, sorted by frame; and where each frame begins."""
    gaussians = Gaussians(
        means=points[frames.argsort(stable=True)],
        scales=torch.full((len(points), 3), CELL / resolution),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(points), 4),
        colors=torch.zeros(len(points), 3),
        opacities=torch.full((len(points), 1), 0.98),
    )
    counts = torch.bincount(frames, minlength=num_frames)
    return gaussians, torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])


def _refined(
    points: Tensor, frames: Tensor, masks: Tensor, resolution: int, view: View, known: Known
) -> tuple[View, float]:
    """The view after some steps downhill, and how much of the masks it leaves unexplained, 0 to 1."""
    start = {
        "yaw": math.radians(view.yaw),
        "pitch": math.radians(view.pitch),
        "distance": math.log(view.distance),
        "focal": math.log(view.focal),
        "shift": view.shift,
    }
    numbers = {name: torch.tensor(value, requires_grad=True) for name, value in start.items()}
    fixed = {"fov": "focal"}
    held = {fixed.get(name, name) for name in ("yaw", "pitch", "distance", "fov") if getattr(known, name) is not None}
    free = [{"params": [numbers[name]], "lr": RATES[name]} for name in numbers if name not in held]
    adam = torch.optim.Adam(free)
    cells, offsets = _as_gaussians(points, frames, len(masks), resolution)
    size, count = masks.shape[1], len(masks)
    best = (view, math.inf)
    for step in range(STEPS + 1):
        distance, focal = numbers["distance"].exp(), numbers["focal"].exp()
        matrix = world_to_camera(numbers["yaw"], numbers["pitch"], distance, focal, numbers["shift"])
        views = Views(
            frames=torch.arange(count),
            world_to_camera=matrix.expand(count, 4, 4),
            focals=(focal * size).expand(count),
            backgrounds=torch.zeros(count, 3),
            height=size,
            width=size,
        )
        _, alpha = splat(cells, offsets, views)
        left = (
            1 - (torch.minimum(alpha, masks).sum((1, 2)) / torch.maximum(alpha, masks).sum((1, 2)).clamp(min=1)).mean()
        )
        strange = ((numbers["pitch"] - math.radians(USUAL_PITCH)) / math.radians(SPREAD_OF_PITCH)).square()
        strange = strange + ((numbers["distance"] - math.log(USUAL_DISTANCE)) / 0.3).square()
        loss = left + PRIOR * strange
        if loss.item() < best[1]:
            x, y = numbers["shift"].tolist()
            now = View(
                yaw=math.degrees(numbers["yaw"].item()),
                pitch=math.degrees(numbers["pitch"].item()),
                distance=distance.item(),
                focal=focal.item(),
                shift=(x, y),
            )
            best = (now, loss.item())
        if step < STEPS:
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
    return best
