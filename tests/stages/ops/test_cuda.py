"""What holds for the kernels of packages without a GPU: the rows that they are given, and what they give on a CPU."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from ss4d.stages.ops import cuda
from ss4d.stages.ops.attention import Attention, attention, plan
from ss4d.stages.ops.conv import conv
from ss4d.stages.ops.coords import Sites
from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.ops.windows import Groups
from tests.stages.ops.test_coords import random_coords
from tests.stages.ops.test_rasterize import scene

CPU = torch.device("cpu")


def from_seqlens(queries: list[int], keys: list[int], *, device: torch.device) -> Tensor:
    """Stands in for xformers' mask of that name: which key each query may see."""
    return torch.block_diag(*(torch.ones(q, k) for q, k in zip(queries, keys, strict=True))).bool().to(device)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, attn_bias: Tensor) -> Tensor:
    """Stands in for xformers' attention, (b, n, h, d)."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_bias).transpose(1, 2)


STAND_IN = SimpleNamespace(
    memory_efficient_attention=masked_attention,
    attn_bias=SimpleNamespace(BlockDiagonalMask=SimpleNamespace(from_seqlens=from_seqlens)),
)


def given_module(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    monkeypatch.setattr(cuda, "import_module", lambda name: module)


def check_attention(attend: Attention, seed: int) -> None:
    torch.manual_seed(seed)
    query, key = torch.randint(0, 4, (2, 7)).tolist()  # empty ones among them
    order = torch.randperm(sum(query)) if seed % 2 else None
    groups = plan(Groups(tuple(query), order), Groups(tuple(key)), CPU)
    q, k, v = torch.randn(sum(query), 2, 8), *torch.randn(2, sum(key), 2, 8)
    for _ in range(2):  # the second time with the mask of the first
        assert_close(attend(q, k, v, groups), attention(q, k, v, groups))


@pytest.mark.parametrize("seed", range(20))
def test_ragged_groups_are_given_to_xformers_as_they_are(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given_module(monkeypatch, STAND_IN)
    check_attention(cuda.xformers_attention(), seed)


@pytest.mark.parametrize("seed", range(4))
def test_the_masks_of_xformers_itself_mean_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its attention is not for CPUs: torch's stands in for it, with the mask that it makes."""
    fmha = pytest.importorskip("xformers.ops.fmha", reason="xformers is not installed", exc_type=ImportError)

    def attend(q: Tensor, k: Tensor, v: Tensor, attn_bias: Any) -> Tensor:
        return masked_attention(q, k, v, attn_bias.materialize((1, 1, q.shape[1], k.shape[1])))

    given_module(monkeypatch, SimpleNamespace(memory_efficient_attention=attend, attn_bias=fmha.attn_bias))
    check_attention(cuda.xformers_attention(), seed)


@pytest.mark.parametrize("transposed", [False, True], ids=["rows in memory", "columns in memory"])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (3, 1, 1, 1), (3, 3, 3, 3)], ids=["space", "time", "both"])
def test_spconv_convolves_as_torch_does(kernel: tuple[int, ...], transposed: bool) -> None:
    """On one thread, and as for training: its kernels for CPUs have a race and take no bias otherwise."""
    pytest.importorskip("spconv.pytorch", reason="spconv is not installed", exc_type=ImportError)
    torch.manual_seed(0)
    coords = random_coords(0, count=400)
    sites = Sites(coords.t().contiguous().t() if transposed else coords)
    feats, weight, bias = torch.randn(len(sites), 8), torch.randn(16, *kernel, 8), torch.randn(16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        convolve = cuda.spconv_convolution()
        for _ in range(2):  # the second time with the tables of the first
            assert_close(convolve(feats, sites, weight, bias), conv(feats, sites, weight, bias), atol=1e-4, rtol=1e-4)
    finally:
        torch.set_num_threads(threads)


def test_gsplat_is_not_asked_to_draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given_module(monkeypatch, SimpleNamespace(_C={}))  # which draws nothing at all
    paint = (0.2, 0.5, 0.9)
    rgb, alpha = cuda.gsplat_rasterizer(CPU)(scene(0, 0), orbit_camera(0, 0, size=8), background=paint)
    assert_close(rgb, torch.tensor(paint).expand(8, 8, 3))
    assert_close(alpha, torch.zeros(8, 8))
