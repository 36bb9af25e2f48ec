"""Sparse structure and tokens to structured latents: a feature for every occupied cell (docs/model.md, section 7)."""

import logging

import torch
from torch import Tensor

from ss4d.stages.errors import InputError, ModelError
from ss4d.stages.frame_windows import blended, frame_windows, window_rows
from ss4d.stages.nn.block import KeptTokens
from ss4d.stages.nn.guide import GuidedLatentFlow
from ss4d.stages.nn.latent_flow import SLatFlow4DModel
from ss4d.stages.ops.coords import Sites
from ss4d.stages.sampler_params import LatentNormalization
from ss4d.stages.sampling import latent_noise, network_condition, network_time, sample
from ss4d.stages.slat_config import SlatConfig
from ss4d.stages.types import Progress, StructuredLatents, Tokens, Voxels, silent

LOG = logging.getLogger("ss4d")


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
    """A latent for every occupied cell, sampled on the flow's device and denormalized.

    The flow merges neighboring frames. Where a clip does not divide by as many as it merges, the last frame takes part
    several times, and its copies are dropped. A clip longer than `config.window` is sampled in windows over time whose
    velocities are blended at every step.

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
        ModelError: if tokens or voxels are not what the flow was built for.
    """
    _check_inputs(flow, tokens, voxels)
    device, num_voxels = flow.out_layer.weight.device, len(voxels.coords)
    noise = latent_noise(voxels.latent.shape, (num_voxels, flow.args.out_channels), generator)
    coords, noise, feats = whole_groups(voxels.coords, noise, tokens.feats, flow.frame_multiple)
    cond = network_condition(feats, flow.args.cond_channels, device)
    windows = frame_windows(len(feats), config.window, flow.frame_multiple)
    if len(windows) > 1:
        LOG.info("slat: %d frames in %d windows of %d", voxels.num_frames, len(windows), len(windows[0]))
    parts = window_rows(coords.to(device), len(feats), windows)
    flows = [GuidedLatentFlow(flow, Sites(part.coords)) for part in parts]
    kept = [flow.kept_tokens(len(parts)) for _ in parts]

    def given(i: int, x: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor, KeptTokens]:
        """What the flow of a part takes."""
        frames = parts[i].frames
        seen = cond[:, frames.start : frames.stop]
        return x[parts[i].rows], network_time(t, len(frames), device), seen, kept[i]

    def conditional(x: Tensor, t: float) -> Tensor:
        return blended(parts, lambda i: flows[i](*given(i, x, t)), len(x))

    def with_and_without(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        # Side by side in the channels, which are blended alike.
        both = blended(parts, lambda i: torch.cat(flows[i].with_and_without(*given(i, x, t)), 1), len(x))
        v, without = both.chunk(2, dim=1)
        return v, without

    with torch.no_grad():
        sampler = config.sampler
        latents = sample(
            conditional, with_and_without, noise.to(device), sampler.params(), progress, solver=sampler.solver
        )
    latents = latents[:num_voxels].cpu() * torch.tensor(normalization.std) + torch.tensor(normalization.mean)
    return StructuredLatents(
        coords=voxels.coords, feats=latents, num_frames=voxels.num_frames, resolution=voxels.resolution
    )


def whole_groups(coords: Tensor, noise: Tensor, tokens: Tensor, multiple: int) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates (n, 5), noise (n, c), tokens (t, l, c), the last frame repeated until t is a `multiple`.

    The published flow halves the frames, so it takes even numbers of them (docs/model.md, section 7).
    """
    num_frames = len(tokens)
    last = coords[:, 1] == num_frames - 1
    copies = range(1, -num_frames % multiple + 1)
    return (
        torch.cat([coords, *(coords[last] + coords.new_tensor([0, copy, 0, 0, 0]) for copy in copies)]),
        torch.cat([noise, *(noise[last] for _ in copies)]),
        torch.cat([tokens, *(tokens[-1:] for _ in copies)]),
    )


def _check_inputs(flow: SLatFlow4DModel, tokens: Tokens, voxels: Voxels) -> None:
    if not len(voxels.coords):
        raise InputError("the sparse structure is empty: run it with another seed, or check the masks")
    if len(tokens.feats) != voxels.num_frames:
        raise InputError(f"tokens of {len(tokens.feats)} frames do not fit a structure of {voxels.num_frames} frames")
    if voxels.resolution != flow.args.resolution:
        raise ModelError(
            f"a structure on a grid of {voxels.resolution} cells does not fit a flow for {flow.args.resolution}: "
            "occupancy decoder and latent flow are not of one model"
        )
