"""Random weights to train from, a function of the seed and the network's role alone."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ss4d.stages.nn import column_encoder as columns
from ss4d.stages.nn.checkpoint import build_network
from ss4d.stages.nn.embed import TimestepEmbedder
from ss4d.stages.nn.image_encoders import VisionTransformer
from ss4d.stages.nn.latent_flow import SLatFlow4DModel
from ss4d.stages.nn.resample import ResidualBlock
from ss4d.stages.nn.structure_flow import SparseStructureFlow4DModel
from ss4d.stages.ops.backend import Ops
from ss4d.stages.roles import IMAGE_ENCODER
from ss4d.stages.training.clips import draw


def fresh_network(role: str, name: str, options: Mapping[str, Any], ops: Ops, seed: int) -> nn.Module:
    """A new network for `role`, on the CPU.

    Raises:
        ModelError: naming an option that cannot be honored.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(seed, "weights", role, below=2**63))
        network = build_network(name, options, ops)
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if isinstance(network, SparseStructureFlow4DModel | SLatFlow4DModel):
            _silence(network)
        elif isinstance(network, VisionTransformer):
            _place(network)
    return network


def deeper(encoder: columns.ColumnEncoder, seed: int) -> columns.ColumnEncoder:
    """The encoder with a block more on each level, down and up, on its device: it gives the same tokens at first.

    So flows that know its tokens need not begin anew.
    """
    args = replace(encoder.args, num_blocks=encoder.args.num_blocks + 1, num_up_blocks=encoder.args.num_up_blocks + 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(seed, "weights", IMAGE_ENCODER, args.num_blocks, below=2**63))
        made = columns.ColumnEncoder(args)
    for blocks in (*made.down_blocks, *made.up_blocks):
        assert isinstance(blocks, nn.Sequential)
        last = blocks[-1]
        assert isinstance(last, columns.ResidualBlock)
        _zero(last.conv2)
    made.load_state_dict(encoder.state_dict(), strict=False)
    return made.to(encoder.out.weight.device)


@torch.no_grad()
def _silence(flow: SparseStructureFlow4DModel | SLatFlow4DModel) -> None:
    """Lets a flow begin with a velocity of 0 and blocks that pass their rows on: nothing to unlearn."""
    for name, module in flow.named_modules():
        if name.endswith("adaLN_modulation") and isinstance(module, nn.Sequential):
            _zero(module[-1])
        elif isinstance(module, ResidualBlock):
            _zero(module.conv2.conv)
        elif isinstance(module, TimestepEmbedder):
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    nn.init.normal_(parameter, std=0.02)
    _zero(flow.out_layer)


@torch.no_grad()
def _place(encoder: VisionTransformer) -> None:
    """Lets tokens know from the start where they are: embeddings as large as what a patch shows.

    At the usual 0.02 they are lost beside the pixels, and nothing can be learned of where an object's parts are until
    they have grown, by a learning rate a step.
    """
    for embedding in (encoder.pos_embed, encoder.cls_token, encoder.register_tokens):
        nn.init.normal_(embedding)


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
