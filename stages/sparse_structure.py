"""Tokens to the sparse structure: which cells the object occupies in each frame (docs/model.md, sections 4 to 6)."""

import torch
from torch import Tensor

from ss4d.stages.errors import InputError
from ss4d.stages.nn.guide import GuidedStructureFlow
from ss4d.stages.nn.occupancy import SparseStructureDecoder, occupied_cells
from ss4d.stages.nn.structure_flow import SparseStructureFlow4DModel
from ss4d.stages.sampling import Velocity, network_condition, network_time, one_by_one, sample, structure_noise
from ss4d.stages.sparse_structure_config import SparseStructureConfig
from ss4d.stages.types import Progress, Tokens, Voxels, silent


def sample_structure(
    config: SparseStructureConfig,
    flow: SparseStructureFlow4DModel,
    decoder: SparseStructureDecoder,
    tokens: Tokens,
    generator: torch.Generator,
    *,
    progress: Progress = silent,
) -> Voxels:
    """The occupied cells of every frame, sampled on the flow's device; a frame whose tokens are all 0 has none.

    Args:
        config: resolved, without nulls.
        flow: velocity of the occupancy latent.
        decoder: occupancy latent to logits of the cells.
        tokens: of the clip, any number of frames from 1 up; what they guess of cells counts half.
        generator: a CPU generator, freshly seeded.
        progress: hears of every sampler step.

    Raises:
        InputError: if no cell is occupied in any frame.
        ModelError: if the tokens have another width than the flow takes.
    """
    device, num_frames = flow.pos_emb.device, len(tokens.feats)
    c, r = flow.args.out_channels, flow.args.resolution
    noise = structure_noise((num_frames, c, r, r, r), generator).to(device)
    cond = network_condition(tokens.feats, flow.args.cond_channels, device)

    guided = GuidedStructureFlow(flow)

    kept = flow.kept_tokens()

    def velocity(condition: Tensor | None) -> Velocity:
        return lambda x, t: guided(x[None], network_time(t, num_frames, device), condition, kept)[0]

    with torch.no_grad():
        sampler, under_cond = config.sampler, velocity(cond)
        both = one_by_one(under_cond, velocity(None))
        latent = sample(under_cond, both, noise, sampler.params(), progress, solver=sampler.solver)
        coords, resolution = occupied_cells(decoder, latent, tokens.guess.to(device))
    coords = coords[(tokens.feats != 0).flatten(1).any(1)[coords[:, 1].long()]]
    if not len(coords):
        raise InputError(
            f"the sparse structure came out empty: no cell of {num_frames} frames is occupied; "
            "try another seed, or check that the masks show the object"
        )
    return Voxels(coords=coords, latent=latent.cpu(), guess=tokens.guess, resolution=resolution)
