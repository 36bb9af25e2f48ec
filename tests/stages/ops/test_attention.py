"""Grouped attention against attention row by row."""

import pytest
import torch
from torch.testing import assert_close

from ss4d.stages.ops.attention import attention, plan, token_plan, window_plan
from ss4d.stages.ops.coords import Sites, full_grid
from ss4d.stages.ops.rotary import phases, rotate
from ss4d.stages.ops.windows import EACH_FRAME, WHOLE_CLIP, Groups
from tests.helpers import reference_ops as reference
from tests.stages.ops.test_coords import random_coords

CPU = torch.device("cpu")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("extent", "shift"),
    [
        (WHOLE_CLIP, (0, 0, 0, 0)),
        (EACH_FRAME, (0, 0, 0, 0)),
        ((3, None, None, None), (1, 0, 0, 0)),
        ((2, 3, 3, 3), (1, 1, 1, 1)),
    ],
)
def test_windows_equal_the_reference(seed: int, extent: tuple, shift: tuple) -> None:
    torch.manual_seed(seed)
    sites = Sites(random_coords(seed, count=70))
    q, k, v = torch.randn(3, len(sites), 2, 6)
    wanted = reference.attention(q, k, v, reference.same_window(sites.coords, extent, shift))
    assert_close(attention(q, k, v, window_plan(sites, extent, shift)), wanted, atol=2e-6, rtol=0)


@pytest.mark.parametrize("seed", range(20))
def test_any_groups_equal_the_reference(seed: int) -> None:
    torch.manual_seed(seed)
    query, key = torch.randint(0, 4, (2, 7)).tolist()  # empty ones among them
    order = torch.randperm(sum(query)) if seed % 2 else None
    key_order = torch.randperm(sum(key)) if seed % 3 else None
    q = torch.randn(sum(query), 2, 4, requires_grad=True)
    k, v = (torch.randn(sum(key), 2, 4, requires_grad=True) for _ in range(2))
    out = attention(q, k, v, plan(Groups(tuple(query), order), Groups(tuple(key), key_order), CPU))

    groups = torch.arange(7)
    of_query, of_key = (groups.repeat_interleave(torch.tensor(lengths)) for lengths in (query, key))
    if order is not None:
        of_query = of_query[order.argsort()]
    if key_order is not None:
        of_key = of_key[key_order.argsort()]
    wanted = reference.attention(q, k, v, of_query[:, None] == of_key[None])
    assert_close(out, wanted, atol=2e-6, rtol=0)
    push = torch.randn_like(out)
    ours, theirs = (
        torch.autograd.grad((result * push).sum(), (q, k, v), allow_unused=True, materialize_grads=True)
        for result in (out, wanted)
    )
    assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_tokens_of_a_row_are_those_of_its_frame() -> None:
    torch.manual_seed(0)
    coords = random_coords(0, count=60)
    coords = coords[coords[:, 1] != 2]  # a frame without voxels
    q, tokens = torch.randn(len(coords), 2, 4), torch.randn(2, 8 * 5, 2, 4)
    visible = (coords[:, 0] * 4 + coords[:, 1])[:, None] == torch.arange(8).repeat_interleave(5)
    out = attention(q, *tokens, token_plan(Sites(coords), (2, 4), 5))
    assert_close(out, reference.attention(q, *tokens, visible), atol=2e-6, rtol=0)


def test_equal_windows_that_lie_together_are_one_call_without_a_gather() -> None:
    made = window_plan(full_grid((2, 4), 2, CPU), (2, None, None, None))
    assert (made.query_order, made.key_order, made.inverse) == (None, None, None)
    assert [(b.count, b.query, b.key) for b in made.buckets] == [(4, 16, 16)]


def test_rotation_depends_on_the_distance_in_time_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 8)
    scores = torch.stack(
        [
            (rotate(q, phases(torch.tensor([t]), 8, 100.0)) * rotate(k, phases(torch.tensor([t + 3]), 8, 100.0))).sum()
            for t in range(5)
        ]
    )
    assert_close(scores, scores[:1].expand(5), atol=1e-5, rtol=0)
    assert not torch.allclose(scores[0], (q * k).sum(), atol=1e-3)


def test_rotation_turns_neighboring_channels() -> None:
    turned = rotate(torch.tensor([[[1.0, 0.0, 1.0, 0.0]]]), phases(torch.tensor([2]), 4, 100.0))
    angle = torch.tensor([2.0, 0.2])
    assert_close(turned.flatten(), torch.stack([angle.cos(), angle.sin()], dim=1).flatten())
