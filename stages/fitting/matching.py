"""Find the camera from which voxels look like the masks: the mean of directions, weighed by how well they explain them.

Where the crop laid out the grid, the direction is known, and nearly always the rest.

Places in the crop are counted as in `ss4d.stages.input_camera`.

Axes: t frame (a few, spread over the clip), n voxel, c candidate, s pixel along one side.
"""

import itertools
import math
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional

from ss4d.stages.evaluation.metrics import iou
from ss4d.stages.input_camera import View, focal_length, rotation
from ss4d.stages.types import Progress, silent

FRAMES = 8  # looked at, at most
COARSE, FINE, EDGES = 24, 48, 128  # pixels a side: in the search, twice, and where the object ends
# Of an outline's area, what lies to one side of a line. Edges are those of a single cell, which may be missing or one
# too many; such lines move little by it. Both together err least: measured on seeds.
SHARES = (0.03, 0.2, 0.5, 0.8, 0.97)
LEANER = 0.92  # times as wide as what cells cover is the object, whose surface passes through their middles
YAWS = tuple(range(-90, 91, 10))
PITCHES = (-15.0, -7.5, 0.0, 7.5, 15.0, 22.5, 30.0, 37.5, 45.0, 60.0)
CELLS = 16  # of the grid that is matched, along each axis
USUAL_PITCH, SPREAD_OF_PITCH, USUAL_DISTANCE = 12.5, 15.0, 2.0
# The mean of the tuning clips' cameras from a grid that the crop laid out; the crop spans 35 degrees then.
USUAL_DISTANCE_BY_CROP = 1.6
# There, objects too deep for the cube were made smaller. Voxels that span this much of its depth are of such a one if
# the masks are this many times as wide: chosen on the tuning clips, with cells and whole parts of the voxels missing.
DEEP, SHRUNK = 0.9, 1.1
# Of overlap, what one direction has ahead of another to be e times as likely. The voxels are wrong themselves, so that
# the best direction is often not the true one, and the mean of the good ones is nearer to it: chosen on seeds.
EVIDENCE = 0.01
FURTHER = 2.0  # times as far off are directions found so as their weights say: measured on seeds
DISTANCE_STEPS = 3  # of finding the distance at which the object has its size in a given field of view
CORNER = 0.3  # from a cell's middle to each of the points that stand for it, along each axis, in cells
BEYOND = 0.25  # how far the center of an outermost cell lies outside of the surface on average, in cells


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a camera, in degrees and world units; None: to be found."""

    yaw: float | None = None
    pitch: float | None = None
    distance: float | None = None
    fov: float | None = None


@dataclass(frozen=True)
class Match:
    """A view, and how far its yaw and its pitch may be off: standard deviations in degrees, 0 of what is known."""

    view: View
    spread: tuple[float, float]


def matched(coords: Tensor, resolution: int, masks: Tensor, known: Known, progress: Progress = silent) -> Match:
    """The camera from which the voxels look like the masks.

    Args:
        coords: (n, 5) cells.
        resolution: of their grid.
        masks: (t, s, s) 0 to 1, any size.
        known: what is not to be found.
        progress: hears of the search.
    """
    chosen = _looked_at(len(masks))
    coords, resolution = _coarser(coords, resolution)
    points, frames = _points(coords, resolution, chosen)
    distance = USUAL_DISTANCE if known.distance is None else known.distance
    (yaw, pitch), spread = _direction(points, frames, masks[chosen], resolution, known, distance, progress)
    edges = _small(masks[chosen], EDGES)
    view = _framed(points, frames, edges, resolution, yaw, pitch, distance)
    if view is None:
        return Match(View(yaw=yaw, pitch=pitch, distance=distance, focal=1.5, shift=(0.0, 0.0)), spread)
    sure = spread == (0.0, 0.0)  # seen from elsewhere, the area lies elsewhere
    if sure:
        view = _framed(points, frames, edges, resolution, yaw, pitch, distance, about=view) or view
    if known.fov is None:
        return Match(view, spread)
    focal = focal_length(known.fov)
    if known.distance is None:
        for _ in range(DISTANCE_STEPS):
            view = _framed(points, frames, edges, resolution, yaw, pitch, view.distance * focal / view.focal) or view
    about = view if sure else None
    view = _framed(points, frames, edges, resolution, yaw, pitch, view.distance, focal, about) or view
    return Match(view, spread)


def by_crop(coords: Tensor, resolution: int, masks: Tensor, distance: float | None, fov: float | None) -> View:
    """The camera of a grid that the crop laid out (`ss4d.stages.data.axes`), which is known but for its distance.

    It looks straight from the front at the cube's middle, which shows in the crop's; a side of the cube is there as
    wide as the crop. Only of an object that was made smaller to fit the cube, the masks tell by how much.

    Args:
        coords: (n, 5) cells.
        resolution: of their grid.
        masks: (t, s, s) 0 to 1, any size.
        distance: of the camera in world units, if it is known.
        fov: degrees that the crop spans, if they are known.
    """
    focal = None if fov is None else focal_length(fov)
    if focal is None or distance is None:
        usual = distance or focal or USUAL_DISTANCE_BY_CROP
        size = _times_as_wide(coords, resolution, masks, usual)
        distance, focal = (usual, size * usual) if focal is None else (focal / size, focal)
    return View(yaw=0.0, pitch=0.0, distance=distance, focal=focal, shift=(0.0, 0.0))


def _times_as_wide(coords: Tensor, resolution: int, masks: Tensor, distance: float) -> float:
    """How many times as wide as they are the voxels show where the crop laid them out: 1 but for shrunk objects."""
    chosen = _looked_at(len(masks))
    coords, resolution = _coarser(coords, resolution)
    points, frames = _points(coords, resolution, chosen)
    # A smaller object reaches both ends of the cube's depth. Voxels that do not are narrow for they lack something.
    if len(points) == 0 or float(points[:, 1].max() - points[:, 1].min()) + 1 / resolution < DEEP:
        return 1.0
    edges = _small(masks[chosen], EDGES)
    view = _framed(points, frames, edges, resolution, 0.0, 0.0, distance)
    if view is not None:
        view = _framed(points, frames, edges, resolution, 0.0, 0.0, distance, about=view)
    size = 1.0 if view is None else view.focal / distance
    return size if size > SHRUNK else 1.0


def _looked_at(count: int) -> Tensor:
    """Which of so many frames are looked at."""
    some = min(FRAMES, count)
    return torch.tensor([round(k * (count - 1) / max(some - 1, 1)) for k in range(some)])


def _direction(
    points: Tensor,
    frames: Tensor,
    masks: Tensor,
    resolution: int,
    known: Known,
    distance: float,
    progress: Progress,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Yaw and pitch in degrees, and how far they may be off: over all that are tried, weighed by how likely."""
    yaws = YAWS if known.yaw is None else (known.yaw,)
    pitches = PITCHES if known.pitch is None else (known.pitch,)
    tried = list(itertools.product(yaws, pitches))
    if len(tried) == 1:
        return tried[0], (0.0, 0.0)
    coarse, sizes = _small(masks, COARSE), [_grown(masks, COARSE), _grown(masks, FINE)]
    likely = []
    for number, (yaw, pitch) in enumerate(tried):
        view = _framed(points, frames, coarse, resolution, yaw, pitch, distance)
        if view is None:
            seen = 0.0
        else:
            seen = fmean(float(_overlap(points, frames, grown, resolution, view).mean()) for grown in sizes)
        likely.append(seen / EVIDENCE - ((pitch - USUAL_PITCH) / SPREAD_OF_PITCH) ** 2 / 2)
        progress(number + 1, len(tried))
    weights = torch.tensor(likely, dtype=torch.float64).softmax(0)
    directions = torch.tensor(tried, dtype=torch.float64)
    mean = weights @ directions
    spread = FURTHER * (weights @ (directions - mean).square()).sqrt()
    return (float(mean[0]), float(mean[1])), (float(spread[0]), float(spread[1]))


