"""The structure fit: voxels whose outline is that of the masks, by way of the latent that they are decoded from.

Axes: t frame, c channel, r side of the latent, n cell of the whole grid, k ray, p pair of a cell and a ray through it.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ss4d.stages.evaluation.metrics import iou
from ss4d.stages.fitting.config import StructureFitConfig
from ss4d.stages.fitting.filling import filled, without_crumbs
from ss4d.stages.fitting.guard import doubted, said
from ss4d.stages.input_camera import in_grid
from ss4d.stages.nn.occupancy import SparseStructureDecoder, cell_logits
from ss4d.stages.types import Camera, Clip, FittedVoxels, InputCamera, Progress, Voxels, silent

LOG = logging.getLogger("ss4d")
FRAMES_AT_ONCE = 8  # fitted together: bounds memory
RAYS = 36  # along each side of the crop
ASIDE = 50  # the same for the outlines that a fit is judged by
FINE = 144  # pixels a side of the masks that cells are carved by
INSIDE, OUTSIDE = 0.9, 0.05  # alpha of a ray that must hit something; and of one that touches the object at all
SHOWN = 0.3  # alpha of a ray that is given a cell: of a thin part, which no ray lies in wholly
POORER = 0.75  # a frame's overlap over the least of a clip: in one in which camera and masks are right
LEAST_LIKENESS = 0.5  # intersection over union of a frame's cells before and after


@dataclass(frozen=True, eq=False)
class Projection:
    """Where the cells of a grid show in a crop.

    Attributes:
        places: (n, 2), of their centers, in sides of the crop from its left upper corner, right and down.
        halves: (n), half their sides as they show, in sides of the crop.
        depths: (n), of their centers before the camera, in world units.
    """

    places: Tensor
    halves: Tensor
    depths: Tensor

    @classmethod
    def of(cls, resolution: int, camera: Camera, device: torch.device) -> "Projection":
        """All cells, x slowest and z fastest."""
        axis = (torch.arange(resolution) + 0.5) / resolution - 0.5
        centers = torch.cartesian_prod(axis, axis, axis)
        matrix = torch.tensor(camera.world_to_camera)
        points = centers @ matrix[:3, :3].T + matrix[:3, 3]
        depths = points[:, 2].clamp(min=1e-3)
        focal = camera.focal / camera.width
        places = focal * points[:, :2] / depths[:, None] + 0.5
        return cls(places.to(device), (0.5 * focal / resolution / depths).to(device), depths.to(device))

    def pairs(self, rays: int, size: float = 1.0) -> tuple[Tensor, Tensor]:
        """Cells (p) and rays (p), row by row, that meet: a ray passes a square of `size` times the cell's."""
        halves = self.halves * rays * size
        reach = int(halves.max().ceil())
        steps = torch.arange(-reach, reach + 1, device=halves.device)
        places = self.places * rays - 0.5
        near = places.round().long()
        x, y = near[:, :1] + steps, near[:, 1:] + steps
        across = ((x - places[:, :1]).abs() <= halves[:, None]) & (x >= 0) & (x < rays)
        down = ((y - places[:, 1:]).abs() <= halves[:, None]) & (y >= 0) & (y < rays)
        cells, row, column = torch.nonzero(down[:, :, None] & across[:, None, :]).unbind(1)
        return cells, y[cells, row] * rays + x[cells, column]

    def read(self, pictures: Tensor) -> Tensor:
        """What pictures (t, s, s) show at the center of each cell (t, n); 0 outside."""
        size = pictures.shape[1]
        x, y = (self.places * size).floor().long().unbind(1)
        inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
        seen = pictures.flatten(1)[:, (y * size + x).clamp(0, size * size - 1)]
        return torch.where(inside, seen, 0.0)


def fit_structure(
    config: StructureFitConfig,
    decoder: SparseStructureDecoder,
    voxels: Voxels,
    clip: Clip,
    camera: InputCamera,
    *,
    progress: Progress = silent,
) -> FittedVoxels:
    """The voxels, fitted to the masks as `camera` saw them; see `fit_outline`."""
    seen = in_grid(camera, RAYS)
    return fit_outline(config, decoder, voxels, clip, seen, doubted(camera, RAYS), progress=progress)


