"""What can be asked of a training, and how its steps hang together."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ss4d.stages.ops.backend import Ops
from ss4d.stages.roles import (
    GAUSSIAN_DECODER,
    IMAGE_ENCODER,
    LATENT_ENCODER,
    LATENT_FLOW,
    STRUCTURE_DECODER,
    STRUCTURE_ENCODER,
    STRUCTURE_FLOW,
)
from ss4d.stages.training.clips import ClipStore
from ss4d.stages.training.folder import Start
from ss4d.stages.training.recipe import Recipe

# What each step leaves, by role; the statistics are numbers.
LEAVES: Mapping[str, tuple[str, ...]] = {
    "occupancy": (STRUCTURE_ENCODER, STRUCTURE_DECODER),
    "appearance": (LATENT_ENCODER, GAUSSIAN_DECODER),
    "statistics": (),
    "structure": (STRUCTURE_FLOW, IMAGE_ENCODER),
    "latents": (LATENT_FLOW,),
    "voxels": (STRUCTURE_DECODER, STRUCTURE_FLOW),
    "gaussians": (GAUSSIAN_DECODER, LATENT_FLOW),
}
NEEDS: Mapping[str, tuple[str, ...]] = {
    "occupancy": (),
    "appearance": (),
    "statistics": ("appearance",),
    "structure": ("occupancy",),
    "latents": ("appearance", "statistics", "structure"),
    "voxels": ("occupancy", "structure"),
    "gaussians": ("appearance", "statistics", "latents", "voxels"),
}
FLOWS = ("structure", "latents")
END_TO_END = ("voxels", "gaussians")
ENCODERS_OF: Mapping[str, str] = {"occupancy": STRUCTURE_ENCODER, "appearance": LATENT_ENCODER}


@dataclass(frozen=True, kw_only=True)
class Training:
    """One call of the training command.

    Attributes:
        recipe: what to train and how long.
        out: the folder that becomes a model folder.
        device: to train on.
        ops: kernels for it.
        seed: decides everything random.
        only: one step, or None for all that there are to do.
        deadline: `time.monotonic()` after which to stop, with a checkpoint.
        start: a model to go on from: then its image encoder stays as it is, and so does a decoder that comes without
            its encoder while that learns to speak its language, which the flows know.
        lora: rank of the adapters that the flows learn instead of all their weights, and nothing else learns; needs
            `start`.
        store: records to train on in place of made clips.
        store_digest: what tells these records from others.
        steps: optimizer steps of each step of training, or None for those of the recipe.
        rate: part of the recipe's learning rates to take.
        fresh: make new clips for every step, instead of drawing from a pool.
        workers: processes that make clips.
    """

    recipe: Recipe
    out: Path
    device: torch.device
    ops: Ops
    seed: int = 0
    only: str | None = None
    deadline: float = math.inf
    start: Start | None = None
    lora: int | None = None
    steps: int | None = None
    rate: float = 1.0
    store: ClipStore | None = None
    store_digest: str | None = None
    fresh: bool = False
    workers: int = 1