def explained(coords: Tensor, resolution: int, masks: Tensor, view: View) -> Tensor:
    """Intersection over union (t) of the masks (t, s, s) and of the outlines of the voxels (n, 5) in that view."""
    coords, resolution = _coarser(coords, resolution)
    points, frames = _points(coords, resolution, torch.arange(len(masks)))
    return _overlap(points, frames, _grown(masks, COARSE), resolution, view)


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
    return functional.interpolate(masks[:, None], (size, size), mode="area")[:, 0]


def _grown(masks: Tensor, size: int) -> Tensor:
    """Small masks (t, s, s), grown by a 24th part of a side, as what cells cover is fatter than the object."""
    by = size // COARSE
    return functional.max_pool2d(_small(masks, size)[:, None], 2 * by + 1, stride=1, padding=by)[:, 0]


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
    focal: float | None = None,
    about: View | None = None,
) -> View | None:
    """The view from there whose focal length and shift bring the edges of the voxels onto those of the masks.

    None where no frame has both, or only a mirrored picture would fit. A `focal` length that is given is kept. Of a
    view that is `about` right, outlines are compared, too, by where shares of their areas lie.
    """
    size, count = masks.shape[1], len(masks)
    shown = torch.nonzero(masks > 0.5)
    across, down = ((shown[:, axis].float() + 0.5) / size - 0.5 for axis in (2, 1))
    theirs = _edges(across, down, shown[:, 0], count)
    theirs = theirs + torch.tensor([-0.5, -0.5, 0.5, 0.5]) / size
    turned = points @ rotation(torch.tensor(math.radians(yaw)), torch.tensor(math.radians(pitch))).T
    depth = turned[:, 2] + distance
    ours = _edges(turned[:, 0] / depth, turned[:, 1] / depth, frames, count)
    ours = ours + ours.new_tensor([1.0, 1.0, -1.0, -1.0]) * (BEYOND / resolution / distance)
    if about is not None:
        seen = _small(masks, FINE)
        covered = _covered(points, frames, seen, resolution, about).float()
        lines = (_shares(covered) - torch.tensor(about.shift)) / about.focal
        middles = lines.mean(1, keepdim=True)
        ours = torch.cat([ours, (middles + LEANER * (lines - middles)).flatten(1)], dim=1)
        theirs = torch.cat([theirs, _shares(seen).flatten(1)], dim=1)
    both = (ours.isfinite() & theirs.isfinite()).all(1)
    if not both.any():
        return None
    ours, theirs = ours[both].view(-1, 2), theirs[both].view(-1, 2)  # (edges, x and y)
    middle_ours, middle_theirs = ours.mean(0), theirs.mean(0)
    apart = ours - middle_ours
    if focal is None:
        focal = float((apart * (theirs - middle_theirs)).sum() / apart.square().sum().clamp(min=1e-9))
    if focal <= 0:
        return None
    x, y = (middle_theirs - focal * middle_ours).tolist()
    return View(yaw=yaw, pitch=pitch, distance=distance, focal=focal, shift=(x, y))


