"""The structure stage: the noise contract, guidance as specified, and cells where logits are positive."""

from dataclasses import replace

import pytest
import torch

from ss4d.stages.errors import InputError, ModelError
from ss4d.stages.nn.occupancy import FRAMES_AT_ONCE, SparseStructureDecoder, SparseStructureDecoderArgs, occupied_cells
from ss4d.stages.nn.structure_flow import SparseStructureFlow4DModel, SparseStructureFlow4DModelArgs
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.sampler_config import SamplerConfig
from ss4d.stages.sampling import time_grid
from ss4d.stages.sparse_structure import sample_structure
from ss4d.stages.sparse_structure_config import SparseStructureConfig
from ss4d.stages.types import Tokens, Voxels

FLOW = SparseStructureFlow4DModelArgs(
    resolution=2,
    in_channels=3,
    model_channels=12,
    cond_channels=5,
    out_channels=3,
    num_blocks=2,
    num_heads=2,
    patch_size=1,
    pe_mode="rope_t",
    window_size=4,
    expand_self_attn=True,
)
DECODER = SparseStructureDecoderArgs(
    out_channels=1, latent_channels=3, num_res_blocks=1, channels=(8, 4), num_res_blocks_middle=1
)
CONFIG = SparseStructureConfig(
    sampler=SamplerConfig(steps=3, cfg_strength=2.0, cfg_interval=(0.4, 1.0), rescale_t=2.0, temperature=1.0)
)


@pytest.fixture
def flow() -> SparseStructureFlow4DModel:
    torch.manual_seed(0)
    return SparseStructureFlow4DModel(FLOW, TORCH_OPS).eval()


@pytest.fixture
def decoder() -> SparseStructureDecoder:
    torch.manual_seed(1)
    return SparseStructureDecoder(DECODER).eval()


def tokens(num_frames: int) -> Tokens:
    return Tokens(feats=torch.randn(num_frames, 7, 5, generator=torch.Generator().manual_seed(2)))


def seed(number: int = 42) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_cells_are_where_the_logits_of_the_latent_are_positive(flow, decoder, num_frames: int) -> None:
    voxels = sample_structure(CONFIG, flow, decoder, tokens(num_frames), seed())
    assert voxels.num_frames == num_frames
    assert voxels.resolution == 4
    logits = decoder(voxels.latent)[:, 0]
    expected = [[0, *cell] for cell in torch.nonzero(logits > 0).tolist()]
    assert 0 < len(expected) < logits.numel()
    assert voxels.coords.tolist() == expected == sorted(expected)


def test_what_the_tokens_guess_of_cells_counts_half(flow, decoder) -> None:
    guess = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    alone = sample_structure(CONFIG, flow, decoder, tokens(2), seed())
    both = sample_structure(CONFIG, flow, decoder, replace(tokens(2), guess=guess), seed())
    assert torch.equal(both.latent, alone.latent)
    assert torch.equal(both.guess, guess)
    assert len(alone.guess) == 0
    expected = torch.nonzero(decoder(both.latent)[:, 0] + guess > 0).tolist()
    assert both.coords[:, 1:].tolist() == expected
    assert not torch.equal(both.coords, alone.coords)


def test_a_seed_means_the_same_numbers_and_another_seed_others(flow, decoder) -> None:
    def run(number: int) -> Voxels:
        return sample_structure(CONFIG, flow, decoder, tokens(2), seed(number))

    assert torch.equal(run(1).latent, run(1).latent)
    assert not torch.equal(run(1).latent, run(2).latent)


def test_without_velocity_the_latent_is_the_first_noise_of_the_seed(flow, decoder) -> None:
    torch.nn.init.zeros_(flow.out_layer.weight)
    torch.nn.init.zeros_(flow.out_layer.bias)
    voxels = sample_structure(CONFIG, flow, decoder, tokens(3), seed())
    assert torch.equal(voxels.latent, torch.randn((3, 3, 2, 2, 2), generator=seed()))


def test_the_flow_is_asked_with_the_tokens_and_inside_the_interval_without_them_too(flow, decoder) -> None:
    calls = []
    flow.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[1:3]))
    heard = []
    sample_structure(CONFIG, flow, decoder, tokens(2), seed(), progress=lambda *call: heard.append(call))
    times, feats = time_grid(3, 2.0)[:-1], tokens(2).feats[None]
    expected = [(t, cond) for t in times for cond in (feats, None) if t >= 0.4 or cond is feats]
    assert len(calls) == len(expected) == 6
    for (t, cond), (wanted_t, wanted_cond) in zip(calls, expected, strict=True):
        assert torch.equal(t, torch.full((1, 2), 1000 * wanted_t))
        assert cond is wanted_cond is None or torch.equal(cond, wanted_cond)
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_a_frame_without_cells_is_empty_and_the_others_keep_their_index() -> None:
    logits = torch.full((7, 1, 4, 4, 4), -1.0)
    logits[0, 0, 1, 2, 3] = logits[5, 0, 3, 0, 0] = 0.5
    logits[2, 0, 0, 0, 0] = 0.0  # not above 0
    frames = iter(logits.split(FRAMES_AT_ONCE))
    coords, resolution = occupied_cells(lambda _: next(frames), torch.zeros(7, 8, 1, 1, 1))
    assert coords.tolist() == [[0, 0, 1, 2, 3], [0, 5, 3, 0, 0]]
    assert coords.dtype == torch.int32
    assert resolution == 4


def test_a_clip_without_cells_is_refused_with_a_remedy(flow, decoder) -> None:
    torch.nn.init.constant_(decoder.out_layer[2].bias, -1e3)
    with pytest.raises(InputError, match="came out empty: no cell of 2 frames is occupied; try another seed"):
        sample_structure(CONFIG, flow, decoder, tokens(2), seed())


@pytest.mark.parametrize("where", ["flow", "decoder"])
def test_what_is_no_number_is_not_taken_for_an_empty_clip(flow, decoder, where: str) -> None:
    broken = flow.out_layer if where == "flow" else decoder.out_layer[2]
    torch.nn.init.constant_(broken.bias, float("nan"))
    with pytest.raises(ModelError, match=r"came out as not-a-number .* precision=bfloat16"):
        sample_structure(CONFIG, flow, decoder, tokens(2), seed())


def test_an_unresolved_configuration_is_refused(flow, decoder) -> None:
    with pytest.raises(ValueError, match="resolve"):
        sample_structure(SparseStructureConfig(), flow, decoder, tokens(2), seed())


def test_a_frame_without_tokens_has_no_cells(flow, decoder) -> None:
    seen = tokens(3)
    assert set(sample_structure(CONFIG, flow, decoder, seen, seed()).coords[:, 1].tolist()) == {0, 1, 2}
    seen.feats[1] = 0
    voxels = sample_structure(CONFIG, flow, decoder, seen, seed())
    assert set(voxels.coords[:, 1].tolist()) == {0, 2}
    assert voxels.num_frames == 3
