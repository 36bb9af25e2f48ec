"""Low-rank adapters: a linear layer's weight W stays, and W + B A is what it computes with (A (r, in), B (out, r))."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ss4d.stages.errors import InputError


class LowRank(nn.Module):
    """Adds B A to a weight; nothing at first, because B starts as zeros."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        out, into = weight.shape
        self.down = nn.Parameter(torch.randn(rank, into, device=weight.device) / into**0.5)
        self.up = nn.Parameter(torch.zeros(out, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def add_adapters(network: nn.Module, rank: int) -> None:
    """Freezes a network, and adapts the linear layers of attention and feed-forward in its blocks.

    Raises:
        InputError: if it has none.
    """
    network.requires_grad_(False)
    for layer in _layers(network):
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))
    if not _adapted(network):
        raise InputError(f"{type(network).__name__} has no transformer blocks, so nothing to put adapters on")


def merge_adapters(network: nn.Module) -> None:
    """Makes W + B A the weights: the network is an ordinary one again and computes the same."""
    for layer in _adapted(network):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _layers(network: nn.Module) -> list[nn.Linear]:
    return [
        module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("blocks.") and "adaLN_modulation" not in name
    ]


def _adapted(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if parametrize.is_parametrized(module, "weight")]
