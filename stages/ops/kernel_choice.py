"""Sets of kernels by name, and the choice among them: the one place for runs and for training.

torch: attention, convolution and drawing in torch (and numba on a CPU); every device, with gradients.
varlen: the same, with torch's attention of all groups in one call; CUDA, with gradients.
packages: xformers, spconv and gsplat; CUDA, without gradients.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch

from ss4d.stages.errors import ModelError
from ss4d.stages.ops.backend import TORCH_OPS, Ops
from ss4d.stages.ops.cuda import cuda_ops
from ss4d.stages.ops.device import Device
from ss4d.stages.ops.varlen import varlen_ops

Backend = Literal["torch", "varlen", "packages"]

BACKENDS: Mapping[Backend, Callable[[torch.device], Ops]] = {
    "torch": lambda _: TORCH_OPS,
    "varlen": varlen_ops,
    "packages": lambda _: cuda_ops(),
}


def run_ops(device: Device) -> Ops:
    """The kernels that a run takes on `device`.

    Raises:
        ModelError: if a package is not installed.
    """
    return BACKENDS["packages" if device == "cuda" else "torch"](torch.device(device))


def training_ops(device: Device, say: Callable[[str], None]) -> Ops:
    """The kernels that training takes on `device`; `say` is told where the fast ones cannot be used."""
    if device == "cpu":
        return BACKENDS["torch"](torch.device(device))
    try:
        return BACKENDS["varlen"](torch.device(device))
    except ModelError as error:
        say(f"attention works group by group, which is as right and slower: {error}")
        return BACKENDS["torch"](torch.device(device))
