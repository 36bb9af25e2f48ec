"""A dataset opened to look into from Python: its clips, its catalog, and what the stages made of a clip."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

from ss4d.pipelines.dataset.catalog import DONE, TABLE, TO_DO, catalog
from ss4d.pipelines.dataset.keys import Settings, StageKeys, open_keys
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.manifest import Row, read_manifest
from ss4d.pipelines.dataset.opened import open_for
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.inspect.opened import OpenedStage, RecipeRecord, StageRecord
from ss4d.pipelines.inspect.summary import html_table, text_table
from ss4d.storage.manifest import as_table
from ss4d.storage.refs import ArtifactRef, artifact_key
from ss4d.storage.store import open_store

if TYPE_CHECKING:
    import pyarrow  # type: ignore[import-untyped] # the library has no type marker


@dataclass(frozen=True, repr=False)
class OpenedClip:
    """A clip of a dataset: `clip.row` is its row of the manifest, `clip["slat"]["feats"]` an array of a stage."""

    row: Row
    stages: dict[str, OpenedStage]

    def __getitem__(self, stage: str) -> OpenedStage:
        """The named stage.

        Raises:
            ConfigError: if the configuration has none of that name.
        """
        if stage not in self.stages:
            raise ConfigError(f"clip {self.row.id} has no stage {stage!r}; it has {', '.join(self.stages)}")
        return self.stages[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stages)

    @property
    def title(self) -> str:
        """Its id, and what it was made from."""
        return f"{self.row.id}, from {self.row.source}"

    def __repr__(self) -> str:
        return f"{self.title}\n{text_table([stage.summary() for stage in self.stages.values()])}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.title)}</p>{html_table([stage.summary() for stage in self.stages.values()])}"


@dataclass(frozen=True, repr=False)
class DatasetContents:
    """A dataset as one configuration makes it; reads the folder and the store, computes nothing.

    Attributes:
        dataset: the paths of its folder.
        settings: the configuration that it is asked about.
    """

    dataset: Dataset
    settings: Settings

    @cached_property
    def rows(self) -> Sequence[Row]:
        """The manifest: a row for each clip, also for one that cannot be read."""
        return read_manifest(self.dataset)

    @cached_property
    def keys(self) -> StageKeys:
        """The keys of every clip's artifacts."""
        return open_keys(self.settings)[0]

    def catalog(self) -> "pyarrow.Table":
        """What became of each clip at each stage, as `ss4d dataset catalog` writes it.

        Raises:
            StoreError, OSError: if the dataset's index cannot be read.
        """
        with open_for(self.dataset, self.settings) as opened:
            return as_table(TABLE, list(zip(*catalog(opened), strict=True)))

    def __getitem__(self, clip: str) -> OpenedClip:
        """The clip of that id, with all stages of the configuration, stored or not.

        Raises:
            ConfigError: if there is no such clip, or it cannot be read.
        """
        row = next((row for row in self.rows if row.id == clip), None)
        if row is None:
            raise ConfigError(f"{self.dataset.folder} has no clip {clip!r}; its clips are the ids in .rows")
        if row.sha256 is None:
            raise ConfigError(f"clip {clip} cannot be read, so there is nothing of it: {row.error}")
        store = open_store(self.dataset.location())
        stages = {}
        for stage, recipe in self.keys.recipes(row.sha256).items():
            ref = ArtifactRef(stage, artifact_key(recipe))
            state = DONE if store.contains(ref) else TO_DO
            stages[stage] = OpenedStage(
                StageRecord(key=ref.key, state=state, recipe=RecipeRecord.model_validate(recipe)), ref, store
            )
        return OpenedClip(row, stages)

    def __iter__(self) -> Iterator[str]:
        return (row.id for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        words = " ".join(self.settings.words()) or f"--config {self.settings.configuration}"
        return f"{self.dataset.folder}: {len(self)} clips, asked about {words}"
