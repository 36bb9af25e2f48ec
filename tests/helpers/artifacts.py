"""Artifacts that tests of the store write, find and spoil."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ss4d.storage.artifact import root_bytes
from ss4d.storage.codec import ArrayData
from ss4d.storage.refs import ArtifactRef, artifact_key
from ss4d.storage.store import ArtifactStore

REF = ArtifactRef("slat", artifact_key({"stage": "slat", "seed": 1}))


def put(store: ArtifactStore, ref: ArtifactRef = REF, *, value: float = 1, replace: bool = False, **extra: Any) -> None:
    with store.create(ref, replace=replace) as writer:
        writer.write("feats", ArrayData(np.full((3, 2), value, np.float32), ("n", "c")))
        (writer.folder / "note.txt").write_text(str(value))
        writer.commit({"recipe": {"seed": 1}, **extra})


def path_of(store: ArtifactStore, ref: ArtifactRef = REF) -> Path:
    return Path(store.location) / ref.stage / ref.key[:2] / f"{ref.key}.zarr"


def edit_root(store: ArtifactStore, **attributes: Any) -> None:
    path = path_of(store) / "zarr.json"
    before = json.loads(path.read_text())["attributes"]
    del before["digest"]
    path.write_bytes(root_bytes({**before, **attributes}))
