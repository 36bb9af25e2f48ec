"""Sparse structure and tokens to structured latents: a feature for every occupied cell (specification, section 7)."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from stages.errors import InputError
from stages.nn.latent_flow import SLatFlow4DModel
from stages.ops.coords import Sites, SparseTensor
from stages.sampler_config import SamplerConfig
from stages.sampling import LatentNormalization, Velocity, latent_noise, network_time, sample
from stages.types import Progress, StructuredLatents, Tokens, Voxels, silent


class SlatConfig(BaseModel):
    """How structured latents are sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sampler: SamplerConfig = Field(default=SamplerConfig(), description="sampler of the structured latents")


def sample_latents(
    config: SlatConfig,
    flow: SLatFlow4DModel,
    normalization: LatentNormalization,
    tokens: Tokens,
    voxels: Voxels,
    generator: torch.Generator,
    *,
    progress: Progress = silent,
) -> StructuredLatents:
    """A latent for every occupied cell, sampled on the flow's device and denormalised.

    The flow halves the frame axis, so the last frame of an odd clip takes part twice and its copy is dropped.

    Args:
        config: resolved, without nulls.
        flow: velocity of the structured latents.
        normalization: of the latents the flow was trained on.
        tokens: of the clip, as many frames as `voxels`.
        voxels: the sparse structure.
        generator: a CPU generator, freshly seeded with the seed of the structure.
        progress: hears of every sampler step.

    Raises:
        InputError: if no cell is occupied, or tokens and voxels differ in frames.
    """
    num_frames, num_voxels = voxels.num_frames, len(voxels.coords)
    if not num_voxels:
        raise InputError("the sparse structure is empty: run it with another seed, or check the masks")
    if len(tokens.feats) != num_frames:
        raise InputError(f"tokens of {len(tokens.feats)} frames do not fit a structure of {num_frames} frames")
    device = next(flow.parameters()).device
    noise = latent_noise(voxels.latent.shape, (num_voxels, flow.args.in_channels), generator)
    coords, noise, feats = even_frames(voxels.coords, noise, tokens.feats)
    sites, cond = Sites(coords.to(device)), feats.to(device)[None]

    def velocity(condition: Tensor) -> Velocity:
        def of(x: Tensor, t: float) -> Tensor:
            return flow(SparseTensor(sites, x), network_time(t, condition.shape[1], device), condition).feats

        return of

    with torch.inference_mode():
        negative = torch.zeros_like(cond)
        latents = sample(velocity(cond), velocity(negative), noise.to(device), config.sampler.params(), progress)
        latents = latents[:num_voxels].cpu() * torch.tensor(normalization.std) + torch.tensor(normalization.mean)
    return StructuredLatents(coords=voxels.coords, feats=latents, num_frames=num_frames, resolution=voxels.resolution)


def even_frames(coords: Tensor, noise: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates (n, 5), noise (n, c) and tokens (t, l, c) with the last frame repeated behind them if t is odd."""
    num_frames = len(tokens)
    if num_frames % 2 == 0:
        return coords, noise, tokens
    last = coords[:, 1] == num_frames - 1
    copy = coords[last] + coords.new_tensor([0, 1, 0, 0, 0])
    return torch.cat([coords, copy]), torch.cat([noise, noise[last]]), torch.cat([tokens, tokens[-1:]])
