"""Attention in one call is asked for the groups that there are, in torch's own and in FlashAttention's words."""

import sys
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ss4d.stages.errors import ModelError
from ss4d.stages.ops.attention import Attention, attention, plan
from ss4d.stages.ops.cuda import flash3_attention
from ss4d.stages.ops.varlen import torch_varlen
from ss4d.stages.ops.windows import Groups

CPU = torch.device("cpu")
# The last of three has no key.
SOME = plan(Groups((3, 1, 4), torch.tensor([7, 0, 1, 2, 3, 4, 5, 6])), Groups((2, 5, 0)), CPU)
ONE = plan(Groups((8,)), Groups((7,)), CPU)


class Slow:
    """Stands in for what GPUs have, and counts its calls."""

    calls = 0

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, starts_q: Tensor, starts_k: Tensor, longest_q: int, longest_k: int
    ) -> Tensor:
        self.calls += 1
        pieces = []
        for (a, b), (c, d) in zip(pairwise(starts_q.tolist()), pairwise(starts_k.tolist()), strict=True):
            assert b - a <= longest_q
            assert d - c <= longest_k
            weights = torch.einsum("qhd,khd->hqk", q[a:b].float(), k[c:d].float()) / q.shape[-1] ** 0.5
            pieces.append(torch.einsum("hqk,khd->qhd", weights.softmax(-1), v[c:d].float()).to(v.dtype))
        return torch.cat(pieces)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    made = Slow()
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", SimpleNamespace(varlen_attn=made))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "flash_attn_interface", SimpleNamespace(flash_attn_varlen_func=made))  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize(("make", "alone"), [(torch_varlen, 0), (flash3_attention, 1)], ids=["varlen", "flash3"])
def test_it_is_asked_for_the_right_groups(slow: Slow, make: Callable[[], Attention], alone: int) -> None:
    attend = make()
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(n, 2, 8, generator=generator) for n in (8, 7, 7))
    assert torch.equal(attend(q, k, v, SOME), attention(q, k, v, SOME))  # full precision stays as it is
    assert slow.calls == 0
    halves = [x.bfloat16() for x in (q, k, v)]
    for calls in (1, 2):
        assert_close(attend(*halves, SOME).float(), attention(q, k, v, SOME), atol=0.05, rtol=0)
        assert slow.calls == calls
    assert_close(attend(*halves, ONE).float(), attention(q, k, v, ONE), atol=0.05, rtol=0)
    assert slow.calls == 2 + alone  # one large group goes to torch's own, but for FlashAttention 3


def test_an_old_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"needs torch 2\.10 or newer"):
        torch_varlen()
