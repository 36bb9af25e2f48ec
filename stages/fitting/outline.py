"""A view brought nearer by soft outlines: how likely each cell is tells more than the cells that were chosen.

Axes: t frame, x y z cell, n point, s pixel along one side.
"""

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from ss4d.stages.fitting.matching import CELLS, LEANER, Known, small, spread_over
from ss4d.stages.input_camera import View, rotation

SIZE = 48  # pixels a side of the outlines compared
FINER = 2  # times as many points as cells along each side of the grid, between which logits are interpolated
# Added to every logit: what is only just likely hides little. With this and `LEANER`, outlines are the object's on
# average: chosen on the tuning clips, together.
DOUBT = -2.0
CLEAR = 0.03  # optical depth of what is left out
EVALUATIONS = 25  # of the outline, at most


@dataclass(frozen=True, eq=False)
class Cloud:
    """What hides what is behind it: points of all frames.

    Attributes:
        places: (n, 3) in the camera's directions, world units; the camera is at (0, 0, -distance).
        frames: (n) of each.
        depths: (n), optical, through the cube that each stands for.
        cells: of these cubes along each side of the grid.
    """

    places: Tensor
    frames: Tensor
    depths: Tensor
    cells: int

    @classmethod
    def of(cls, guess: Tensor, view: View) -> "Cloud":
        """By the logits (t, x, y, z) of cells."""
        # Of a finer grid, coarser cells: how much wider than the object a cell makes it is known of such.
        coarse = functional.max_pool3d(guess[:, None].float(), -(-guess.shape[1] // CELLS), ceil_mode=True)
        finer = functional.interpolate(coarse, scale_factor=FINER, mode="trilinear", align_corners=False)
        cells = finer.shape[2]
        depths = functional.softplus(finer.flatten(1) + DOUBT)
        axis = (torch.arange(cells) + 0.5) / cells - 0.5
        turn = rotation(torch.tensor(math.radians(view.yaw)), torch.tensor(math.radians(view.pitch))).float()
        places = torch.cartesian_prod(axis, axis, axis) @ turn.T
        frames, kept = torch.nonzero(depths > CLEAR).unbind(1)
        return cls(places[kept], frames, depths[frames, kept], cells)

    def outlines(self, shift: Tensor, scale: Tensor, distance: float, count: int) -> Tensor:
        """Alpha (count, s, s), with gradients; a world unit at `distance` spans `scale` sides of the picture."""
        away = self.places[:, 2] + distance
        across = distance * self.places[:, :2] / away[:, None]
        middle = (across * self.depths[:, None]).sum(0) / self.depths.sum()
        # What cells cover is wider than the object by half a cell all around, and so is seen nearer to its middle.
        pixels = (scale * (middle + LEANER * (across - middle)) + shift + 0.5) * SIZE - 0.5
        covered = self.depths * (LEANER * scale * distance / away * SIZE / self.cells).square()
        first = pixels.detach().floor()
        share, corner = pixels - first, first.long()
        total = pixels.new_zeros(count * SIZE**2)
        for step in itertools.product((0, 1), repeat=2):
            x, y = (corner + torch.tensor(step)).unbind(1)
            weight = torch.where(torch.tensor(step) == 1, share, 1 - share).prod(1)
            inside = (x >= 0) & (x < SIZE) & (y >= 0) & (y < SIZE)
            pixel = (self.frames * SIZE + y) * SIZE + x
            total = total.index_add(0, pixel[inside], (covered * weight)[inside])
        return 1 - torch.exp(-total.view(count, SIZE, SIZE))


def nearer(view: View, guess: Tensor, masks: Tensor, known: Known) -> View:
    """The view in whose pictures what is likely has the outline of the masks; shift and size are found from `view`'s.

    Args:
        view: whose direction is right.
        guess: logits (t, x, y, z) of cells.
        masks: (t, s, s) 0 to 1, any size.
        known: of a field of view and a distance, both stay as they are; of a field of view alone, the distance is found
            instead.
    """
    chosen = spread_over(len(masks))
    chosen = chosen[masks[chosen].flatten(1).amax(1) > 0.5]
    cloud = Cloud.of(guess[chosen], view)
    if len(cloud.places) == 0:
        return view
    wanted = small(masks[chosen], SIZE)
    shift = torch.tensor(view.shift, requires_grad=True)
    size = torch.tensor(math.log(view.focal / view.distance), requires_grad=True)
    fixed = known.fov is not None and known.distance is not None
    search = torch.optim.LBFGS(
        [shift] if fixed else [shift, size],
        max_iter=EVALUATIONS,
        max_eval=EVALUATIONS,
        line_search_fn="strong_wolfe",
        tolerance_change=1e-7,
    )

    def off() -> Tensor:
        search.zero_grad()
        outlines = cloud.outlines(shift, size.exp(), view.distance, len(chosen))
        error = 100 * (outlines - wanted).square().mean()
        error.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return error

    before = float(off().detach())
    search.step(off)  # type: ignore[no-untyped-call]
    if not float(off().detach()) < before:
        return view
    x, y = shift.detach().tolist()
    scale = math.exp(float(size.detach()))
    if fixed:
        return replace(view, shift=(x, y))
    if known.fov is None:
        return replace(view, focal=scale * view.distance, shift=(x, y))
    return replace(view, distance=view.focal / scale, shift=(x, y))
