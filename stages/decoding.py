"""Structured latents to Gaussians: what each occupied cell looks like (docs/model.md, section 8)."""

import logging

import torch
from torch import Tensor

from ss4d.stages.decoding_config import DecodingConfig
from ss4d.stages.errors import ModelError
from ss4d.stages.frame_windows import blended, frame_windows, window_rows
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoder
from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.types import GaussianClip, Progress, StructuredLatents, silent

LOG = logging.getLogger("ss4d")


def decode_gaussians(
    config: DecodingConfig,
    decoder: SLatGaussianDecoder,
    latents: StructuredLatents,
    *,
    progress: Progress = silent,
) -> GaussianClip:
    """The Gaussians of every frame, computed on the decoder's device; a frame without cells has none.

    Attention spans frames, so any cut changes the result a little: the clip is decoded in one go, unless it is longer
    than `config.window`. Then it is in overlapping windows over time, whose raw channels are blended.

    Raises:
        ModelError: if the latents lie on another grid than the decoder's.
    """
    if latents.resolution != decoder.args.resolution:
        raise ModelError(
            f"latents on a grid of {latents.resolution} cells do not fit a decoder for {decoder.args.resolution}: "
            "structure and decoder are not of one model"
        )
    device = decoder.out_layer.weight.device
    coords, feats = latents.coords.to(device), latents.feats.to(device)
    padded_frames = latents.num_frames + -latents.num_frames % decoder.frame_multiple
    windows = frame_windows(padded_frames, config.window, decoder.frame_multiple)
    if len(windows) > 1:
        LOG.info("decoding: %d frames in %d windows of %d", latents.num_frames, len(windows), len(windows[0]))
    parts = window_rows(coords, padded_frames, windows)

    def raw(i: int) -> Tensor:
        channels: Tensor = decoder(SparseTensor(Sites(parts[i].coords), feats[parts[i].rows]))
        progress(i + 1, len(parts))
        return channels

    with torch.no_grad():
        gaussians = decoder.activate(decoder.split(blended(parts, raw, len(coords)), coords))
    return GaussianClip(
        means=gaussians.means.cpu(),
        scales=gaussians.scales.cpu(),
        quats=gaussians.quats.cpu(),
        colors=gaussians.colors.cpu(),
        opacities=gaussians.opacities.squeeze(1).cpu(),
        offsets=frame_offsets(latents.coords, latents.num_frames) * decoder.representation.num_gaussians,
    )


def frame_offsets(coords: Tensor, num_frames: int) -> Tensor:
    """Where each frame's rows begin in sorted `coords` (n, 5), then n: (num_frames + 1) int64."""
    counts = torch.bincount(coords[:, 1], minlength=num_frames)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
