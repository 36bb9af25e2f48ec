"""Conditioning: every frame is encoded alone, at the encoder's own size."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ss4d.stages.conditioning import encode_images, encoder_images
from ss4d.stages.conditioning_config import ConditioningConfig
from ss4d.stages.nn.column_encoder import ColumnEncoder, ColumnEncoderArgs, lifted
from ss4d.stages.nn.image_encoders import VisionTransformer, VisionTransformerArgs
from ss4d.stages.types import Clip

ARGS = VisionTransformerArgs(image_size=28, patch_size=14, model_channels=12, num_blocks=2, num_heads=2)


@pytest.fixture
def encoder() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(ARGS).eval()


def clip(num_frames: int, size: int) -> Clip:
    generator = torch.Generator().manual_seed(1)
    return Clip(
        rgb=torch.randint(0, 256, (num_frames, size, size, 3), generator=generator, dtype=torch.uint8),
        alpha=torch.full((num_frames, size, size), 255, dtype=torch.uint8),
        crop=torch.tensor([0, 0, size, size]),
        confidence=torch.ones(num_frames),
        method="test",
        fps=10.0,
    )


@pytest.mark.parametrize("num_frames", [1, 4, 9])
def test_each_frames_tokens_are_those_of_the_frame_alone(encoder: VisionTransformer, num_frames: int) -> None:
    frames, heard = clip(num_frames, 28), []
    tokens = encode_images(
        ConditioningConfig(), encoder, frames, progress=lambda done, total: heard.append((done, total))
    )
    assert tokens.feats.shape == (num_frames, 1 + 4 + 4, 12)
    for t in range(num_frames):
        alone = encoder(frames.rgb[t : t + 1].permute(0, 3, 1, 2) / 255)
        torch.testing.assert_close(tokens.feats[t], alone[0].detach(), atol=1e-5, rtol=0)
    assert heard[-1] == (num_frames, num_frames)
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})


def test_tokens_are_normalized_over_channels(encoder: VisionTransformer) -> None:
    feats = encode_images(ConditioningConfig(), encoder, clip(2, 28)).feats
    torch.testing.assert_close(feats.mean(-1), torch.zeros(2, 9), atol=1e-5, rtol=0)
    torch.testing.assert_close(feats.var(-1, unbiased=False), torch.ones(2, 9), atol=1e-3, rtol=0)


def test_what_tokens_tell_of_cells_is_what_the_encoder_reads_from_them(encoder: VisionTransformer) -> None:
    columns = ColumnEncoder(
        ColumnEncoderArgs(image_size=32, resolution=8, cell_channels=2, channels=(8, 16), patch_size=4)
    ).eval()
    tokens = encode_images(ConditioningConfig(), columns, clip(5, 32))
    seen = clip(5, 32)
    mirror = encode_images(ConditioningConfig(), columns, replace(seen, rgb=seen.rgb.flip(2), alpha=seen.alpha.flip(2)))
    with torch.no_grad():
        once, again = (columns.cells(lifted(made.feats, 8))[..., 0] for made in (tokens, mirror))
    torch.testing.assert_close(tokens.guess, (once + again.flip(1)) / 2)
    torch.testing.assert_close(mirror.guess, tokens.guess.flip(1))
    assert tokens.guess.shape == (5, 8, 8, 8)
    assert tokens.guess.std() > 0
    assert encode_images(ConditioningConfig(), encoder, clip(2, 28)).guess.shape == (0, 0, 0, 0)
    columns.cells.half()  # as a model in half precision may be
    torch.testing.assert_close(
        encode_images(ConditioningConfig(), columns, seen).guess, tokens.guess, atol=1e-2, rtol=1e-2
    )


def test_frames_of_the_encoders_size_are_not_resampled() -> None:
    rgb = clip(2, 28).rgb
    assert torch.equal((encoder_images(rgb, 28) * 255).round().byte().permute(0, 2, 3, 1), rgb)


@pytest.mark.parametrize("size", [16, 50, 128])
def test_other_sizes_are_resampled_with_antialiasing(size: int) -> None:
    rgb = clip(1, 64).rgb // 2 + 64  # away from black and white: Pillow clips between its two passes
    ours = encoder_images(rgb, size)[0].permute(1, 2, 0).numpy() * 255
    pillow = np.asarray(Image.fromarray(rgb[0].numpy()).resize((size, size), Image.Resampling.BICUBIC))
    assert np.abs(ours - pillow).max() <= 2


def test_a_frame_without_the_object_has_no_tokens(encoder: VisionTransformer) -> None:
    frames = clip(3, 28)
    frames.alpha[1] = 0
    feats = encode_images(ConditioningConfig(), encoder, frames).feats
    assert (feats[1] == 0).all()
    assert torch.equal(feats[[0, 2]], encode_images(ConditioningConfig(), encoder, clip(3, 28)).feats[[0, 2]])
