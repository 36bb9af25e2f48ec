"""The artifact store: what is written comes back, what is unfinished or unsafe does not, and names cannot escape."""

import math
import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ss4d.storage.artifact import SCHEMA_VERSION
from ss4d.storage.codec import ROWS, ArrayData
from ss4d.storage.errors import DamageError, StoreError
from ss4d.storage.files import owned_name
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore
from tests.helpers.artifacts import REF, edit_root, path_of, put

DTYPES = ["bool", "uint8", "int8", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64"]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


# ---- arrays ----


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(DTYPES).flatmap(lambda d: npst.arrays(d, npst.array_shapes(min_dims=0, min_side=0))))
def test_any_array_comes_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, data: np.ndarray) -> None:
    store = ArtifactStore(tmp_path_factory.mktemp("store"))
    dims = ("n", "c", "x", "y", "z")[: data.ndim]
    with store.create(REF) as writer:
        writer.write("data", ArrayData(data, dims, attributes={"meaning": "anything"}))
        writer.write("small_chunks", ArrayData(data.T, dims[::-1], tuple(2 for _ in dims)))
        writer.commit({})
    artifact = store.open(REF)
    assert artifact.arrays() == ("data", "small_chunks")
    for name, wanted in (("data", data), ("small_chunks", data.T)):
        got = artifact.read(name)
        assert (got.dtype, got.shape) == (data.dtype, wanted.shape)
        assert got.tobytes() == np.ascontiguousarray(wanted).tobytes()
    assert artifact.array("data").attrs["meaning"] == "anything"


def test_chunks_follow_the_first_axis(store: ArtifactStore) -> None:
    with store.create(REF) as writer:
        writer.write("feats", ArrayData(np.arange(3 * ROWS + 5, dtype=np.int32)[:, None], ("n", "c")))
        writer.write("frames", ArrayData(np.zeros((4, 6, 6), np.uint8), ("t", "s", "s")))
        writer.write("confidence", ArrayData(np.zeros(4, np.float32), ("t",)))
        writer.write("offsets", ArrayData(np.arange(5), ("t+1",)))
        writer.write("empty", ArrayData(np.zeros((0, 5), np.int32), ("n", "5")))
        writer.commit({})
    artifact = store.open(REF)
    chunks = {name: artifact.array(name).chunks for name in artifact.arrays()}
    assert chunks == {"feats": (ROWS, 1), "frames": (1, 6, 6), "confidence": (4,), "offsets": (5,), "empty": (1, 5)}
    assert np.array_equal(artifact.array("feats")[ROWS : ROWS + 3, 0], [ROWS, ROWS + 1, ROWS + 2])
    assert artifact.attributes["arrays"]["empty"]["shape"] == [0, 5]


@pytest.mark.parametrize(
    ("data", "dims", "chunks"),
    [
        (np.zeros((2, 2)), ("n",), None),
        (np.zeros(2), ("n",), (0,)),
        (np.zeros(2), ("n",), (1, 1)),
        (np.array([None]), ("n",), None),
        (np.array(["a"]), ("n",), None),
        (np.zeros(2, complex), ("n",), None),
    ],
)
def test_an_array_that_does_not_fit_its_description_is_refused(
    data: np.ndarray, dims: tuple[str, ...], chunks: tuple[int, ...] | None
) -> None:
    with pytest.raises(StoreError, match="an array of shape"):
        ArrayData(data, dims, chunks)


@pytest.mark.parametrize("name", ["", "..", "a/b", "files", "Feats", "feats", "zarr.json"])
def test_array_names_are_plain_and_new(store: ArtifactStore, name: str) -> None:
    with store.create(REF) as writer:
        array = ArrayData(np.zeros(2), ("n",))
        writer.write("feats", array)
        with pytest.raises(StoreError, match="cannot have an array called"):
            writer.write(name, array)


def test_zarr_alone_reads_an_artifact(store: ArtifactStore, recwarn: pytest.WarningsRecorder) -> None:
    coords = np.arange(40, dtype=np.int32).reshape(8, 5)
    with store.create(REF) as writer:
        writer.write("coords", ArrayData(coords, ("n", "axis"), attributes={"meaning": "cells (b, t, x, y, z)"}))
        (writer.folder / "frames").mkdir()
        (writer.folder / "frames" / "a.ply").write_bytes(b"ply")
        writer.commit({"recipe": {"seed": 1}})
    group = zarr.open_group(path_of(store), mode="r", use_consolidated=False)
    array = group["coords"]
    assert isinstance(array, zarr.Array)
    assert np.array_equal(array[...], coords)
    assert array.metadata.to_dict()["dimension_names"] == ("n", "axis")
    assert array.attrs["meaning"] == "cells (b, t, x, y, z)"
    assert group.attrs["complete"] is True
    assert group.attrs["recipe"] == {"seed": 1}
    assert [name for name, _ in group.arrays()] == ["coords"]
    assert sorted(group) == ["coords", "files"]
    assert [str(w.message) for w in recwarn] == []


