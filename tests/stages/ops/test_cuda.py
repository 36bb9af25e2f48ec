"""What holds for the CUDA kernels without a GPU: the rows they are given, and what is said when they are missing."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from ss4d.stages.errors import ModelError
from ss4d.stages.ops import cuda
from ss4d.stages.ops.attention import attention, plan
from ss4d.stages.ops.windows import Groups


def from_seqlens(queries: list[int], keys: list[int], *, device: torch.device) -> Tensor:
    """Stands in for xformers' mask of that name: which key each query may see."""
    return torch.block_diag(*(torch.ones(q, k) for q, k in zip(queries, keys, strict=True))).bool().to(device)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, attn_bias: Tensor) -> Tensor:
    """Stands in for xformers' attention, (b, n, h, d)."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_bias).transpose(1, 2)


FMHA = SimpleNamespace(
    memory_efficient_attention=masked_attention,
    attn_bias=SimpleNamespace(BlockDiagonalMask=SimpleNamespace(from_seqlens=from_seqlens)),
)


@pytest.mark.parametrize("seed", range(20))
def test_ragged_groups_are_given_to_xformers_as_they_are(seed: int) -> None:
    torch.manual_seed(seed)
    query, key = torch.randint(0, 4, (2, 7)).tolist()  # empty ones among them
    order = torch.randperm(sum(query)) if seed % 2 else None
    made = plan(Groups(tuple(query), order), Groups(tuple(key)), torch.device("cpu"))
    q, k, v = torch.randn(sum(query), 2, 8), *torch.randn(2, sum(key), 2, 8)
    ragged = cuda._attention(FMHA)
    for _ in range(2):  # the second time with the mask of the first
        assert_close(ragged(q, k, v, made), attention(q, k, v, made))


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(cuda, "import_module", missing)
    with pytest.raises(ModelError, match=r"needs the package xformers .*'cuda'.*--device cpu"):
        cuda.cuda_ops()
