"""Writes an untrained model folder: the published networks and file format, the tiny model's sizes, random weights.

The occupancy decoder is set up so that random latents decode to one blob with about as many voxels as a real object
has: everything downstream then has as much to do as with trained weights.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ss4d.stages.nn.checkpoint import build_network, save_network
from ss4d.stages.nn.occupancy import SparseStructureDecoder
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.sampler_params import LatentNormalization
from ss4d.stages.training.tiny import PUBLISHED, changed, file_name, pipeline

OCCUPIED_SHARE = 0.045  # of the cells: as many as the surface of a lump touches
UNIT = LatentNormalization(mean=(0.0,) * 8, std=(1.0,) * 8)
NOTICE = "these weights are random: the object is noise"


@torch.no_grad()
def occupy_plausibly(decoder: SparseStructureDecoder, generator: torch.Generator) -> None:
    """Makes random latents decode to one lumpy blob away from the borders, of `OCCUPIED_SHARE` of the cells.

    The blob comes from what zero padding does to a constant, so the latents are turned down beside the biases.
    """
    decoder.input_layer.weight.mul_(0.1)
    decoder.input_layer.bias.normal_(generator=generator)
    for name, parameter in decoder.named_parameters():
        if ".conv." in name:  # an upsampler: its eight offsets start alike, so that it repeats instead of scattering
            parameter.copy_(parameter.unflatten(0, (-1, 8))[:, :1].expand(-1, 8, *parameter.shape[1:]).flatten(0, 1))
    args, side = decoder.args, 8
    logits = decoder(torch.randn(4, args.latent_channels, side, side, side, generator=generator))[:, 0]
    border = torch.ones(logits.shape[1:], dtype=torch.bool)
    border[2:-2, 2:-2, 2:-2] = False
    outside_in = logits[:, ~border].mean() < logits[:, border].mean()
    last = decoder.out_layer[2]
    last.weight.mul_(-1 if outside_in else 1)
    last.bias.mul_(-1 if outside_in else 1)
    last.bias.sub_(torch.quantile(-logits if outside_in else logits, 1 - OCCUPIED_SHARE))


def write_model(folder: Path, *, seed: int, changes: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Writes the model folder, with `changes` to the networks' options by role."""
    for role, (name, args) in changed(PUBLISHED, changes or {}).items():
        torch.manual_seed(seed)
        network = build_network(name, args, TORCH_OPS)
        if isinstance(network, SparseStructureDecoder):
            occupy_plausibly(network, torch.Generator().manual_seed(seed))
        save_network(folder / "ckpts" / file_name(role), name, network.args, network, torch.float16)
    (folder / "pipeline.json").write_text(json.dumps(pipeline(UNIT), indent=1) + "\n")
    (folder / "NOTICE.md").write_text(NOTICE + "\n")
