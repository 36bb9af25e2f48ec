"""What the store is trusted for: any flipped byte is found, older stores are read, and no file is ever a pickle."""

import ast
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from ss4d.storage import folder
from ss4d.storage.artifact import SCHEMA_VERSION, group, root_bytes
from ss4d.storage.codec import ArrayData
from ss4d.storage.errors import NewerError
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore
from ss4d.storage.verify import problems, verify
from tests.helpers.places import ROOT

REF, OTHER = ArtifactRef("slat", "0" * 64), ArtifactRef("slat", "1" * 64)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    store = ArtifactStore(tmp_path / "store")
    put(store)
    return store


def put(store: ArtifactStore, ref: ArtifactRef = REF, *, value: float = 1, replace: bool = False) -> None:
    with store.create(ref, replace=replace) as writer:
        writer.write("feats", ArrayData(np.full((2, 3), value), ("t", "c"), attributes={"meaning": "é"}))
        (writer.folder / "a.txt").write_text("hello")
        writer.commit({"recipe": {"seed": 1.5}})


def path_of(store: ArtifactStore, ref: ArtifactRef = REF) -> Path:
    return Path(store.location, ref.stage, ref.key[:2], f"{ref.key}.zarr")


def test_a_flipped_byte_in_any_file_is_found(store: ArtifactStore) -> None:
    files = [path for path in sorted(path_of(store).rglob("*")) if path.is_file()]
    assert len(files) == 6
    for path in files:
        good = path.read_bytes()
        step = 1 if len(good) < 100 else 9
        for position in range(0, len(good), step):
            flipped = good[position] ^ (1 << position % 8)
            path.write_bytes(good[:position] + bytes([flipped]) + good[position + 1 :])
            assert problems(store, REF), f"{path.name}, byte {position}"
        path.write_bytes(good)
    assert problems(store, REF) == []


def as_schema_1(store: ArtifactStore) -> None:
    """Turns the artifact into what version 1 wrote: no digests but those of plain files."""
    path = path_of(store) / "zarr.json"
    attributes = json.loads(path.read_text())["attributes"]
    del attributes["digest"]
    del attributes["arrays"]["feats"]["sha256"]
    path.write_text(json.dumps(group({**attributes, "schema": 1}), indent=2) + "\n")


def test_an_older_store_is_read_and_checked(store: ArtifactStore) -> None:
    as_schema_1(store)
    artifact = store.open(REF)
    assert artifact.read("feats").tolist() == [[1, 1, 1]] * 2
    assert artifact.files()["a.txt"].read_text() == "hello"
    assert verify(store, lambda *_: None).damaged == {}
    for name in ("feats/c.0.0", "files/a.txt"):
        path = path_of(store) / name
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        assert problems(store, REF)
        path.write_bytes(good)


def test_a_digest_cannot_be_taken_away(store: ArtifactStore) -> None:
    """Neither by an older version's number nor by damage to the digest's own name."""
    path = path_of(store) / "zarr.json"
    text = path.read_text()
    for before, after in (('"schema": 2', '"schema": 1'), ('"digest"', '"digesu"'), ('"schema": 2', '"schema": 3')):
        path.write_text(text.replace(before, after))
        assert not store.contains(REF)
    put(store, value=2)
    assert store.open(REF).read("feats")[0, 0] == 2, "made again"


def test_a_newer_artifact_is_reported_and_left_alone(store: ArtifactStore) -> None:
    put(store, OTHER)
    path = path_of(store) / "zarr.json"
    attributes = json.loads(path.read_text())["attributes"]
    del attributes["digest"]
    path.write_bytes(root_bytes({**attributes, "schema": SCHEMA_VERSION + 1}))
    with pytest.raises(NewerError, match=r"newer version .* upgrade"):
        store.open(REF)
    findings = verify(store, lambda *_: None)
    assert (list(findings.unreadable), findings.damaged, findings.num_artifacts) == ([REF], {}, 2)


@pytest.mark.parametrize("after_renames", [1, 2])
def test_a_replacement_killed_between_its_renames_loses_nothing(store: ArtifactStore, after_renames: int) -> None:
    new = new_folder(store)
    child = os.fork()
    if child == 0:  # a process that dies right after the old content is aside, or the new in its place
        renamed = 0
        rename = Path.rename

        def counting(source: Path, target: Path) -> Path:
            nonlocal renamed
            result = rename(source, target)
            renamed += "slat" in (source.parts + target.parts)
            if renamed == after_renames:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        Path.rename = counting  # type: ignore[method-assign, assignment]  # in the child only
        try:
            folder.FolderPlace(Path(store.location)).publish(REF, new, lambda: False)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert path_of(store).exists() == (after_renames == 2)
    opened = ArtifactStore(Path(store.location))
    assert problems(opened, REF) == []
    assert opened.open(REF).read("feats")[0, 0] == after_renames
    assert os.listdir(Path(store.location, ".replaced")) == []


def new_folder(store: ArtifactStore) -> Path:
    """A finished artifact, beside the store, with other content than the one in it."""
    beside = ArtifactStore(Path(store.location).with_name("beside"))
    put(beside, value=2)
    return path_of(beside).rename(Path(store.location).with_name("new"))


UNPICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
SOURCES = sorted(
    path
    for top in ("cli", "pipelines", "storage", "stages", "configs", "examples")
    for path in (ROOT / top).rglob("*.py")
)


def test_no_pickle_in_the_program() -> None:
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            match node:
                case ast.Import(names=names) if UNPICKLERS & {alias.name.split(".")[0] for alias in names}:
                    found.append(f"{where} imports a pickler")
                case ast.ImportFrom(module=str(module)) if module.split(".")[0] in UNPICKLERS:
                    found.append(f"{where} imports a pickler")
                case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save")):
                    found.append(f"{where} calls torch.load or torch.save")
                case ast.Attribute(attr="read_pickle" | "to_pickle"):
                    found.append(f"{where} reads a pickle")
                case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                    found.append(f"{where} allows pickles")
    assert SOURCES
    assert found == []
