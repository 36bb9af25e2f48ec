"""Own sparse coordinate sets and the features on them; rows are (b, t, x, y, z), sorted in that order."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor

from ss4d.stages.errors import ValueSpecError

PerAxis = tuple[int, int, int, int]  # one number for each of (t, x, y, z)
T = TypeVar("T")

AXES = ("b", "t", "x", "y", "z")


def linear_keys(coords: Tensor, margin: tuple[int, ...] | None = None) -> tuple[Tensor, list[int]]:
    """Numbers each coordinate so that numbers order as the coordinates do.

    Args:
        coords: (N, A) whole numbers from 0, any number of axes.
        margin: (A) free cells kept on either side of each axis, so that a neighbor's key never wraps into another row;
            none if not given.

    Returns:
        int64 keys (N), and how much a key grows for one step along each axis.
    """
    if not len(coords):
        return coords.new_zeros(0, dtype=torch.int64), [1] * coords.shape[1]
    margin = margin or (0,) * coords.shape[1]
    sizes = [top + 1 + 2 * free for top, free in zip(coords.amax(0).tolist(), margin, strict=True)]
    steps = [1] * len(sizes)
    for axis in range(len(sizes) - 2, -1, -1):
        steps[axis] = steps[axis + 1] * sizes[axis + 1]
    keys = coords.new_full((len(coords),), sum(m * s for m, s in zip(margin, steps, strict=True)), dtype=torch.int64)
    for axis, step in enumerate(steps):
        keys.add_(coords[:, axis], alpha=step)
    return keys, steps


class Sites:
    """An immutable set of active cells, which remembers what is derived from it.

    Layers and sampler steps that share a `Sites` share its neighbor tables, windows and poolings, each built once.

    Args:
        coords: (N, 5) int32 (b, t, x, y, z) from 0, sorted lexicographically, no duplicates; must not change later.

    Raises:
        ValueSpecError: if the coordinates are not so.
    """

    def __init__(self, coords: Tensor) -> None:
        if coords.ndim != 2 or coords.shape[1] != len(AXES) or coords.dtype != torch.int32:
            raise ValueSpecError(
                f"sites must be (N, 5) int32 (b, t, x, y, z); got {tuple(coords.shape)} {coords.dtype}"
            )
        if len(coords) and int(coords.min()) < 0:
            raise ValueSpecError(f"sites must not be negative; got {int(coords.min())}; shift them to start at 0")
        keys = linear_keys(coords)[0]
        wrong = (keys[1:] <= keys[:-1]).nonzero()
        if len(wrong):
            row = int(wrong[0])
            first, second = coords[row].tolist(), coords[row + 1].tolist()
            kind = "listed twice" if first == second else "out of order"
            where = f"rows {row} and {row + 1}, {first} and {second}, are {kind}"
            raise ValueSpecError(f"sites must be sorted and unique; {where}; see coords.sort")
        self.coords = coords
        self._derived: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.coords)

    @property
    def device(self) -> torch.device:
        return self.coords.device

    def derived(self, key: Hashable, build: Callable[[Self], T]) -> T:
        """What `build` gives for this set, from memory if `key` was asked for before.

        Args:
            key: names the value; the same key must always come with an equivalent `build`.
            build: a function of these sites and of nothing that `key` does not name.
        """
        if key not in self._derived:
            # Tables made while sampling must also serve training, which refuses tensors made in inference mode.
            with torch.inference_mode(False), torch.no_grad():
                self._derived[key] = build(self)
        return cast(T, self._derived[key])


@dataclass(frozen=True, eq=False)
class SparseTensor:
    """Features (N, C) on the cells of `sites`, row by row."""

    sites: Sites
    feats: Tensor

    def __post_init__(self) -> None:
        if len(self.sites) != len(self.feats):
            raise ValueSpecError(f"{len(self.feats)} rows of features do not fit {len(self.sites)} sites")

    @property
    def coords(self) -> Tensor:
        return self.sites.coords

    def replace(self, feats: Tensor) -> Self:
        """Other features on the same sites."""
        return replace(self, feats=feats)


def sort(coords: Tensor, feats: Tensor) -> tuple[SparseTensor, Tensor]:
    """Brings rows of any order into the order `Sites` asks for.

    Args:
        coords: (N, 5) int32 (b, t, x, y, z) in any order, no duplicates.
        feats: (N, C).

    Returns:
        The sorted tensor, and for each of its rows the row it was given as (N), int64.

    Raises:
        ValueSpecError: if a coordinate is negative or listed twice.
    """
    order = linear_keys(coords)[0].argsort(stable=True)
    return SparseTensor(Sites(coords[order].contiguous()), feats[order]), order


def full_grid(clip_shape: tuple[int, int], resolution: int, device: torch.device) -> Sites:
    """Every cell of a dense grid for `clip_shape` (clips, frames of each): a dense network is a sparse one on it."""
    sizes = (*clip_shape, resolution, resolution, resolution)
    axes = [torch.arange(size, dtype=torch.int32, device=device) for size in sizes]
    return Sites(torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2))
