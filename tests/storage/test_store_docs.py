"""docs/store.md is enough to read a run with zarr-python alone: its code is run, far from this program's modules."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ss4d.pipelines.inspect.opened import open_run
from ss4d.pipelines.store.housekeeping import pack_run
from ss4d.stages.types import MeshClip
from ss4d.storage.codec import ArrayData
from ss4d.storage.store import open_store
from tests.helpers.places import ROOT

if TYPE_CHECKING:
    from tests.helpers.s3_server import S3

pytest_plugins = ["tests.helpers.s3_server"]
PAGE = ROOT / "docs" / "store.md"
REPORT = """
import sys
assert not {"cli", "pipelines", "stages", "storage"} & set(sys.modules)
numbers = {"cells": cells, "latents": latents, "means": means, "remote": remote_feats, "packed": packed_feats}
print(json.dumps({name: value.tolist() for name, value in numbers.items()}))
"""


def test_the_page_reads_a_run(finished_run: Path, s3: "S3", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = open_run(finished_run)
    shutil.copytree(finished_run, tmp_path / "output" / "runs" / "bird")
    shutil.copytree(run["slat"].store.location, tmp_path / "output" / "store")
    pack_run(tmp_path / "output" / "runs" / "bird", tmp_path / "bird.zip", lambda *_: None)
    url = s3.new_url()
    slat = run["slat"]
    with open_store(url).create(slat.ref) as writer:
        for name in slat.arrays():
            writer.write(name, ArrayData(slat[name][:], slat[name].metadata.dimension_names))
        writer.commit({})

    page = PAGE.read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)).replace("s3://bucket/prefix", url)
    environment = {**os.environ, **s3.environment, "AWS_ALLOW_HTTP": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code + REPORT], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *shown, last = done.stdout.splitlines()
    numbers = json.loads(last)
    value = slat.value()
    of_frame = value.coords[:, 1] == 1
    assert numbers["cells"] == value.coords[of_frame, 2:].tolist() != []
    assert numbers["latents"] == value.feats[of_frame].tolist()
    assert numbers["means"] == run["decoding"].value().frame(1).means.tolist() != []
    assert numbers["remote"] == numbers["packed"] == value.feats.tolist()
    assert shown[0] == "('n', 'c') latent of each cell"
    assert "'turntable.mp4'" in shown[1]


def test_the_page_lists_every_array_as_it_is(finished_run: Path) -> None:
    rows = re.findall(r"^\| (\w*) ?\| `(\w+)` \| ([^|]+) \| (\w+) \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)
    listed = {}
    stage = ""
    for first, name, axes, dtype, meaning in rows:
        stage = first or stage
        listed[stage, name] = (tuple(axes.split(", ")), dtype, meaning)
    run = open_run(finished_run)
    found = {}
    for stage, opened in run.stages.items():
        for name in opened.arrays():
            array = opened[name]
            found[stage, name] = (array.metadata.dimension_names, array.dtype.name, array.attrs["meaning"])
    for name, spec in MeshClip.specs().items():  # which a run makes where they are asked for
        found["mesh", name] = (spec.dims, str(spec.dtype).removeprefix("torch."), spec.meaning)
    listed["slat", "coords"] = found["slat", "coords"]  # "the same cells"
    assert listed == found
