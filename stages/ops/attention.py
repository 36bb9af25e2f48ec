"""Attention inside groups of rows of unequal length, exactly and without masks; rows are (n, h, d): row, head, channel.

out_i = sum_j softmax_j(q_i . k_j / sqrt(d)) v_j, where j runs over the key rows of the group that query row i is in.
Groups of equal (query length, key length) are stacked and share one call of scaled dot-product attention, so no row is
padded and what one group gives does not depend on the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional

from ss4d.stages.ops.coords import PerAxis, Sites
from ss4d.stages.ops.windows import NO_SHIFT, Extent, Groups, frames, windows


@dataclass(frozen=True)
class Bucket:
    """`count` groups, one after the other, of `query` query rows and `key` key rows each."""

    count: int
    query: int
    key: int


@dataclass(frozen=True, eq=False)
class AttentionPlan:
    """How rows are brought into buckets and back; built once and used by every layer.

    Attributes:
        buckets: in the order of the gathered rows; those without keys come last.
        query_order: (Nq) int64 rows to gather, or None where rows already lie in bucket order.
        key_order: the same for keys; leaves out keys without a query.
        inverse: (Nq) int64, brings results back into the order of the query rows; None where query_order is.
    """

    buckets: tuple[Bucket, ...]
    query_order: Tensor | None
    key_order: Tensor | None
    inverse: Tensor | None

    @cached_property
    def gathered(self) -> "AttentionPlan":
        """The same plan for rows that lie in bucket order already."""
        if self.query_order is None and self.key_order is None:
            return self
        return replace(self, query_order=None, key_order=None, inverse=None)


Attention = Callable[[Tensor, Tensor, Tensor, AttentionPlan], Tensor]  # what every attention is called like, see below


def window_plan(sites: Sites, extent: Extent, shift: PerAxis = NO_SHIFT) -> AttentionPlan:
    """The plan of rows that attend to their own window; built once per extent and shift (see `windows`)."""

    def build(s: Sites) -> AttentionPlan:
        groups = windows(s, extent, shift)
        return plan(groups, groups, s.device)

    return sites.derived(("window plan", extent, shift), build)


def token_plan(sites: Sites, clip_shape: tuple[int, int], num_tokens: int) -> AttentionPlan:
    """The plan of rows that attend to the `num_tokens` image tokens of their frame; built once per shape.

    Args:
        sites: cells of the query rows.
        clip_shape: clips, frames of each.
        num_tokens: tokens of a frame; token rows lie in the order (clip, frame, token).
    """

    def build(s: Sites) -> AttentionPlan:
        rows = frames(s, clip_shape).groups
        return plan(rows, Groups((num_tokens,) * len(rows.lengths)), s.device)

    return sites.derived(("token plan", *clip_shape, num_tokens), build)


def plan(query: Groups, key: Groups, device: torch.device) -> AttentionPlan:
    """The plan of query rows that attend to the key rows of the group with the same number.

    Args:
        query: G groups of query rows.
        key: G groups of key rows.
        device: where the rows are.
    """
    pairs = list(zip(query.lengths, key.lengths, strict=True))
    wanted = [g for g, (len_query, _) in enumerate(pairs) if len_query]
    by_size = sorted(wanted, key=lambda g: (pairs[g][1] == 0, pairs[g]))
    # Sorting costs a gather of every row, so it must at least halve the number of calls.
    keyless = any(pairs[g][1] == 0 for g in wanted)
    sort = keyless or 2 * len(_buckets(pairs, by_size)) <= len(_buckets(pairs, wanted))
    chosen = by_size if sort else wanted
    query_order = _gather_order(query, chosen, device)
    key_order = query_order if key is query else _gather_order(key, chosen, device)
    inverse = None if query_order is None else torch.empty_like(query_order)
    if query_order is not None and inverse is not None:
        inverse[query_order] = torch.arange(len(query_order), device=device)
    return AttentionPlan(_buckets(pairs, chosen), query_order, key_order, inverse)


def _buckets(pairs: Sequence[tuple[int, int]], chosen: Sequence[int]) -> tuple[Bucket, ...]:
    runs = groupby(pairs[g] for g in chosen)
    return tuple(Bucket(len(list(run)), *size) for size, run in runs)


def _gather_order(groups: Groups, chosen: Sequence[int], device: torch.device) -> Tensor | None:
    """The rows of the chosen groups, or None if those are all the rows as they lie."""
    filled = [g for g, length in enumerate(groups.lengths) if length]
    if [g for g in chosen if groups.lengths[g]] == filled:
        return groups.order
    lengths = torch.tensor(groups.lengths, dtype=torch.int64)
    starts = lengths.cumsum(0) - lengths
    picked = torch.tensor(chosen, dtype=torch.int64)
    sizes = lengths[picked]
    # From the place in the gathered order to the place in the groups' order.
    shift = starts[picked] - (sizes.cumsum(0) - sizes)
    rows = (torch.arange(int(sizes.sum())) + shift.repeat_interleave(sizes)).to(device)
    return rows if groups.order is None else groups.order[rows]


def gather(rows: Tensor, order: Tensor | None) -> Tensor:
    """Rows in the given order; as they lie where it is None."""
    return rows if order is None else rows.index_select(0, order)


def attention(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan) -> Tensor:
    """Attention of every query row to the keys of its group.

    Args:
        q: (Nq, H, D).
        k: (Nk, H, D).
        v: (Nk, H, D).
        plan: which rows form a group.

    Returns:
        (Nq, H, D); zeros for rows whose group has no key.
    """
    q = gather(q, plan.query_order)
    k, v = (gather(x, plan.key_order) for x in (k, v))
    query_sizes = [bucket.count * bucket.query for bucket in plan.buckets]
    key_sizes = [bucket.count * bucket.key for bucket in plan.buckets]
    parts = zip(plan.buckets, *map(torch.split, (q, k, v), (query_sizes, key_sizes, key_sizes)), strict=True)
    outs = [_dense(*part) for part in parts]
    return gather(outs[0] if len(outs) == 1 else torch.cat([q[:0], *outs]), plan.inverse)


def _dense(bucket: Bucket, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if not bucket.key:
        return torch.zeros_like(q)
    q, k, v = (x.view(bucket.count, -1, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)
