"""Runs that computed nothing: records and artifacts that belong together."""

from pathlib import Path
from typing import Any

import numpy as np

from ss4d.pipelines.store_notes import note_run
from ss4d.storage.codec import ArrayData
from ss4d.storage.refs import ArtifactRef, artifact_key
from ss4d.storage.store import ArtifactStore

STAGES = ("segmentation", "conditioning", "slat")


def recipe(stage: str, number: int) -> dict[str, Any]:
    parameters = {"number": 0 if stage == STAGES[0] else number}
    return {"stage": stage, "implementation": "any", "revision": 1, "parameters": parameters, "inputs": {}}


def refs_of(number: int) -> dict[str, ArtifactRef]:
    """The artifacts of a run; all runs share the first stage."""
    return {stage: ArtifactRef(stage, artifact_key(recipe(stage, number))) for stage in STAGES}


def note(store: ArtifactStore, run: Path, number: int) -> None:
    """As the run in that folder does when it begins."""
    note_run(store, run, {stage: ref.key for stage, ref in refs_of(number).items()})


def make(store: ArtifactStore, number: int) -> None:
    for ref in refs_of(number).values():
        if not store.contains(ref):
            with store.create(ref) as writer:
                writer.write("feats", ArrayData(np.full((2, 3), number), ("n", "c")))
                writer.commit({})


def refs(*numbers: int, without: str = "") -> set[ArtifactRef]:
    return {ref for number in numbers for stage, ref in refs_of(number).items() if stage != without}
