"""An index rebuilt from the store, which alone tells what is done."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.rebuild import Rebuilt, rebuild_index
from ss4d.pipelines.plan import Recipes
from ss4d.stages.types import silent
from ss4d.storage.codec import ArrayData
from ss4d.storage.place import ROOT
from ss4d.storage.refs import ArtifactRef, artifact_key
from ss4d.storage.store import ArtifactStore
from tests.helpers.dataset_history import (
    KEYS,
    MEASURED,
    ORDER,
    VERSIONS,
    attempt,
    digest,
    entries,
    finish,
    four_clips,
    happen,
    opened,
    states,
)
from tests.pipelines.dataset.test_keys import WEIGHTS


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return four_clips(tmp_path / "set")


def make(dataset: Dataset, clip: str, stages: Sequence[str] = tuple(ORDER)) -> None:
    """Artifacts as the stages leave them, without what matters only to those."""
    store = ArtifactStore(Path(dataset.store))
    recipes = Recipes(KEYS.config, digest(clip), 42, WEIGHTS)
    refs: dict[str, ArtifactRef] = {}
    for stage, implementation in KEYS.stages.items():
        recipe = recipes.of(implementation, refs)
        refs[stage] = ArtifactRef(stage, artifact_key(recipe))
        if stage in stages:
            with store.create(refs[stage]) as writer:
                writer.write("feats", ArrayData(np.zeros(1, np.float32), ("n",)))
                costs = {"seconds": 2.5, "peak_memory": 100, "versions": VERSIONS}
                writer.commit(
                    {"recipe": recipe, "inputs": recipe["inputs"], "measures": MEASURED.get(stage, {}), **costs}
                )


def rebuilt(dataset: Dataset) -> Rebuilt:
    with opened(dataset) as asked:
        return rebuild_index(asked, silent)


def test_the_store_alone_tells_what_is_done(dataset: Dataset) -> None:
    make(dataset, "a")
    make(dataset, "b", ORDER[:4])
    finish(dataset, "a")
    finish(dataset, "b", stages=ORDER[:4])
    before = entries(dataset)
    assert [entry.state for entry in before.values()] == ["done"] * 10 + ["to do"] * 8 + ["unreadable"]
    shutil.rmtree(dataset.events)
    dataset.index.unlink()
    found = rebuilt(dataset)
    assert (found.artifacts.total(), found.clips, found.unlisted, found.unlinked) == (10, 2, 0, 0)
    assert entries(dataset) == {name: replace(entry, worker=None) for name, entry in before.items()}


def test_what_is_not_in_the_store_is_forgotten(dataset: Dataset) -> None:
    make(dataset, "a", ORDER[:3])
    finish(dataset, "a")
    happen(dataset, attempt("b", "slat", "failed"))
    assert states(dataset, "a") == ["done"] * 6
    rebuilt(dataset)
    assert states(dataset, "a") == ["done"] * 3 + ["to do"] * 3
    assert entries(dataset)["a", "segmentation"].worker == "host:1"  # the events still say that
    assert entries(dataset)["b", "slat"].state == "failed"


def test_which_artifacts_are_of_which_clips(dataset: Dataset) -> None:
    """Through others, also through those that were freed; export takes the segmentation as well."""
    make(dataset, "a", [stage for stage in ORDER if stage != "conditioning"])
    make(dataset, "stranger", ORDER[:2])
    make(dataset, "b", ["slat"])
    (ref,) = [ref for ref in ArtifactStore(Path(dataset.store)).refs() if ref.key in KEYS.of([digest("b")])["slat"]]
    found = rebuilt(dataset)
    assert (found.clips, found.unlisted, found.unlinked) == (1, 2, 1)
    (Path(dataset.store) / ref.stage / ref.key[:2] / f"{ref.key}.zarr" / ROOT).write_text("{}")
    found = rebuilt(dataset)
    assert (found.damaged.total(), found.unlinked, found.artifacts.total()) == (1, 0, 7)
