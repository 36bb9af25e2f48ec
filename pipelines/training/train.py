"""Trains a model as `ss4d train` does: on records or on clips made on the way, from scratch or from any model."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import blake2b

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.hub import Hub
from ss4d.pipelines.training.records import RecordError, Records, open_records
from ss4d.pipelines.training.train_options import DataTrainOptions
from ss4d.stages.data.clip import TrainingClip
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.training.recipe import RECIPES
from ss4d.stages.training.run import run_training
from ss4d.stages.training.training import Training, training_of


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


def train_model(options: DataTrainOptions, say: Callable[[str], None]) -> bool:
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
    records = None if options.data is None else GoodRecords(open_records(options.data, "train"))
    training = opened(options, say)
    if records is not None:
        training = replace(training, store=records, store_digest=records.digest())
    try:
        return run_training(training, say)
    finally:
        if records is not None and records.skipped:
            say(f"{len(records.skipped)} of {len(records)} records could not be used: {', '.join(records.skipped)}")


def opened(options: DataTrainOptions, say: Callable[[str], None]) -> Training:
    """What the options ask for; a model of the hub that it starts from is named with its commit."""
    hub = Hub()
    training = training_of(options, lambda location: ModelFolder.read(hub.model(location), hub.repository), say)
    if training.start is None or not hub.commits:
        return training
    commits = ", ".join(f"{name} at {commit}" for name, commit in hub.commits.items())
    return replace(training, start=replace(training.start, origin=f"{training.start.origin} ({commits})"))