# ---- completeness ----


def test_nothing_is_there_until_commit(store: ArtifactStore) -> None:
    assert not store.contains(REF)
    with store.create(REF) as writer:
        writer.write("feats", ArrayData(np.zeros((3, 2)), ("n", "c")))
        assert not store.contains(REF)
        assert not path_of(store).exists()
        writer.commit({"seconds": 1.5})
        assert store.contains(REF)
        with pytest.raises(StoreError, match="committed already"):
            writer.commit({})
        with pytest.raises(StoreError, match="committed already"):
            writer.write("more", ArrayData(np.zeros(1), ("n",)))
    assert os.listdir(Path(store.location, ".staging")) == []
    attributes = ArtifactStore(Path(store.location)).open(REF).attributes
    assert (attributes["stage"], attributes["key"], attributes["seconds"]) == (REF.stage, REF.key, 1.5)
    assert attributes["schema"] == SCHEMA_VERSION
    assert len((described := attributes["arrays"]["feats"]).pop("sha256")) == 64
    assert described == {"shape": [3, 2], "dtype": "float64", "dims": ["n", "c"], "chunks": [3, 2]}


def test_leaving_without_commit_leaves_nothing(store: ArtifactStore) -> None:
    with store.create(REF) as writer:
        writer.write("feats", ArrayData(np.zeros(2), ("n",)))
    with pytest.raises(StoreError, match=r"called '\.\.'"), store.create(REF) as writer:
        writer.write("..", ArrayData(np.zeros(2), ("n",)))
    with pytest.raises(ValueError, match="JSON compliant"), store.create(REF) as writer:
        writer.commit({"seconds": math.nan})
    with pytest.raises(StoreError, match="attributes called key"), store.create(REF) as writer:
        writer.commit({"key": "0", "stage": REF.stage})
    assert os.listdir(Path(store.location, ".staging")) == []
    with pytest.raises(StoreError, match=f"slat/{REF.key} is missing in .* a run with --force slat makes it again"):
        store.open(REF)


@pytest.mark.parametrize("root", [None, "", "{", "[]", '{"attributes": {"complete": false}}', '{"attributes": 3}'])
def test_a_damaged_folder_counts_as_absent_and_is_replaced(store: ArtifactStore, root: str | None) -> None:
    folder = path_of(store)
    (folder / "feats").mkdir(parents=True)
    if root is not None:
        (folder / "zarr.json").write_text(root)
    assert not store.contains(REF)
    with pytest.raises(StoreError, match="was never finished"):
        store.open(REF)
    put(store)
    assert store.open(REF).read("feats").tolist() == [[1, 1]] * 3
    assert os.listdir(Path(store.location, ".staging")) == []


def test_a_file_or_a_link_in_the_place_of_an_artifact_is_replaced(store: ArtifactStore, tmp_path: Path) -> None:
    put(store)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(path_of(store), elsewhere)
    path_of(store).symlink_to(elsewhere)
    assert not store.contains(REF)
    put(store, value=2)
    assert store.open(REF).read("feats")[0, 0] == 2
    assert (elsewhere / "zarr.json").exists()
    store.remove(REF)
    path_of(store).write_text("not a folder")
    assert not store.contains(REF)
    put(store, value=3)
    assert store.open(REF).read("feats")[0, 0] == 3
    assert os.listdir(Path(store.location, ".staging")) == []


def test_without_the_mark_a_whole_artifact_counts_as_absent(store: ArtifactStore) -> None:
    put(store)
    edit_root(store, complete=False)
    assert not store.contains(REF)


def test_an_artifact_under_a_foreign_name_is_not_accepted(store: ArtifactStore) -> None:
    put(store)
    other = ArtifactRef("slat", "0" * 64)
    path_of(store, other).parent.mkdir(parents=True)
    path_of(store).rename(path_of(store, other))
    assert not store.contains(other)


def test_the_first_of_two_writers_wins(store: ArtifactStore) -> None:
    with store.create(REF) as first:
        first.write("feats", ArrayData(np.full(2, 1), ("n",)))
        put(store, value=2)
        first.commit({})
    assert store.open(REF).read("feats")[0, 0] == 2
    assert os.listdir(Path(store.location, ".staging")) == []


def test_replace_keeps_the_old_until_the_new_is_in_place(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, value=1)
    with store.create(REF, replace=True) as writer:
        writer.write("feats", ArrayData(np.full(2, 2), ("n",)))
        assert store.open(REF).read("feats")[0, 0] == 1
    assert store.open(REF).read("feats")[0, 0] == 1

    rename = Path.rename

    def fail_to_place(source: Path, target: Path) -> Path:
        if target == path_of(store) and (source / "files" / "note.txt").read_text() == "3" and not target.exists():
            raise OSError(5, "Input/output error")
        return rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail_to_place)
        with pytest.raises(OSError, match="Input/output error"):
            put(store, value=3, replace=True)
    assert store.open(REF).read("feats")[0, 0] == 1

    put(store, value=4, replace=True)
    assert store.open(REF).read("feats")[0, 0] == 4
    assert os.listdir(Path(store.location, ".staging")) == []


