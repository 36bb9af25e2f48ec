"""What a training has so far: what its steps left in their folders, and what it started from."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

from ss4d.stages.roles import GAUSSIAN_DECODER, IMAGE_ENCODER, LATENT_ENCODER
from ss4d.stages.sampler_params import LatentNormalization, SamplerParams
from ss4d.stages.training.folder import read_network, saved_files
from ss4d.stages.training.fresh import fresh_network
from ss4d.stages.training.tiny import SLAT_SAMPLER, STRUCTURE_SAMPLER
from ss4d.stages.training.training import Training
from ss4d.stages.types import Axes


class Results:
    """The networks and numbers of a training.

    Args:
        training: what was asked for.
        leaves: the roles of the networks that each step leaves, by the step's name and in the order of the steps.

    Attributes:
        training: what was asked for.
        folder: of all steps.
    """

    def __init__(self, training: Training, leaves: Mapping[str, Sequence[str]]) -> None:
        self.training, self._leaves = training, leaves
        self.folder = training.out / "training"

    def path(self, step: str) -> Path:
        """The folder of what a step leaves, which is there once the step is done."""
        return self.folder / step / "result"

    def has(self, step: str) -> bool:
        """Whether what a step leaves is there."""
        start = self.training.start
        return self.path(step).exists() or (
            start is not None and all(role in start.networks for role in self._leaves[step])
        )

    def known(self, role: str) -> bool:
        """Whether the network was trained: by a step, or before."""
        left = any(role in roles and self.path(step).exists() for step, roles in self._leaves.items())
        return left or (self.training.start is not None and role in self.training.start.networks)

    def network(self, role: str, step: str | None = None) -> Any:
        """The network on the device: as the steps before `step` left it, or all; else that of the start, or a new one.

        Several calls give several copies.
        """
        training = self.training
        steps = list(self._leaves)
        before = steps if step is None else steps[: steps.index(step)]
        for earlier in reversed(before):
            if role in self._leaves[earlier] and (files := saved_files(self.path(earlier), role)):
                return read_network(files, training.ops).to(training.device)
        if training.start is not None and role in training.start.networks:
            return deepcopy(training.start.networks[role]).to(training.device)
        name, options = training.recipe.networks[role]
        if role == LATENT_ENCODER:
            options = {**options, "resolution": self.option(GAUSSIAN_DECODER, "resolution")}
        return fresh_network(role, name, options, training.ops, training.seed).to(training.device)

    def axes(self) -> Axes:
        """Those of the grid, which the image encoder decides."""
        axes: Axes = self.network(IMAGE_ENCODER, "images").axes
        return axes

    def option(self, role: str, name: str) -> int:
        """An option of a network, of the model to start from if it has that network."""
        training = self.training
        known = {} if training.start is None else training.start.networks
        return cast(int, getattr(known[role].args, name) if role in known else training.recipe.networks[role][1][name])

    def normalization(self) -> LatentNormalization:
        """Of the structured latents, as it was measured, or that of the model to start from."""
        file = self.path("statistics") / "result.json"
        if not file.exists():
            assert self.training.start is not None, "the statistics are needed before"
            return self.training.start.normalization
        numbers = json.loads(file.read_text())["slat_normalization"]
        return LatentNormalization(mean=tuple(numbers["mean"]), std=tuple(numbers["std"]))

    def samplers(self) -> tuple[SamplerParams, SamplerParams]:
        """Of structures and of structured latents: those of the model to start from, or the recipe's."""
        start = self.training.start
        return (STRUCTURE_SAMPLER, SLAT_SAMPLER) if start is None else (start.structure_sampler, start.slat_sampler)
