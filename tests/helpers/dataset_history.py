"""A dataset of four clips with a history that tests write: attempts, and the states that follow from them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ss4d.pipelines.config import load_config
from ss4d.pipelines.dataset.catalog import COLUMNS, Entry, write_catalog
from ss4d.pipelines.dataset.events import Attempt, EventWriter
from ss4d.pipelines.dataset.index import open_index
from ss4d.pipelines.dataset.keys import Settings, StageKeys
from ss4d.pipelines.dataset.layout import Dataset, create_dataset
from ss4d.pipelines.dataset.manifest import Row, read_manifest
from ss4d.pipelines.dataset.opened import OpenedDataset
from ss4d.storage.manifest import read_columns, write_rows
from ss4d.storage.refs import artifact_key
from tests.helpers.unfitted import OFF
from tests.pipelines.dataset.test_keys import WEIGHTS

KEYS = StageKeys(load_config("tiny", OFF), WEIGHTS, 42)
ORDER = list(KEYS.stages)
VERSIONS = {"python": "3.11", "torch": "2"}
MEASURED = {"sparse_structure": {"voxels": 700}, "segmentation": {"foreground": 0.25, "frames": 4}}
MEASURED |= {"decoding": {"gaussians": 9000}}


def digest(name: str) -> str:
    return artifact_key({"content": name})


def row(name: str, **changes: Any) -> Row:
    plain = {"sha256": digest(name), "bytes": 1, "modified": 1, "frames": 4, "width": 64, "height": 48, "fps": 24.0}
    return Row(**{"id": name, "source": f"/videos/{name}.mp4", "tags": "", "error": None, **plain, **changes})


def four_clips(folder: Path) -> Dataset:
    """Clips a, b and c, and one that cannot be read."""
    made = create_dataset(folder)
    rows = [row("a", tags="bird,black", frames=40), row("b", tags="bird"), row("c", width=128)]
    write_rows(made.manifest, Row, [*rows, row("bad", sha256=None, frames=0, error="bad.mp4 is damaged")])
    return made


@contextmanager
def opened(dataset: Dataset, keys: StageKeys = KEYS) -> Iterator[OpenedDataset]:
    with open_index(dataset) as index:
        yield OpenedDataset(dataset, Settings(), keys, read_manifest(dataset), index)


def attempt(clip: str, stage: str, state: str = "done", at: int = 0, keys: StageKeys = KEYS, **more: Any) -> Attempt:
    """One at second `at`."""
    given = {
        "key": keys.of([digest(clip)])[stage][0],
        "time": f"2026-01-01T00:00:{at:02}.000+00:00",
        "seconds": 2.5,
        "peak_memory": 100,
        "worker": "host:1",
        **({} if state != "failed" else {"error": "InputError", "message": "no", "cause": "input"}),
        "measures": MEASURED.get(stage, {}) if state in ("done", "reused") else {},
    }
    return Attempt(clip=clip, stage=stage, state=state, **{**given, **more})


def happen(dataset: Dataset, *attempts: Attempt) -> None:
    """Writes them as one process."""
    with EventWriter(dataset.events, VERSIONS) as events:
        for given in attempts:
            events.write(replace(given, versions=events.versions))


def finish(dataset: Dataset, *clips: str, stages: Sequence[str] = tuple(ORDER)) -> None:
    happen(dataset, *(attempt(clip, stage) for clip in clips for stage in stages))


def entries(dataset: Dataset, keys: StageKeys = KEYS) -> dict[tuple[str, str], Entry]:
    with opened(dataset, keys) as asked:
        write_catalog(asked)
    return {(entry.id, entry.stage): entry for entry in read_catalog(dataset)}


def read_catalog(dataset: Dataset) -> list[Entry]:
    """The rows of the catalog as it was last written."""
    columns = read_columns(dataset.catalog, tuple(COLUMNS))
    return [Entry.of(row) for row in zip(*columns.values(), strict=True)]


def states(dataset: Dataset, clip: str, keys: StageKeys = KEYS) -> list[str]:
    return [entry.state for (name, _), entry in entries(dataset, keys).items() if name == clip]