def test_an_artifact_deleted_while_it_is_read_counts_as_damaged(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another run replaces it: no other error may come of it."""
    put(store)
    artifact = store.open(REF)
    scandir, scanned = os.scandir, []

    def scan_while_it_goes(folder: str | Path) -> Any:
        with scandir(folder) as entries:
            found = list(entries)
        scanned.append(folder)
        if len(scanned) == 2:  # the array was opened, and its chunks are counted
            shutil.rmtree(path_of(store))
        return nullcontext(found)

    with monkeypatch.context() as patch:
        patch.setattr("ss4d.storage.folder.os.scandir", scan_while_it_goes)
        with pytest.raises(DamageError, match="lacks chunks"):
            artifact.array("feats")


def test_remove(store: ArtifactStore) -> None:
    store.remove(REF)
    put(store)
    store.remove(REF)
    assert not store.contains(REF)
    assert not path_of(store).exists()
    assert os.listdir(Path(store.location, ".staging")) == []


def test_a_newer_schema_is_refused(store: ArtifactStore) -> None:
    put(store)
    edit_root(store, schema=SCHEMA_VERSION + 1)
    for use in (store.contains, store.open, lambda ref: put(store, ref), lambda ref: put(store, ref, replace=True)):
        with pytest.raises(StoreError, match=r"newer version .* upgrade"):
            use(REF)
    assert os.listdir(Path(store.location, ".staging")) == []


# ---- damage ----


def test_any_flipped_byte_of_a_chunk_is_found(store: ArtifactStore) -> None:
    rng = np.random.default_rng(0)
    with store.create(REF) as writer:
        writer.write("feats", ArrayData(rng.standard_normal((5, 3)).astype(np.float32), ("n", "c")))
        writer.write("coords", ArrayData(rng.integers(0, 9, (5, 5)), ("n", "axis")))
        writer.commit({})
    for name in ("feats", "coords"):
        chunk = path_of(store) / name / "c.0.0"
        good = chunk.read_bytes()
        for position in range(len(good)):
            chunk.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
            with pytest.raises(StoreError, match=r"damaged.*ss4d verify \S+ --repair"):
                store.open(REF).read(name)
        chunk.write_bytes(good)
        store.open(REF).read(name)


def test_missing_parts_are_found(store: ArtifactStore) -> None:
    with store.create(REF) as writer:
        writer.write("zeros", ArrayData(np.zeros((3, 2)), ("t", "c")))
        writer.commit({})
    description = path_of(store) / "zeros" / "zarr.json"
    text = description.read_text()
    with pytest.raises(StoreError, match="has no array 'feats'; it has zeros"):
        store.open(REF).read("feats")
    description.write_text(text.replace('"float64"', '"float32"'))
    with pytest.raises(StoreError, match=r"zeros: it is float32 .*, not float64"):
        store.open(REF).read("zeros")
    for broken in ("", "{}", "[]"):
        description.write_text(broken)
        with pytest.raises(StoreError, match="damaged"):
            store.open(REF).read("zeros")
    description.write_text(text)
    (path_of(store) / "zeros" / "c.1.0").unlink()
    with pytest.raises(StoreError, match="lacks chunks: it has 2 of 3"):
        store.open(REF).array("zeros")
    shutil.rmtree(path_of(store) / "zeros")
    with pytest.raises(StoreError, match="damaged"):
        store.open(REF).array("zeros")


def test_a_staging_folder_emptied_by_others_is_not_committed(store: ArtifactStore) -> None:
    with store.create(REF) as writer:
        writer.write("feats", ArrayData(np.zeros((3, 2)), ("t", "c")))
        next(Path(store.location).glob(".staging/*/feats/c.1.0")).unlink()
        with pytest.raises(StoreError, match=r"lost parts of feats .*it has 2 of 3"):
            writer.commit({})
    assert not store.contains(REF)


# ---- opening ----


def test_opening_sweeps_the_dead_and_spares_the_living(store: ArtifactStore) -> None:
    random, started, _, host = owned_name().split("-", 3)
    dead = Path(store.location, ".staging") / f"{random}-{started}-{2**22 + 1}-{host}"
    with store.create(REF) as writer:
        writer.write("feats", ArrayData(np.zeros(2), ("n",)))
        dead.mkdir()
        (dead / "rest").write_text("x")
        ArtifactStore(Path(store.location))
        assert not dead.exists()
        writer.commit({})
    assert store.contains(REF)
