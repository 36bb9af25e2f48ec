"""The networks of one model folder on one device, built when first asked for and kept as long as the process lives."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.ops.device import resolve_device
from ss4d.stages.ops.kernel_choice import run_ops
from ss4d.stages.weights import load_role, warn_of_left_over


class Loader:
    """Chooses the kernels for a device, and loads networks that run on them.

    Args:
        folder: that describes the networks.
        device: "auto", "cpu" or "cuda".
        precision: of the transformer blocks, a name of torch's.
        left_over: is filled with the tensors that no network took, by the name of their file.

    Raises:
        InputError: there is no such device here.
    """

    def __init__(self, folder: ModelFolder, device: str, precision: str, left_over: dict[str, list[str]]) -> None:
        self.device = resolve_device(device)
        self.ops = run_ops(self.device)
        self._folder, self._left_over = folder, left_over
        self._torso: torch.dtype = getattr(torch, precision)
        self._networks: dict[str, nn.Module] = {}

    def network(self, role: str) -> Any:
        """The network that plays `role`, ready to run.

        Raises:
            ModelError: a file is missing or wrong; names it.
        """
        if role not in self._networks:
            device = torch.device(self.device)
            self._networks[role] = load_role(
                self._folder, role, self.ops, device=device, torso_dtype=self._torso, left_over=self._note_left_over
            )
        return self._networks[role]

    def _note_left_over(self, file: Path, tensors: Sequence[str]) -> None:
        self._left_over[file.name] = list(tensors)
        warn_of_left_over(file, tensors)
