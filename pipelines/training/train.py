"""Trains a model as `ss4d train` does: on records or on clips made on the way, from scratch or from any model."""

import json
import math
import time
from collections.abc import Callable, Mapping
from hashlib import blake2b

import torch

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.hub import hub_file, model_path
from ss4d.pipelines.training.records import RecordError, Records, open_records
from ss4d.pipelines.training.train_options import TrainOptions
from ss4d.stages.data.clip import TrainingClip
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.device import resolve_device
from ss4d.stages.ops.kernel_choice import training_ops
from ss4d.stages.processors import num_processors
from ss4d.stages.training.folder import Start, read_encoders
from ss4d.stages.training.recipe import RECIPES
from ss4d.stages.training.run import run_training
from ss4d.stages.training.tiny import PUBLISHED
from ss4d.stages.training.training import Training
from ss4d.stages.weights import load_role


class GoodRecords:
    """Records to train on; in the place of one that cannot be used the next one is read."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def digest(self) -> str:
        """A hash of the records' names and keys; a key stands for a clip's content."""
        named = [[row.id, row.key] for row in self._records.rows]
        return blake2b(json.dumps(named).encode(), digest_size=16).hexdigest()

    def read(self, index: int) -> TrainingClip:
        """The clip at `index`, or the first after it that can be used.

        Raises:
            RecordError: if none can be used.
        """
        for following in range(index, index + len(self)):
            if (clip := self._records.read_or_skip(following % len(self))) is not None:
                return clip
        raise RecordError(f"none of {len(self)} records can be used; the first: {next(iter(self.skipped.values()))}")

    @property
    def skipped(self) -> Mapping[str, str]:
        """Why each record that was skipped so far cannot be used, by its id."""
        return self._records.skipped


def train_model(options: TrainOptions, say: Callable[[str], None]) -> bool:
    """Does what is left of a training; gives whether all is done.

    Raises:
        ConfigError: an option names what there is not.
        InputError: options do not fit each other or the folder.
        ModelError: the model to start from cannot be used.
        StoreError: the data folder cannot be used.
        TrainingError: a loss stopped being a number.
    """
    if options.recipe not in RECIPES:
        raise ConfigError(f"there is no recipe {options.recipe!r}; take one of {', '.join(RECIPES)}")
    deadline = math.inf if options.minutes is None else time.monotonic() + 60 * options.minutes
    records = None if options.data is None else GoodRecords(open_records(options.data, "train"))
    device = resolve_device(options.device)
    ops = training_ops(device, say)
    training = Training(
        recipe=RECIPES[options.recipe],
        out=options.out,
        device=torch.device(device),
        ops=ops,
        seed=options.seed,
        only=options.only,
        deadline=deadline,
        start=None if options.init is None else start_from(options.init, ops),
        lora=options.lora,
        steps=options.steps,
        rate=options.rate,
        store=records,
        store_digest=None if records is None else records.digest(),
        assets=options.assets,
        fresh=options.fresh,
        workers=num_processors(),
    )
    try:
        return run_training(training, say)
    finally:
        if records is not None and records.skipped:
            say(f"{len(records.skipped)} of {len(records)} records could not be used: {', '.join(records.skipped)}")


def start_from(location: str, ops: Ops) -> Start:
    """The model at `location` ("bundled:NAME", "hub:ORG/NAME" or a folder), ready to be trained further.

    Raises:
        ModelError: it cannot be used; the sentence names the file at fault.
    """
    path = model_path(location)
    folder = ModelFolder.open(path, hub_file)
    cpu = torch.device("cpu")
    networks = {role: load_role(folder, role, ops, device=cpu).train() for role in PUBLISHED}
    for network in networks.values():
        network.requires_grad_(True)
    return Start(
        networks={**networks, **read_encoders(path, ops)},
        normalization=folder.slat_normalization,
        structure_sampler=folder.structure_sampler,
        slat_sampler=folder.slat_sampler,
        origin=location if ":" in location else path.name,
    )
