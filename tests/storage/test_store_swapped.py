"""Chunks that are whole by themselves, but in another's place: found when they are read, with all that came of them."""

from pathlib import Path

import numpy as np
import pytest

from ss4d.storage.artifact import CHECKED
from ss4d.storage.codec import ArrayData
from ss4d.storage.errors import DamageError
from ss4d.storage.refs import ArtifactRef, artifact_key
from ss4d.storage.store import ArtifactStore
from ss4d.storage.verify import verify


def ref(stage: str) -> ArtifactRef:
    return ArtifactRef(stage, artifact_key({"stage": stage}))


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def make(store: ArtifactStore, stage: str, *inputs: str, checked: bool = True) -> None:
    with store.create(ref(stage)) as writer:
        writer.write("feats", ArrayData(np.arange(12, dtype=np.float32).reshape(4, 3), ("t", "c")))
        made_from = {"inputs": {name: ref(name).key for name in inputs}}
        writer.commit(made_from | ({CHECKED: True} if checked else {}))


def swap(store: ArtifactStore, stage: str) -> None:
    folder = Path(store.location, stage, ref(stage).key[:2], f"{ref(stage).key}.zarr", "feats")
    first, second, aside = folder / "c.1.0", folder / "c.2.0", folder.parent.parent / "aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def test_swapped_chunks_are_found_when_they_are_read(store: ArtifactStore) -> None:
    make(store, "slat")
    before = store.open(ref("slat")).read("feats")
    swap(store, "slat")
    artifact = store.open(ref("slat"))
    assert sorted(artifact.array("feats")[:, 0]) == sorted(before[:, 0]), "every chunk is whole by itself"
    with pytest.raises(DamageError, match=r"feats: its chunks are not those that it was stored with; .*--repair"):
        artifact.read("feats")


def test_what_may_have_come_of_them_is_named(store: ArtifactStore) -> None:
    make(store, "slat")
    make(store, "decoding", "slat", checked=False)
    make(store, "export", "decoding")
    make(store, "later", "slat")  # which would have found it
    make(store, "other", "segmentation", checked=False)
    assert verify(store, lambda *_: None).suspect == {}
    swap(store, "slat")
    findings = verify(store, lambda *_: None)
    assert set(findings.damaged) == {ref("slat")}
    assert findings.suspect == {ref("decoding"): ref("slat"), ref("export"): ref("decoding")}


def test_damage_that_no_reader_overlooks_spoils_nothing_else(store: ArtifactStore) -> None:
    make(store, "slat")
    make(store, "decoding", "slat", checked=False)
    folder = Path(store.location, "slat", ref("slat").key[:2], f"{ref('slat').key}.zarr", "feats")
    (folder / "c.1.0").write_bytes(b"damaged")
    findings = verify(store, lambda *_: None)
    assert (set(findings.damaged), findings.suspect) == ({ref("slat")}, {})
