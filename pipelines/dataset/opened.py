"""A dataset opened for one configuration: its manifest, its index, and the keys of its artifacts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ss4d.pipelines.dataset.index import Index, open_index
from ss4d.pipelines.dataset.keys import Settings, StageKeys, open_keys
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.manifest import Row, read_manifest


@dataclass(frozen=True)
class OpenedDataset:
    """A dataset and a configuration, with all that is needed to ask what there is of it."""

    dataset: Dataset
    settings: Settings
    keys: StageKeys
    rows: Sequence[Row]
    index: Index

    @property
    def known(self) -> list[Row]:
        """The rows of the clips that could be read once, now or earlier; only those have keys."""
        return [row for row in self.rows if row.sha256 is not None]


@contextmanager
def open_for(dataset: Dataset, settings: Settings) -> Iterator[OpenedDataset]:
    """Opens a dataset for a configuration.

    Args:
        dataset: to open.
        settings: of the configuration, see `ss4d.pipelines.dataset.keys.choose_settings`.

    Raises:
        ConfigError, InputError, ModelError, PluginError, StoreError: one sentence each, see `ss4d.pipelines.errors`.
    """
    rows = read_manifest(dataset)
    keys, _ = open_keys(settings)
    with open_index(dataset) as index:
        yield OpenedDataset(dataset, settings, keys, rows, index)
