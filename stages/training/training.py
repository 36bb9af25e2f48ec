"""What can be asked of a training."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from ss4d.stages.ops.backend import Ops
from ss4d.stages.training.clips import ClipStore
from ss4d.stages.training.folder import Start
from ss4d.stages.training.recipe import TrainingRecipe


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
        start: a model to go on from: its image encoder stays as it is, and so does a decoder that comes without its
            encoder, which learns to code for it.
        lora: rank of the adapters that the flows learn instead of all their weights, and nothing else learns; needs
            `start`.
        store: records to train on in place of made clips.
        store_digest: hash that identifies these records.
        steps: optimizer steps of each step of training, or None for those of the recipe.
        rate: part of the recipe's learning rates to take.
        assets: a folder of animated asset files, some of whose clips are shown beside the procedural ones.
        fresh: make new clips for every step, instead of drawing from a pool.
        workers: processes that make clips.
    """

    recipe: TrainingRecipe
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
    assets: Path | None = None
    fresh: bool = False
    workers: int = 1
