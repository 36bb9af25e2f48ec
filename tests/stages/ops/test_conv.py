"""Submanifold convolution against a loop over cells, and against torch's dense one."""

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from ss4d.stages.errors import ModelError
from ss4d.stages.ops import conv as ops
from ss4d.stages.ops.coords import PerAxis, Sites, full_grid
from ss4d.stages.ops.neighbors import blocks, neighbors
from ss4d.stages.ops.pooling import NOT_MERGED, pooling
from tests.helpers import reference_ops as reference
from tests.stages.ops.test_coords import random_coords

KERNELS = [(3, 3, 3), (3, 1, 1, 1), (3, 3, 3, 3), (1, 1, 1), (1, 5, 3, 1)]


PAIRS, GATHERED = 0, 10**9  # what a pair costs besides its product, so that this way is taken everywhere


@pytest.fixture(params=[PAIRS, GATHERED], ids=["pairs", "gathered"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "PAIR_CHANNELS", request.param)
    monkeypatch.setattr(ops, "OFFSET_PRODUCTS", request.param)


def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, the last one shorter."""
    monkeypatch.setattr(ops, "MIN_BLOCK_ROWS", 16)
    monkeypatch.setitem(ops.BLOCK_FLOATS, "cpu", 1)
    monkeypatch.setitem(ops.BLOCK_ROWS, "cpu", 16)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kernel", KERNELS)
def test_equals_the_reference_with_gradients(
    seed: int, kernel: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_blocks(monkeypatch)
    torch.manual_seed(seed)
    coords = random_coords(seed, size=(2, 3, 3, 4, 3), count=60)
    feats = torch.randn(len(coords), 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, *kernel, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    out = ops.conv(feats, Sites(coords), weight, bias)
    wanted = reference.conv(coords, feats, weight, bias)
    assert_close(out, wanted)
    push = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad((result * push).sum(), (feats, weight, bias)) for result in (out, wanted))
    assert_close(ours, theirs)


@pytest.mark.parametrize("kernel", [(3, 3, 3), (3, 1, 1, 1), (3, 3, 3, 3)])
@pytest.mark.parametrize("stride", [(1, 2, 2, 2), (2, 1, 1, 1), (2, 2, 2, 2)])
def test_of_copies_equals_that_of_the_copied_rows_with_gradients(
    kernel: tuple[int, ...], stride: PerAxis, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_blocks(monkeypatch)
    torch.manual_seed(0)
    sites = Sites(random_coords(0, size=(2, 4, 4, 4, 4), count=100))
    merged = pooling(sites, stride)
    feats = torch.randn(len(merged.coarse), 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, *kernel, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    out = ops.conv(feats, sites, weight, bias, stride)
    plain = reference.conv(sites.coords, feats[merged.parent], weight, bias)
    assert_close(out, plain)
    push = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad((result * push).sum(), (feats, weight, bias)) for result in (out, plain))
    assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("density", "cells", "channels", "expected"),
    [(0.4, 4096, 32, True), (0.8, 4096, 32, False), (0.8, 4096, 256, True), (0.4, 125, 32, False)],
)
def test_pairs_are_taken_where_they_are_few_or_wide(density: float, cells: int, channels: int, expected: bool) -> None:
    grid = full_grid((1, 1), round(cells ** (1 / 3)), torch.device("cpu")).coords
    sites = Sites(grid[torch.rand(len(grid), generator=torch.Generator().manual_seed(0)) < density])
    weight = torch.empty(channels, 27, channels)
    assert ops._by_pairs(sites, (1, 3, 3, 3), NOT_MERGED, weight) == expected
    assert ops._by_pairs(sites, (1, 3, 3, 3), (1, 2, 2, 2), weight)


@pytest.mark.usefixtures("way")
def test_equals_the_dense_convolution_on_a_full_grid() -> None:
    torch.manual_seed(0)
    sites = full_grid((2, 3), 4, torch.device("cpu"))
    feats, weight, bias = torch.randn(len(sites), 5), torch.randn(6, 3, 3, 3, 5), torch.randn(6)
    dense = functional.conv3d(feats.view(6, 4, 4, 4, 5).movedim(-1, 1), weight.movedim(-1, 1), bias, padding=1)
    assert_close(ops.conv(feats, sites, weight, bias), dense.movedim(1, -1).flatten(0, -2), atol=1e-4, rtol=0)


@pytest.mark.usefixtures("way")
def test_result_does_not_depend_on_what_else_is_in_the_batch() -> None:
    torch.manual_seed(0)
    coords = random_coords(0)
    feats, weight, bias = torch.randn(len(coords), 4), torch.randn(4, 3, 3, 3, 3, 4), torch.randn(4)
    first = coords[:, 0] == 0
    alone = ops.conv(feats[first], Sites(coords[first].contiguous()), weight, bias)
    assert_close(ops.conv(feats, Sites(coords), weight, bias)[first], alone)


@pytest.mark.usefixtures("way")
def test_same_result_every_time() -> None:
    torch.manual_seed(0)
    sites = Sites(random_coords(0, count=4000, size=(2, 8, 12, 12, 12)))
    feats, weight, bias = torch.randn(len(sites), 16), torch.randn(16, 3, 3, 3, 16), torch.randn(16)
    first = ops.conv(feats, sites, weight, bias)
    assert all(torch.equal(ops.conv(feats, sites, weight, bias), first) for _ in range(5))


@pytest.mark.parametrize("num_cells", [60, 4000])
def test_same_result_with_any_number_of_threads(num_cells: int) -> None:
    torch.manual_seed(0)
    sites = Sites(random_coords(0, count=num_cells, size=(2, 8, 12, 12, 12)))
    feats, weight, bias = torch.randn(len(sites), 32), torch.randn(64, 3, 3, 3, 32), torch.randn(64)
    threads = torch.get_num_threads()
    try:
        outs = [torch.set_num_threads(n) or ops.conv(feats, sites, weight, bias) for n in (1, 2, 4)]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


def test_layers_share_one_table() -> None:
    sites = Sites(random_coords(0))
    assert neighbors(sites, (1, 3, 3, 3)) is neighbors(sites, (1, 3, 3, 3))
    assert blocks(sites, (1, 3, 3, 3), NOT_MERGED, 64) is blocks(sites, (1, 3, 3, 3), NOT_MERGED, 64)


@pytest.mark.usefixtures("way")
def test_works_in_half_precision_and_on_nothing() -> None:
    torch.manual_seed(0)
    sites = Sites(random_coords(0))
    feats, weight, bias = torch.randn(len(sites), 4), torch.randn(4, 3, 3, 3, 4), torch.randn(4)
    half = ops.conv(feats.bfloat16(), sites, weight.bfloat16(), bias.bfloat16())
    assert_close(half.float(), ops.conv(feats, sites, weight, bias), atol=0.3, rtol=0.02)
    assert ops.conv(feats[:0], Sites(sites.coords[:0]), weight, bias).shape == (0, 4)


def test_even_kernels_are_refused() -> None:
    with pytest.raises(ModelError, match="odd"):
        ops.conv(
            torch.zeros(1, 2), Sites(torch.zeros(1, 5, dtype=torch.int32)), torch.zeros(2, 2, 1, 1, 2), torch.zeros(2)
        )
