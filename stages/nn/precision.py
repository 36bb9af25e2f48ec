"""Turn the torso of a network to another precision; norms are left in float32, they compute in it."""

import torch
from torch import nn

from ss4d.stages.nn.resample import Kernel


def cast_weights(torso: nn.Module, dtype: torch.dtype) -> None:
    """Turns the weights of every linear layer and convolution inside `torso` to `dtype`, in place."""
    for module in torso.modules():
        if isinstance(module, nn.Linear | nn.Conv3d | Kernel):
            module.to(dtype)
