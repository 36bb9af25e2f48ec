"""Structured latents to Gaussians: what each occupied cell looks like (docs/model.md, section 8)."""

import torch
from torch import Tensor

from ss4d.stages.decoding_config import DecodingConfig
from ss4d.stages.errors import ModelError
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoder
from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.types import GaussianClip, Progress, StructuredLatents, silent


def decode_gaussians(
    config: DecodingConfig,  # noqa: ARG001  every stage takes its configuration first, this one's is empty
    decoder: SLatGaussianDecoder,
    latents: StructuredLatents,
    *,
    progress: Progress = silent,
) -> GaussianClip:
    """The Gaussians of every frame, computed on the decoder's device; a frame without cells has none.

    The clip is decoded in one go: attention windows span frames, so any cut would change the result.

    Raises:
        ModelError: if the latents lie on another grid than the decoder's.
    """
    if latents.resolution != decoder.args.resolution:
        raise ModelError(
            f"latents on a grid of {latents.resolution} cells do not fit a decoder for {decoder.args.resolution}: "
            "structure and decoder are not of one model"
        )
    device = decoder.out_layer.weight.device
    with torch.no_grad():
        x = SparseTensor(Sites(latents.coords.to(device)), latents.feats.to(device))
        gaussians = decoder.activate(decoder.split(decoder(x), x.coords))
    progress(1, 1)
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