def fit_outline(
    config: StructureFitConfig,
    decoder: SparseStructureDecoder,
    voxels: Voxels,
    clip: Clip,
    camera: Camera,
    doubts: Sequence[Camera] = (),
    *,
    progress: Progress = silent,
) -> FittedVoxels:
    """The voxels, fitted to the masks on the decoder's device; those of a frame that gets no better are as they were.

    A ray inside the mask must hit a cell, a cell beside the mask must be empty, and the latent stays near what it was.
    A frame is kept if its outline, drawn along other rays, is more like the mask than before, if neither it nor those
    of the clip were too far from their masks before, if most of its cells are still the same, and if it is no less
    like the mask from any of `doubts`.

    Args:
        config: how.
        decoder: of the occupancy latent.
        voxels: the model's.
        clip: the input.
        camera: that saw it, in the grid.
        doubts: other cameras that may have seen it instead.
        progress: told after every step of every few frames.
    """
    device = next(decoder.parameters()).device
    masks = clip.alpha.to(device).float() / 255
    projection = Projection.of(voxels.resolution, camera, device)
    starts = range(0, len(masks), FRAMES_AT_ONCE)
    latents, grids, losses = [], [], torch.zeros(config.steps)
    for number, start in enumerate(starts):
        some = slice(start, start + FRAMES_AT_ONCE)
        latent, guess, seen = voxels.latent[some].to(device), voxels.guess[some].to(device), masks[some]

        def told(step: int, first: int = number * config.steps) -> None:
            progress(first + step, len(starts) * config.steps)

        moved, loss = _fitted(config, decoder, latent, guess, seen, projection, told)
        with torch.no_grad():
            solid = cell_logits(decoder, moved, guess).flatten(1) > 0
        if config.carve:
            solid = solid & _near(seen, projection)
        if config.fill:
            whole = without_crumbs(solid, voxels.resolution)
            solid = filled(whole, _small(seen, RAYS) > SHOWN, projection.pairs(RAYS), projection.depths)
        latents.append(moved.cpu())
        grids.append(solid.cpu())
        losses += loss * (len(latent) / len(masks))
    after, latent = torch.cat(grids), torch.cat(latents)
    before = _grid(voxels)
    views = [Projection.of(voxels.resolution, view, torch.device("cpu")) for view in (camera, *doubts)]
    better = _better(config, before, after, masks.cpu(), views)
    LOG.info("structure_fit: %s", said(better))
    side = voxels.resolution
    cells = torch.nonzero(torch.where(better[:, None], after, before).view(-1, side, side, side)).int()
    return FittedVoxels(
        coords=torch.cat([torch.zeros_like(cells[:, :1]), cells], dim=1),
        latent=torch.where(better[:, None, None, None, None], latent, voxels.latent),
        guess=voxels.guess,
        resolution=voxels.resolution,
        loss=losses,
        fitted=better.to(torch.uint8),
    )


def _fitted(
    config: StructureFitConfig,
    decoder: SparseStructureDecoder,
    start: Tensor,
    guess: Tensor,
    masks: Tensor,
    projection: Projection,
    told: Callable[[int], None],
) -> tuple[Tensor, Tensor]:
    """The latent (t, c, r, r, r) of a few frames after all steps, and the loss of each step."""
    cells, rays = projection.pairs(RAYS)
    seen = _small(masks, RAYS)
    inside = (seen > INSIDE).flatten(1)
    touched = functional.max_pool2d((seen > OUTSIDE).float()[:, None], 3, stride=1, padding=1)[:, 0]
    outside = projection.read(touched) == 0
    latent = start.clone().requires_grad_(True)
    adam = torch.optim.Adam([latent], lr=config.rate)
    losses = []
    for step in range(config.steps):
        logits = cell_logits(decoder, latent, guess).flatten(1)
        empty = -functional.softplus(logits)  # the logarithm of each cell's chance to be empty
        # Not empty[:, cells]: two threads would add to the gradient of one cell in an order that depends on the load.
        along = empty.T.index_select(0, cells)
        missed = empty.new_zeros(RAYS * RAYS, len(latent)).index_add(0, rays, along).T
        hit = -torch.log1p(-missed.clamp(max=-1e-6).exp())
        loss = ((hit * inside).sum() - (empty * outside).sum()) / inside.sum().clamp(min=1)
        loss = loss + config.stay * (latent - start).square().mean()
        adam.zero_grad()
        loss.backward(inputs=[latent])  # type: ignore[no-untyped-call]  # the weights are frozen
        adam.step()
        losses.append(loss.item())
        told(step + 1)
    return latent.detach(), torch.tensor(losses)


def _near(masks: Tensor, projection: Projection) -> Tensor:
    """Cells (t, n) whose center shows in the mask, or no further from it than half of the cell does."""
    margin = max(int((projection.halves.median() * FINE).round()), 1)
    grown = functional.max_pool2d(_small(masks, FINE)[:, None], 2 * margin + 1, stride=1, padding=margin)[:, 0]
    return projection.read(grown) >= 0.5


def _better(
    config: StructureFitConfig, before: Tensor, after: Tensor, masks: Tensor, views: Sequence[Projection]
) -> Tensor:
    """Which frames (t) got better, of cells (t, n) before and after; the first of the views is the camera's."""
    # Centers of cells lie outside of the surface as often as inside, so that outlines of cells are a little wide.
    wanted = functional.max_pool2d(_small(masks, ASIDE)[:, None], 3, stride=1, padding=1)[:, 0].flatten(1) > 0.5

    def overlap(solid: Tensor, projection: Projection) -> Tensor:
        cells, rays = projection.pairs(ASIDE)
        covered = torch.zeros(len(solid), ASIDE * ASIDE).index_add(1, rays, solid[:, cells].float()) > 0
        return iou(covered, wanted)

    old, new = (torch.stack([overlap(solid, view) for view in views]) for solid in (before, after))
    kept = iou(before, after) >= LEAST_LIKENESS
    near = (old[0] >= POORER * config.overlap) & (old[0].mean() >= config.overlap)
    return (new[0] > old[0]) & near & (new[1:] >= old[1:]).all(0) & kept


def _grid(voxels: Voxels) -> Tensor:
    """The cells as a grid (t, n) of booleans."""
    side = voxels.resolution
    solid = torch.zeros(voxels.num_frames, side, side, side, dtype=torch.bool)
    solid[tuple(voxels.coords[:, 1:].long().T)] = True
    return solid.flatten(1)


def _small(masks: Tensor, size: int) -> Tensor:
    return functional.interpolate(masks[:, None], (size, size), mode="area")[:, 0]
