"""What a latent flow computes once for several passes gives what each pass alone would give."""

from dataclasses import replace

import pytest
import torch

from ss4d.stages.nn.latent_flow import SLatFlow4DModel, SLatFlow4DModelArgs
from tests.stages.nn.test_networks import LATENT, VARIANTS, built, latents


@torch.no_grad()
@pytest.mark.parametrize("args", [LATENT, replace(LATENT, qk_rms_norm_cross=False)], ids=["normalized", "plain"])
def test_kept_keys_and_values_are_those_of_the_tokens(args: SLatFlow4DModelArgs, monkeypatch) -> None:
    net = built(SLatFlow4DModel, args)
    (x, t, cond), other = latents(6), latents(7)[1]
    kept = net.kept_tokens()
    first, again = net(x, t, cond, kept), net(x, other, cond, kept)
    assert torch.equal(first.feats, net(x, t, cond).feats)
    assert torch.equal(again.feats, net(x, other, cond).feats)
    assert torch.equal(net(x, t, None, kept).feats, net(x, t, None).feats)
    monkeypatch.setattr(type(net.blocks[0].cross_attn), "keys_values", None)  # the second pass asks no more for them
    assert torch.equal(net(x, t, cond, kept).feats, first.feats)


@torch.no_grad()
@pytest.mark.parametrize("args", VARIANTS.values(), ids=VARIANTS)
def test_both_velocities_of_a_guided_step_are_those_of_two_passes(args: SLatFlow4DModelArgs) -> None:
    net = built(SLatFlow4DModel, args)
    x, t, cond = latents(6)
    both = net.with_and_without(x, t, cond, net.kept_tokens())
    for velocity, condition in zip(both, (cond, None), strict=True):
        assert torch.equal(velocity.feats, net(x, t, condition).feats)


@torch.no_grad()
@pytest.mark.parametrize("parts", [1, 2])
def test_keys_and_values_are_kept_of_as_many_blocks_as_fit(parts: int) -> None:
    net = built(SLatFlow4DModel, LATENT)
    x, t, cond = latents(6)
    plain, one_block = net(x, t, cond).feats, 2 * cond.shape[:3].numel() * LATENT.model_channels * 4
    for room, blocks in ((0, 0), (parts * one_block - 1, 0), (parts * one_block, 1), (1 << 20, len(net.blocks))):
        net.kept_bytes = room
        kept = net.kept_tokens(parts)
        for _ in range(2):
            assert torch.equal(net(x, t, cond, kept).feats, plain)
            assert kept.size == blocks * one_block
