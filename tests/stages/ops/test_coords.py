"""Coordinate sets, windows and frames."""

import pytest
import torch
from torch import Tensor

from ss4d.stages.errors import InputError, ValueSpecError
from ss4d.stages.ops.coords import Sites, full_grid, linear_keys, sort
from ss4d.stages.ops.windows import EACH_FRAME, WHOLE_CLIP, frames, windows
from tests.helpers.reference_ops import same_window


def random_coords(seed: int, size: tuple[int, ...] = (2, 4, 5, 5, 5), count: int = 120) -> Tensor:
    """Some cells of a grid (b, t, x, y, z), sorted."""
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(0, top, (count,), generator=generator) for top in size]
    return torch.unique(torch.stack(columns, dim=1), dim=0).int()


@pytest.mark.parametrize("seed", range(5))
def test_keys_order_as_coordinates_do(seed: int) -> None:
    coords = random_coords(seed)
    shuffled = coords[torch.randperm(len(coords), generator=torch.Generator().manual_seed(seed))]
    keys = linear_keys(shuffled)[0]
    assert sorted(zip(keys.tolist(), shuffled.tolist(), strict=True)) == sorted(
        zip(keys.tolist(), shuffled.tolist(), strict=True), key=lambda pair: pair[1]
    )
    assert len(set(keys.tolist())) == len(coords)


@pytest.mark.parametrize("seed", range(5))
def test_sort_brings_any_order_into_place(seed: int) -> None:
    coords = random_coords(seed)
    order = torch.randperm(len(coords), generator=torch.Generator().manual_seed(seed))
    x, came_from = sort(coords[order], order[:, None].float())
    assert torch.equal(x.coords, coords)
    assert torch.equal(x.feats[:, 0].long(), torch.arange(len(coords)))
    assert torch.equal(order[came_from], torch.arange(len(coords)))


@pytest.mark.parametrize(
    ("coords", "complaint"),
    [
        ([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], "out of order"),
        ([[0, 0, 0, 0, 1], [0, 0, 0, 0, 1]], "listed twice"),
        ([[0, 0, 0, 0, -1]], "negative"),
        ([[0, 0, 0, 1]], r"\(N, 5\)"),
    ],
)
def test_sites_refuse_what_breaks_their_tables(coords: list[list[int]], complaint: str) -> None:
    with pytest.raises(ValueSpecError, match=complaint):
        Sites(torch.tensor(coords, dtype=torch.int32))


def test_tables_are_built_once_and_serve_training() -> None:
    sites = Sites(random_coords(0))
    with torch.inference_mode():
        first = windows(sites, (2, 3, 3, 3))
    assert windows(sites, (2, 3, 3, 3)) is first
    assert windows(sites, (2, 3, 3, 3), (1, 0, 0, 0)) is not first
    assert first.order is not None
    assert not first.order.is_inference()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("extent", "shift"),
    [
        (WHOLE_CLIP, (0, 0, 0, 0)),
        (EACH_FRAME, (0, 0, 0, 0)),
        ((3, None, None, None), (1, 0, 0, 0)),
        ((2, 3, 3, 3), (1, 1, 1, 1)),
    ],
)
def test_windows_hold_the_rows_they_should(seed: int, extent: tuple, shift: tuple) -> None:
    coords = random_coords(seed)
    groups = windows(Sites(coords), extent, shift)
    order = torch.arange(len(coords)) if groups.order is None else groups.order
    number = torch.empty(len(coords), dtype=torch.long)
    number[order] = torch.arange(len(groups.lengths)).repeat_interleave(torch.tensor(groups.lengths))
    assert torch.equal(number[:, None] == number[None], same_window(coords, extent, shift))


def test_frames_count_empty_ones_and_refuse_others() -> None:
    sites = Sites(torch.tensor([[0, 1, 0, 0, 0], [0, 1, 2, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.int32))
    assert frames(sites, (2, 3)).lengths == (0, 2, 0, 1, 0, 0)
    with pytest.raises(InputError, match="frame 1"):
        frames(sites, (2, 1))
    with pytest.raises(InputError, match="clip 1"):
        frames(sites, (1, 3))


def test_per_frame_values_reach_the_rows_of_their_frame() -> None:
    for sites, shape in ((Sites(random_coords(1)), (2, 4)), (full_grid((2, 3), 2, torch.device("cpu")), (2, 3))):
        rows = frames(sites, shape)
        values = torch.arange(float(shape[0] * shape[1]))[:, None]
        spread = (rows.split(torch.zeros(len(sites), 1)) + rows.spread(values)).reshape(-1)
        assert torch.equal(spread, (sites.coords[:, 0] * shape[1] + sites.coords[:, 1]).float())


def test_empty_sets_work() -> None:
    sites = Sites(torch.empty(0, 5, dtype=torch.int32))
    assert windows(sites, WHOLE_CLIP).lengths == ()
    assert frames(sites, (1, 2)).lengths == (0, 0)
