"""What can be asked of a training."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.device import resolve_device
from ss4d.stages.ops.kernel_choice import ANY, OF_NETWORKS, Use, choose_kernels
from ss4d.stages.processors import num_processors
from ss4d.stages.training.clips import ClipStore
from ss4d.stages.training.folder import Start, read_start
from ss4d.stages.training.options import TrainOptions
from ss4d.stages.training.recipe import RECIPES, TrainingRecipe


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
        start: a model to go on from: its image encoder stays as it is unless `only` names its step, and so does a
            decoder that comes without its encoder, which learns to code for it.
        deepen: whether the image encoder of `start` gets a block more on each level before it learns on, in its step
            alone.
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
    deepen: bool = False
    lora: int | None = None
    steps: int | None = None
    rate: float = 1.0
    store: ClipStore | None = None
    store_digest: str | None = None
    assets: Path | None = None
    fresh: bool = False
    workers: int = 1


def training_of(
    options: TrainOptions, open_model: Callable[[str], ModelFolder], say: Callable[[str], None]
) -> Training:
    """What `options` ask for; the minutes they give begin now.

    Args:
        options: as a command was told.
        open_model: gives the model to start from, by what `options.init` calls it.
        say: hears which kernels were chosen.

    Raises:
        InputError: the device is not there.
        ModelError: the model to start from cannot be used.
    """
    began = time.monotonic()
    device = torch.device(resolve_device(options.device))
    kernels = choose_kernels(Use(device=device, dtypes=ANY, gradients=True), parts=(*OF_NETWORKS, "rasterizer"))
    say(kernels.said())
    start = None
    if options.init is not None:
        name = options.init if ":" in options.init else Path(options.init).name
        start = read_start(open_model(options.init), kernels.ops, name)
    return Training(
        recipe=RECIPES[options.recipe],
        out=options.out,
        device=device,
        ops=kernels.ops,
        seed=options.seed,
        only=options.only,
        deadline=math.inf if options.minutes is None else began + 60 * options.minutes,
        start=start,
        deepen=options.deepen,
        lora=options.lora,
        steps=options.steps,
        rate=options.rate,
        assets=options.assets,
        fresh=options.fresh,
        workers=num_processors(),
    )
