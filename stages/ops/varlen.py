"""torch's kernels with attention of all groups in one call, which has gradients; for GPUs."""

from collections.abc import Callable
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ss4d.stages.errors import ModelError
from ss4d.stages.ops.attention import AttentionPlan, attention, gather, plan
from ss4d.stages.ops.backend import TORCH_OPS, Ops
from ss4d.stages.ops.windows import Groups

Attention = Callable[[Tensor, Tensor, Tensor, AttentionPlan], Tensor]
TOLERANCE = 0.05  # of bfloat16, on numbers of about 1


def varlen_ops(device: torch.device) -> Ops:
    """Torch's kernels, with attention of groups of unequal length in one call.

    That attention is young, so it is compared here with attention group by group, values and gradients.

    Raises:
        ModelError: if it is missing, or does not give what attention group by group gives.
    """
    try:
        ragged = ragged_attention()
        _compare(ragged, device)
    except (ImportError, RuntimeError, TypeError, AssertionError) as error:
        raise ModelError(f"torch's attention of groups of unequal length cannot be used: {error}") from error
    return replace(TORCH_OPS, attention=ragged)


def ragged_attention() -> Attention:
    """Attention in one call for all groups, whose products are in half precision; in full precision, group by group."""
    from torch.nn.attention.varlen import varlen_attn  # since torch 2.10

    known: WeakKeyDictionary[AttentionPlan, tuple[Tensor, Tensor, int, int]] = WeakKeyDictionary()

    def attend(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan) -> Tensor:
        if v.dtype == torch.float32 or len(plan.buckets) < 2 or any(bucket.key == 0 for bucket in plan.buckets):
            return attention(q, k, v, plan)
        if plan not in known:
            known[plan] = _bounds(plan, q.device)
        q = gather(q, plan.query_order).contiguous()
        k, v = (gather(x, plan.key_order).contiguous() for x in (k, v))
        out = varlen_attn(q, k, v, *known[plan])
        assert isinstance(out, Tensor), "nothing else was asked for"
        return gather(out, plan.inverse)

    return attend


def _bounds(plan: AttentionPlan, device: torch.device) -> tuple[Tensor, Tensor, int, int]:
    """Where each group's queries and keys begin, and how many there are at most."""
    queries = [bucket.query for bucket in plan.buckets for _ in range(bucket.count)]
    keys = [bucket.key for bucket in plan.buckets for _ in range(bucket.count)]

    def starts(lengths: list[int]) -> Tensor:
        return torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)

    return starts(queries), starts(keys), max(queries), max(keys)


def _compare(ragged: Attention, device: torch.device) -> None:
    """Compares the fast attention with the plain one, values and gradients.

    Raises:
        AssertionError: if they differ.
    """
    queries, keys = Groups((3, 70, 1, 300)), Groups((5, 9, 261, 40))
    groups = plan(queries, keys, device)
    generator = torch.Generator().manual_seed(0)
    results = []
    shapes = (sum(queries.lengths), sum(keys.lengths), sum(keys.lengths))
    rows = [torch.randn(n, 4, 32, generator=generator).to(device, torch.bfloat16) for n in shapes]
    for attend in (ragged, attention):
        leaves = [x.clone().requires_grad_() for x in rows]
        out = attend(leaves[0], leaves[1], leaves[2], groups)
        out.float().square().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for fast, plain in zip(*results, strict=True):
        assert fast is not None, "no gradient"
        assert plain is not None, "no gradient"
        worst = float((fast.float() - plain.float()).abs().max())
        assert worst < TOLERANCE * (1 + float(plain.float().abs().max())), f"it is off by {worst:.3g}"
