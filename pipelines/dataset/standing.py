"""A dataset as it stands for one configuration: its manifest, its index, and the keys to ask them with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.dataset.index import Index, open_index
from pipelines.dataset.keys import Settings, StageKeys, last_settings, open_keys
from pipelines.dataset.layout import Dataset, open_dataset
from pipelines.dataset.manifest import Row, read_manifest


@dataclass(frozen=True)
class Standing:
    """What is asked about, and what answers."""

    dataset: Dataset
    settings: Settings
    keys: StageKeys
    rows: Sequence[Row]
    index: Index

    @property
    def readable(self) -> list[Row]:
        """The rows of the clips that can be read, which alone have keys."""
        return [row for row in self.rows if row.error is None]


@contextmanager
def open_standing(folder: Path, settings: Settings | None = None) -> Iterator[Standing]:
    """Opens a dataset to ask about a configuration.

    Args:
        folder: of the dataset.
        settings: which one; None for that of the last run, or the default if there was none.

    Raises:
        ConfigError, InputError, ModelError, PluginError, StoreError: one sentence each, see `pipelines.errors`.
    """
    dataset = open_dataset(folder)
    said = settings or last_settings(dataset) or Settings()
    rows = read_manifest(dataset)
    keys, _ = open_keys(said)
    with open_index(dataset) as index:
        yield Standing(dataset, said, keys, rows, index)
