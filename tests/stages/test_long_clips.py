"""Long clips in windows over time, with the bundled model: 128 frames, and 32 beside the whole."""

import pytest
import torch

from ss4d.pipelines.bench.subjects import shells
from ss4d.stages.decoding import decode_gaussians
from ss4d.stages.decoding_config import DecodingConfig
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoder
from ss4d.stages.nn.latent_flow import SLatFlow4DModel
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.roles import GAUSSIAN_DECODER, LATENT_FLOW
from ss4d.stages.sampler_config import SamplerConfig
from ss4d.stages.slat import sample_latents
from ss4d.stages.slat_config import SlatConfig
from ss4d.stages.types import StructuredLatents, Tokens, Voxels
from ss4d.stages.weights import load_role
from tests.helpers.places import ROOT

FOLDER = ModelFolder.open(ROOT / "configs" / "models" / "tiny")
VOXELS = 40  # of a frame
SAMPLER = SamplerConfig(steps=2, cfg_strength=0.0, cfg_interval=(0.5, 1.0), rescale_t=1.0, temperature=0.8)


@pytest.fixture(scope="module")
def flow() -> SLatFlow4DModel:
    network = load_role(FOLDER, LATENT_FLOW, TORCH_OPS, device=torch.device("cpu"))
    assert isinstance(network, SLatFlow4DModel)
    return network


@pytest.fixture(scope="module")
def decoder() -> SLatGaussianDecoder:
    network = load_role(FOLDER, GAUSSIAN_DECODER, TORCH_OPS, device=torch.device("cpu"))
    assert isinstance(network, SLatGaussianDecoder)
    return network


def latents(flow: SLatFlow4DModel, num_frames: int, window: int | None, seed: int = 1) -> StructuredLatents:
    """Of a shell that sways, seen in tokens that drift from frame to frame."""
    draw = torch.Generator().manual_seed(0)
    first, last = torch.randn(2, 1, flow.args.resolution**2, flow.args.cond_channels, generator=draw)
    turn = torch.linspace(0, 1, num_frames)[:, None, None]
    tokens = Tokens(feats=(1 - turn) * first + turn * last)
    coords = shells(num_frames, VOXELS, flow.args.resolution)
    voxels = Voxels(coords=coords, latent=torch.zeros(num_frames, 8, 4, 4, 4), resolution=flow.args.resolution)
    config = SlatConfig(sampler=SAMPLER, window=window)
    generator = torch.Generator().manual_seed(seed)
    return sample_latents(config, flow, FOLDER.slat_normalization, tokens, voxels, generator)


def test_128_frames_never_meet_in_one_pass(flow, decoder) -> None:
    rows = []
    hooks = [
        network.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0].feats)))
        for network in (flow, decoder)
    ]
    long = latents(flow, 128, window=32)
    clip = decode_gaussians(DecodingConfig(window=32), decoder, long)
    for hook in hooks:
        hook.remove()
    assert rows == [32 * VOXELS] * (7 * 2 + 7)  # seven windows, in two steps and once
    assert clip.num_frames == 128
    assert clip.offsets.diff().unique().tolist() == [VOXELS * decoder.representation.num_gaussians]
    assert all(value.isfinite().all() for value in (long.feats, clip.means, clip.scales, clip.opacities))


def test_windows_of_32_frames_change_less_than_another_seed(flow, decoder) -> None:
    whole, windowed, other = latents(flow, 32, None), latents(flow, 32, 16), latents(flow, 32, None, seed=2)
    change = (windowed.feats - whole.feats).square().mean()
    assert 0 < change < 0.1 * (other.feats - whole.feats).square().mean()
    pictures = [decode_gaussians(DecodingConfig(window=window), decoder, whole) for window in (None, 16)]
    moved = (pictures[0].means - pictures[1].means).norm(dim=1)
    assert 0 < moved.mean() < 0.1 / decoder.args.resolution  # of a cell
