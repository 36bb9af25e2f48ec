"""Attention of all groups in one call: what torch, FlashAttention 3 and xformers have for it is called alike.

Rows are (n, h, d), as in `ss4d.stages.ops.attention`, whose results these are, to rounding.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional

from ss4d.stages.errors import ModelError
from ss4d.stages.ops.attention import Attention, AttentionPlan, attention, gather

HALF = frozenset({torch.float16, torch.bfloat16})
FLASH_CHANNELS = 8  # of a head, or a multiple: FlashAttention refuses others


@dataclass(frozen=True, eq=False)
class Packed:
    """Groups that lie one after the other.

    Attributes:
        queries: rows of each group.
        keys: the same of its keys, 1 or more.
        query_starts: (groups + 1) int32, the first row of each group, then the number of rows.
        key_starts: the same of keys.
    """

    queries: list[int]
    keys: list[int]
    query_starts: Tensor
    key_starts: Tensor


PackedAttention = Callable[[Tensor, Tensor, Tensor, Packed], Tensor]


def torch_varlen() -> Attention:
    """Torch's own attention of groups of unequal length, which has gradients; groups of equal length it does as well.

    Raises:
        ModelError: before torch 2.10.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError as error:
        raise ModelError("needs torch 2.10 or newer") from error

    def attend(q: Tensor, k: Tensor, v: Tensor, groups: Packed) -> Tensor:
        longest = max(groups.queries), max(groups.keys)
        out = varlen_attn(q, k, v, groups.query_starts, groups.key_starts, *longest)
        assert isinstance(out, Tensor), "nothing else was asked for"
        return out

    return in_one_call(attend, HALF, multiple=FLASH_CHANNELS)


def in_one_call(
    attend: PackedAttention, dtypes: Collection[torch.dtype], *, least: int = 2, multiple: int = 1
) -> Attention:
    """Attention that hands all groups to `attend` at once.

    Args:
        attend: gets gathered rows q (nq, h, d), k (nk, h, d), v (nk, h, d) and how they lie; gives (nq, h, d). The
            channels of a head lie together in memory, rows and heads anywhere.
        dtypes: that it computes in. Rows of others are attended to group by group.
        least: from how many different sizes of groups on. Groups of one size are one call of torch's attention.
        multiple: that the number of channels of a head must be of; heads of others are torch's, too.
    """
    known: WeakKeyDictionary[AttentionPlan, Packed] = WeakKeyDictionary()

    def one_call(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan) -> Tensor:
        full = [bucket for bucket in plan.buckets if bucket.key]  # the others follow, and see nothing
        fits = v.dtype in dtypes and not q.shape[-1] % multiple and not v.shape[-1] % multiple
        if not fits or len(full) < least:
            return attention(q, k, v, plan)
        if plan not in known:
            known[plan] = _packed(plan, q.device)
        groups = known[plan]
        q = gather(q, plan.query_order)
        k, v = (gather(x, plan.key_order) for x in (k, v))
        rows = sum(groups.queries)
        out = attend(q[:rows], k, v, groups)
        return gather(functional.pad(out, (0, 0, 0, 0, 0, len(q) - rows)), plan.inverse)

    return one_call


def _packed(plan: AttentionPlan, device: torch.device) -> Packed:
    full = [bucket for bucket in plan.buckets if bucket.key]
    queries = [bucket.query for bucket in full for _ in range(bucket.count)]
    keys = [bucket.key for bucket in full for _ in range(bucket.count)]

    def starts(lengths: list[int]) -> Tensor:
        return torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)

    return Packed(queries, keys, starts(queries), starts(keys))
