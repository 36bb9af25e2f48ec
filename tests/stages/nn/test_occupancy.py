"""The occupancy autoencoder against its formulas, written out plainly."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ss4d.stages.errors import ModelError
from ss4d.stages.nn.occupancy import (
    ResidualBlock,
    SparseStructureDecoder,
    SparseStructureDecoderArgs,
    SparseStructureEncoder,
    SparseStructureEncoderArgs,
    pixel_shuffle,
)

DECODER = SparseStructureDecoderArgs(
    out_channels=1, latent_channels=3, num_res_blocks=1, channels=(8, 6, 4), num_res_blocks_middle=1
)
ENCODER = SparseStructureEncoderArgs(
    in_channels=1, latent_channels=3, num_res_blocks=1, channels=(4, 6, 8), num_res_blocks_middle=1
)


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_pixel_shuffle_gives_each_child_the_channel_of_its_offset(c: int, nx: int, ny: int, nz: int) -> None:
    x = torch.randn(2, 8 * c, nx, ny, nz)
    spread = pixel_shuffle(x)
    assert spread.shape == (2, c, 2 * nx, 2 * ny, 2 * nz)
    for channel, i, j, k in itertools.product(range(c), range(2 * nx), range(2 * ny), range(2 * nz)):
        source = channel * 8 + (i % 2) * 4 + (j % 2) * 2 + k % 2
        assert torch.equal(spread[:, channel, i, j, k], x[:, source, i // 2, j // 2, k // 2])


def test_a_residual_block_is_its_formula() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(5)
    for norm in (block.norm1, block.norm2):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, 3, 4, 2)

    def normed(h: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        mean, var = h.mean(1, keepdim=True), h.var(1, keepdim=True, unbiased=False)
        h = (h - mean) / (var + 1e-5).sqrt() * weight.view(1, -1, 1, 1, 1) + bias.view(1, -1, 1, 1, 1)
        return h * torch.sigmoid(h)

    h = functional.conv3d(
        normed(x, block.norm1.weight, block.norm1.bias), block.conv1.weight, block.conv1.bias, padding=1
    )
    h = functional.conv3d(
        normed(h, block.norm2.weight, block.norm2.bias), block.conv2.weight, block.conv2.bias, padding=1
    )
    torch.testing.assert_close(block(x), x + h)


def test_frames_are_coded_alone() -> None:
    torch.manual_seed(1)
    decoder, encoder = SparseStructureDecoder(DECODER), SparseStructureEncoder(ENCODER)
    latent, occupancy = torch.randn(3, 3, 2, 2, 2), (torch.rand(3, 1, 8, 8, 8) > 0.5).float()
    logits, (mean, logvar) = decoder(latent), encoder(occupancy)
    for b in range(3):
        torch.testing.assert_close(decoder(latent[b : b + 1]), logits[b : b + 1])
        alone = encoder(occupancy[b : b + 1])
        torch.testing.assert_close(alone[0], mean[b : b + 1])
        torch.testing.assert_close(alone[1], logvar[b : b + 1])


def test_the_grid_doubles_between_decoder_levels_and_halves_between_encoder_levels() -> None:
    logits = SparseStructureDecoder(DECODER)(torch.zeros(1, 3, 2, 2, 2))
    mean, logvar = SparseStructureEncoder(ENCODER)(torch.zeros(1, 1, 8, 8, 8))
    assert logits.shape == (1, 1, 8, 8, 8)
    assert mean.shape == logvar.shape == (1, 3, 2, 2, 2)


def test_mean_is_the_first_half_of_the_encoders_channels() -> None:
    encoder = SparseStructureEncoder(ENCODER)
    with torch.no_grad():
        encoder.out_layer[2].weight.zero_()
        encoder.out_layer[2].bias.copy_(torch.arange(6.0))
    mean, logvar = encoder(torch.zeros(1, 1, 8, 8, 8))
    assert mean[0, :, 0, 0, 0].tolist() == [0, 1, 2]
    assert logvar[0, :, 0, 0, 0].tolist() == [3, 4, 5]


def test_another_norm_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="norm_type is 'group'"):
        SparseStructureDecoder(
            SparseStructureDecoderArgs(
                out_channels=1, latent_channels=3, num_res_blocks=1, channels=(8,), norm_type="group"
            )
        )
