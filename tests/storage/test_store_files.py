"""What the store is built of: keys and references, whole JSON files, links, and the owners of temporary folders."""

import fcntl
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ss4d.storage import files
from ss4d.storage.errors import StoreError
from ss4d.storage.files import (
    copy_file,
    is_copy,
    is_orphan,
    leads_out,
    link_or_copy,
    owned_name,
    read_json,
    read_plain,
    write_json,
)
from ss4d.storage.refs import ArtifactRef, artifact_key

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(), JSON, min_size=2))
def test_key_depends_on_content_and_not_on_order(recipe: dict[str, Any]) -> None:
    shuffled = dict(reversed(recipe.items()))
    assert artifact_key(recipe) == artifact_key(shuffled) == artifact_key(json.loads(json.dumps(recipe)))
    recipe.pop(next(iter(recipe)))
    assert artifact_key(recipe) != artifact_key(shuffled)


def test_key_is_the_sha256_of_canonical_json() -> None:
    # printf '{"a":[1,0.1,true,null],"b":"\\u00e9"}' | sha256sum
    key = "2ef53a3316212700a292bd2f129f25b5b3f5a1f5a77b528cad102360e26292ee"
    assert artifact_key({"b": "é", "a": (1, 0.1, True, None)}) == key


def test_key_tells_one_from_one_point_zero_and_true() -> None:
    assert len({artifact_key({"x": x}) for x in (1, 1.0, True, "1")}) == 4


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, b"x", {1: 2}, {"a": {None: 1}}, [np.float32(1)], np.zeros(2), {1, 2}, Path("x")]
)
def test_key_refuses_what_json_cannot_hold(value: object) -> None:
    with pytest.raises(StoreError, match=r"recipe\.x"):
        artifact_key({"x": value})


@pytest.mark.parametrize(
    ("stage", "key"),
    [("..", "a" * 64), ("a/b", "a" * 64), ("", "a" * 64), ("Slat", "a" * 64), ("slat\n", "a" * 64), ("sl-at", "a" * 64)]
    + [("slat", key) for key in ("", "a" * 63, "a" * 65, "A" * 64, "../" + "a" * 61, "a" * 64 + "\n", "g" * 64)],
)
def test_only_plain_names_make_a_reference(stage: str, key: str) -> None:
    with pytest.raises(StoreError):
        ArtifactRef(stage, key)


def test_a_file_that_cannot_be_written_is_named_as_the_caller_knows_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_json(tmp_path / "none" / "a.json", {})
    assert caught.value.filename == str(tmp_path / "none" / "a.json")


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_json(path, {"a": [1, 0.1, None]})
    assert read_json(path) == {"a": [1, 0.1, None]}
    for bad, error in ((math.nan, ValueError), (object(), TypeError)):
        with pytest.raises(error):
            write_json(path, {"a": bad})
    assert read_json(path) == {"a": [1, 0.1, None]}
    assert os.listdir(tmp_path) == ["run.json"]
    for damaged in (b'{"a": \xff', b'{"a": 1e999}', b'{"a": [-Infinity, NaN]}'):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"run\.json is damaged"):
            read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("links", [True, False])
def test_link_or_copy(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "out" / "target"
    source.write_bytes(b"abc")
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(95, "Operation not supported")))
    for _ in range(2):  # the second time over the first
        link_or_copy(source, target)
        assert target.read_bytes() == b"abc"
        assert target.samefile(source) == links
        assert os.listdir(target.parent) == ["target"]
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "none", target)
    assert os.listdir(target.parent) == ["target"]


@pytest.mark.parametrize("reflinks", [True, False])
def test_a_copy_is_known_until_it_is_changed(tmp_path: Path, reflinks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "out" / "target"
    source.write_bytes(b"abc")
    os.utime(source, ns=(1, 123456789))
    if not reflinks:
        monkeypatch.setattr(fcntl, "ioctl", lambda *_: (_ for _ in ()).throw(OSError(95, "Operation not supported")))
    assert not is_copy(source, target)
    for _ in range(2):  # the second time over the first
        copy_file(source, target)
        assert target.read_bytes() == b"abc"
        assert is_copy(source, target)
        target.write_bytes(b"xyz")
        assert source.read_bytes() == b"abc"
        assert not is_copy(source, target)
    target.unlink()
    target.hardlink_to(source)
    assert not is_copy(source, target)
    with pytest.raises(FileNotFoundError):
        copy_file(tmp_path / "none", target)
    assert os.listdir(target.parent) == ["target"]


def test_names_that_are_not_utf8_make_json_that_anybody_reads(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"input": {"path": os.fsdecode(b"caf\xe9.png")}, "list": ("\udce9", 1, None)})
    assert read_json(tmp_path / "a.json") == {"input": {"path": "caf\\udce9.png"}, "list": ["\\udce9", 1, None]}


def test_what_leads_out_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run/frames").mkdir(parents=True)
    (tmp_path / "run/link").symlink_to(tmp_path)
    (tmp_path / "run/file").symlink_to(tmp_path / "precious")
    (tmp_path / "alias").symlink_to(tmp_path / "run")
    for top in ("run", "alias"):
        for name in ("/etc/passwd", "../a", "frames/../../a", "link/precious", "link/run/a", "", "."):
            assert leads_out(tmp_path / top, name), name
        for name in ("a", "frames/a", "new/a", "file", "link"):  # a link at the end is replaced, or deleted, itself
            assert not leads_out(tmp_path / top, name), name


@pytest.mark.timeout(10)
def test_a_pipe_is_no_file_to_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no plain file"):
        read_plain(tmp_path / "pipe")


def test_only_folders_of_dead_processes_are_orphans() -> None:
    name = owned_name()
    random, started, pid, host = name.split("-", 3)
    assert not is_orphan(name)
    assert is_orphan(f"{random}-{int(started) + 1000}-{pid}-{host}"), "the number belongs to another process now"
    assert is_orphan(f"{random}-{started}-{2**22 + 1}-{host}"), "no process has a number this large"
    assert not is_orphan(f"{random}-{started}-{2**22 + 1}-other{host}"), "who lives on another host is unknown"
    assert not is_orphan("something-else")


def test_a_host_of_the_same_name_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines that share a store may both be called localhost, and their processes have the same numbers."""
    random, started, _, host = owned_name().split("-", 3)
    dead = f"{random}-{started}-{2**22 + 1}-{host}"
    assert is_orphan(dead)
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(files, "BOOT", tmp_path / "boot_id")
    assert not is_orphan(dead)
    monkeypatch.setattr(files, "BOOT", tmp_path / "none")
    assert not is_orphan(dead)
