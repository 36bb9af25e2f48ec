"""Halving and doubling of sparse grids."""

import pytest
import torch
from torch.testing import assert_close

from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.ops.pooling import pool, pooling, unpool
from tests.helpers import reference_ops as reference
from tests.stages.ops.test_coords import random_coords


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stride", [(1, 2, 2, 2), (2, 1, 1, 1), (2, 2, 2, 2), (1, 3, 1, 2)])
def test_equals_the_reference_with_gradients(seed: int, stride: tuple[int, int, int, int]) -> None:
    torch.manual_seed(seed)
    coords = random_coords(seed)
    feats = torch.randn(len(coords), 3, dtype=torch.float64, requires_grad=True)
    coarse, way_back = pool(SparseTensor(Sites(coords), feats), stride)
    cells, wanted = reference.pool(coords, feats, stride)
    assert torch.equal(coarse.coords, cells)
    assert_close(coarse.feats, wanted)
    fine = unpool(coarse, way_back)
    assert fine.coords is coords
    rows = {tuple(cell): row for row, cell in enumerate(cells.tolist())}
    parents = [rows[(b, *(c // s for c, s in zip(cell, stride, strict=True)))] for b, *cell in coords.tolist()]
    assert_close(fine.feats, wanted[parents])
    push = torch.randn_like(fine.feats)
    ours, theirs = (torch.autograd.grad((y * push).sum(), feats)[0] for y in (fine.feats, wanted[parents]))
    assert_close(ours, theirs)


def test_divides_by_one_more_than_the_children() -> None:
    coords = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 2, 0, 0]], dtype=torch.int32)
    coarse, _ = pool(SparseTensor(Sites(coords), torch.tensor([[3.0], [6.0], [4.0]])), (1, 2, 2, 2))
    assert coarse.feats.flatten().tolist() == [3.0, 2.0]


def test_coarse_sites_are_shared() -> None:
    sites = Sites(random_coords(0))
    assert pooling(sites, (1, 2, 2, 2)).coarse is pooling(sites, (1, 2, 2, 2)).coarse
