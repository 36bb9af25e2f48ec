"""The latent stage: the noise contract, odd and empty frames, and rows that belong to their cells."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ss4d.stages.errors import InputError, ModelError
from ss4d.stages.nn.latent_flow import SLatFlow4DModel, SLatFlow4DModelArgs
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.sampler_config import SamplerConfig
from ss4d.stages.sampler_params import LatentNormalization
from ss4d.stages.sampling import time_grid
from ss4d.stages.slat import sample_latents, whole_groups
from ss4d.stages.slat_config import SlatConfig
from ss4d.stages.types import StructuredLatents, Tokens, Voxels

FLOW = SLatFlow4DModelArgs(
    resolution=8,
    in_channels=3,
    model_channels=12,
    cond_channels=5,
    out_channels=3,
    num_blocks=1,
    num_heads=2,
    patch_size=2,
    io_block_channels=(6,),
    io_block_channels_t=(12,),
    conv_type="3D_1D",
    pe_mode="rope_t",
    expand_self_attn=True,
)
CONFIG = SlatConfig(
    sampler=SamplerConfig(steps=2, cfg_strength=2.0, cfg_interval=(0.4, 1.0), rescale_t=2.0, temperature=1.0)
)
NORMALIZATION = LatentNormalization(mean=(1.0, 2.0, 3.0), std=(2.0, 1.0, 0.5))
LATENT = (3, 2, 2, 2)  # channels and grid of the occupancy latent, whose noise is drawn first


@pytest.fixture
def flow() -> SLatFlow4DModel:
    torch.manual_seed(0)
    return SLatFlow4DModel(FLOW, TORCH_OPS).eval()


def tokens(num_frames: int) -> Tokens:
    return Tokens(feats=torch.randn(num_frames, 7, 5, generator=torch.Generator().manual_seed(2)))


def voxels(num_frames: int, *, empty: tuple[int, ...] = ()) -> Voxels:
    """About a tenth of the cells in every frame but the `empty` ones."""
    occupied = torch.rand(num_frames, 8, 8, 8, generator=torch.Generator().manual_seed(3)) < 0.1
    occupied[list(empty)] = False
    cells = torch.nonzero(occupied).int()
    coords = torch.cat([torch.zeros_like(cells[:, :1]), cells], dim=1)
    return Voxels(coords=coords, latent=torch.zeros(num_frames, *LATENT), resolution=8)


def seed() -> torch.Generator:
    return torch.Generator().manual_seed(42)


def run(flow: SLatFlow4DModel, structure: Voxels) -> StructuredLatents:
    return sample_latents(CONFIG, flow, NORMALIZATION, tokens(structure.num_frames), structure, seed())


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_without_velocity_latents_are_the_second_noise_of_the_seed_denormalized(flow, num_frames: int) -> None:
    torch.nn.init.zeros_(flow.out_layer.weight)
    torch.nn.init.zeros_(flow.out_layer.bias)
    structure, generator = voxels(num_frames), seed()
    torch.randn((num_frames, *LATENT), generator=generator)
    noise = torch.randn((len(structure.coords), 3), generator=generator)
    latents = run(flow, structure)
    torch.testing.assert_close(
        latents.feats, noise * torch.tensor([2.0, 1.0, 0.5]) + torch.tensor([1.0, 2.0, 3.0]), rtol=1e-6, atol=1e-6
    )
    assert torch.equal(latents.coords, structure.coords)
    assert latents.num_frames == num_frames


def asked(flow: SLatFlow4DModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, Any, Any, Any]]:
    """Will hold what the flow is asked: whether without tokens, too; x, t, tokens."""
    calls: list[tuple[bool, Any, Any, Any]] = []
    both = flow.with_and_without

    def with_and_without(x: Any, t: Any, cond: Any, kept: Any) -> Any:
        calls.append((True, x, t, cond))
        return both(x, t, cond, kept)

    monkeypatch.setattr(flow, "with_and_without", with_and_without)
    flow.register_forward_pre_hook(lambda module, inputs: calls.append((False, *inputs[:3])))
    return calls


def test_an_odd_clip_is_the_even_one_whose_last_frame_is_repeated(flow, monkeypatch) -> None:
    odd = voxels(3)
    last = odd.coords[odd.coords[:, 1] == 2]
    calls = asked(flow, monkeypatch)
    latents = run(flow, odd)
    _, x, t, cond = calls[0]
    assert torch.equal(x.coords, torch.cat([odd.coords, last + torch.tensor([0, 1, 0, 0, 0])]))
    assert torch.equal(x.feats[len(odd.coords) :], x.feats[len(odd.coords) - len(last) : len(odd.coords)])
    assert torch.equal(cond, tokens(3).feats[[0, 1, 2, 2]][None])
    assert t.shape == (1, 4)
    assert len(latents.feats) == len(odd.coords)


def test_the_flow_is_asked_with_the_tokens_and_inside_the_interval_without_them_too(flow, monkeypatch) -> None:
    calls, heard = asked(flow, monkeypatch), []
    config = CONFIG.model_copy(update={"sampler": CONFIG.sampler.model_copy(update={"cfg_interval": (0.8, 1.0)})})
    feats, structure = tokens(2).feats[None], voxels(2)
    sample_latents(config, flow, NORMALIZATION, tokens(2), structure, seed(), progress=lambda *call: heard.append(call))
    for (without, _, t, cond), wanted in zip(calls, time_grid(2, 2.0)[:-1], strict=True):
        assert without == (wanted >= 0.8)
        assert torch.equal(t, torch.full((1, 2), 1000 * wanted))
        assert torch.equal(cond, feats)
    assert [without for without, *_ in calls] == [True, False]
    assert heard == [(1, 2), (2, 2)]


def test_a_long_clip_is_sampled_in_windows_that_are_blended_at_every_step(flow, caplog, monkeypatch) -> None:
    structure, calls = voxels(13), asked(flow, monkeypatch)
    config = CONFIG.model_copy(update={"window": 8})
    caplog.set_level("INFO", logger="ss4d")
    windowed = sample_latents(config, flow, NORMALIZATION, tokens(13), structure, seed())
    assert "slat: 13 frames in 3 windows of 8" in caplog.text
    assert len(calls) == 2 * 3  # steps, windows
    starts = [0, 4, 6]
    padded = torch.cat([tokens(13).feats, tokens(13).feats[-1:]])
    for (_, x, t, cond), start in zip(calls[:3], starts, strict=True):
        assert t.shape == (1, 8)
        assert torch.equal(cond[0], padded[start : start + 8])
        assert int(x.coords[:, 1].max()) < 8
    whole = run(flow, structure)
    assert torch.equal(windowed.coords, whole.coords)
    assert windowed.feats.isfinite().all()
    assert not torch.equal(windowed.feats, whole.feats)
    torch.testing.assert_close(windowed.feats, whole.feats, atol=2.0, rtol=0)  # of deviations 2, 1 and 0.5


def test_where_frames_do_not_see_each_other_windows_change_nothing() -> None:
    torch.manual_seed(0)
    alone = SLatFlow4DModel(
        replace(FLOW, expand_self_attn=False, num_io_res_blocks=1, num_io_res4d_blocks=1), TORCH_OPS
    ).eval()
    for block in (*alone.input_blocks_t, *alone.out_blocks_t):
        for layer in (block.conv1, block.conv2):
            layer.conv.weight.data[:, [0, 2]] = 0  # neither in convolutions over time
    config = CONFIG.model_copy(update={"window": 4})
    structure = voxels(10, empty=(3, 4, 5))
    windowed = sample_latents(config, alone, NORMALIZATION, tokens(10), structure, seed())
    torch.testing.assert_close(windowed.feats, run(alone, structure).feats, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_frames", [1, 2, 7, 8])
def test_a_clip_that_fits_a_window_is_sampled_as_without(flow, num_frames: int) -> None:
    structure = voxels(num_frames)
    config = CONFIG.model_copy(update={"window": 8})
    windowed = sample_latents(config, flow, NORMALIZATION, tokens(num_frames), structure, seed())
    assert torch.equal(windowed.feats, run(flow, structure).feats)


def test_the_same_seed_gives_the_same_bits(flow) -> None:
    assert torch.equal(run(flow, voxels(3)).feats, run(flow, voxels(3)).feats)


@pytest.mark.parametrize("empty", [(0,), (1,), (2,), (3,), (0, 1), (2, 3), (0, 1, 3)])
def test_frames_without_voxels_pass(flow, empty: tuple[int, ...]) -> None:
    structure = voxels(4, empty=empty)
    latents = run(flow, structure)
    assert len(latents.feats) == len(structure.coords)
    assert latents.feats.isfinite().all()


def test_an_odd_clip_may_end_in_an_empty_frame(flow) -> None:
    structure = voxels(3, empty=(2,))
    assert len(run(flow, structure).feats) == len(structure.coords)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.sampled_from([1, 2, 4]), st.randoms(use_true_random=False))
def test_groups_are_filled_with_copies_of_the_last_frame(num_frames: int, multiple: int, random) -> None:
    frames = sorted(random.choices(range(num_frames), k=random.randint(1, 12)))
    coords = torch.tensor([[0, t, i, 0, 0] for i, t in enumerate(frames)], dtype=torch.int32)
    noise, feats = torch.randn(len(frames), 2), torch.randn(num_frames, 3, 4)
    all_coords, all_noise, all_feats = whole_groups(coords, noise, feats, multiple)
    assert len(all_feats) % multiple == 0
    assert len(all_feats) - num_frames < multiple
    assert torch.equal(all_coords[: len(frames)], coords)
    for t in range(len(all_feats)):
        source = min(t, num_frames - 1)
        assert torch.equal(all_feats[t], feats[source])
        assert torch.equal(all_noise[all_coords[:, 1] == t], noise[coords[:, 1] == source])
        assert torch.equal(all_coords[all_coords[:, 1] == t][:, 2:], coords[coords[:, 1] == source][:, 2:])


def test_inputs_that_do_not_belong_together_are_refused(flow) -> None:
    none = voxels(2, empty=(0, 1))
    with pytest.raises(InputError, match="structure is empty"):
        run(flow, none)
    with pytest.raises(InputError, match="tokens of 3 frames do not fit a structure of 2"):
        sample_latents(CONFIG, flow, NORMALIZATION, tokens(3), voxels(2), seed())
    wide = Tokens(feats=torch.zeros(2, 7, 6))
    with pytest.raises(ModelError, match="6 channels do not fit a flow that takes 5"):
        sample_latents(CONFIG, flow, NORMALIZATION, wide, voxels(2), seed())
    fine = Voxels(coords=voxels(2).coords, latent=torch.zeros(2, *LATENT), resolution=16)
    with pytest.raises(ModelError, match="grid of 16 cells does not fit a flow for 8"):
        run(flow, fine)