def _shares(outlines: Tensor) -> Tensor:
    """Where `SHARES` of the areas of outlines (t, s, s) lie to the left and above (t, k, 2); nan of none."""
    size = outlines.shape[1]
    wanted = torch.tensor(SHARES).expand(len(outlines), -1).contiguous()
    places = []
    for axis in (1, 2):
        along = outlines.sum(axis)
        total = functional.pad(along.cumsum(1), (1, 0)) / along.sum(1, keepdim=True)
        after = torch.searchsorted(total, wanted).clamp(1, size)
        low, high = total.gather(1, after - 1), total.gather(1, after)
        places.append((after - (high - wanted) / (high - low)) / size - 0.5)
    return torch.stack(places, dim=2)


def _overlap(points: Tensor, frames: Tensor, masks: Tensor, resolution: int, view: View) -> Tensor:
    """Intersection over union (t) of the masks and of what the cells cover; 1 of nothing."""
    return iou(_covered(points, frames, masks, resolution, view), masks > 0.5)


def _covered(points: Tensor, frames: Tensor, masks: Tensor, resolution: int, view: View) -> Tensor:
    """What the cells cover of pictures like the masks (t, s, s), drawn as 8 points each."""
    size = masks.shape[1]
    corners = torch.tensor(list(itertools.product((-CORNER, CORNER), repeat=3))) / resolution
    turn = rotation(torch.tensor(math.radians(view.yaw)), torch.tensor(math.radians(view.pitch)))
    turned = (points[:, None] + corners).flatten(0, 1) @ turn.T
    pixels = view.focal * turned[:, :2] / (turned[:, 2:] + view.distance) + torch.tensor(view.shift)
    places = ((pixels + 0.5) * size).floor().long()
    inside = ((places >= 0) & (places < size)).all(1)
    covered = torch.zeros(masks.shape, dtype=torch.bool)
    covered[frames.repeat_interleave(len(corners))[inside], places[inside, 1], places[inside, 0]] = True
    return covered
