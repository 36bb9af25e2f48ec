"""Images to tokens: what the flows are told about each frame (docs/model.md, section 3)."""

import torch
from torch import Tensor

from ss4d.stages.conditioning_config import ConditioningConfig
from ss4d.stages.nn.column_encoder import guessed
from ss4d.stages.nn.image_encoders import ImageEncoder, fit_images
from ss4d.stages.types import Clip, Progress, Tokens, silent

FRAMES_AT_ONCE = 4  # bounds memory; an encoder sees every frame alone


def encode_images(
    config: ConditioningConfig,  # noqa: ARG001  every stage takes its configuration first, this one's is empty
    encoder: ImageEncoder,
    clip: Clip,
    *,
    progress: Progress = silent,
) -> Tokens:
    """The tokens of every frame, and what they alone tell of cells, computed on the encoder's device.

    Tokens are all 0 where the object is not seen.
    """
    device = next(iter(encoder.parameters())).device
    seen = torch.cat([clip.rgb, clip.alpha[..., None]], -1)[..., : encoder.image_channels]
    tokens, guesses = [], []
    with torch.no_grad():
        for frames in torch.split(seen, FRAMES_AT_ONCE):
            images = encoder_images(frames.to(device), encoder.args.image_size)
            made = encoder(images).float()
            tokens.append(made.cpu())
            guesses.append(_guess(encoder, images, made).cpu())
            progress(sum(map(len, tokens)), len(clip.rgb))
    feats = torch.cat(tokens)
    feats[(clip.alpha == 0).flatten(1).all(1)] = 0
    return Tokens(feats=feats, guess=torch.cat(guesses))


def _guess(encoder: ImageEncoder, images: Tensor, tokens: Tensor) -> Tensor:
    """What the encoder alone tells of cells (t, x, y, z): the mean of the images (t, c, s, s) and of their mirrors.

    Objects are as likely mirrored, and an encoder in the camera's axes errs otherwise then.
    """
    guess = guessed(encoder, tokens)
    if not len(guess):
        return guess
    return (guess + guessed(encoder, encoder(images.flip(3)).float()).flip(1)) / 2


def encoder_images(frames: Tensor, size: int) -> Tensor:
    """Frames (t, s, s, c) uint8 as (t, c, `size`, `size`) float32 in 0 to 1; not resampled if s is `size`."""
    return fit_images(frames.permute(0, 3, 1, 2).float() / 255, size)
