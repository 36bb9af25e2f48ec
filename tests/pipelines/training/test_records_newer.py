"""A record that a newer version wrote is not damaged: it is refused, and nothing advises to delete it."""

import json
from pathlib import Path

import pytest

from ss4d.pipelines.training.make_records import Sizes, make_records
from ss4d.pipelines.training.records import check_records, open_records
from ss4d.stages.types import silent
from ss4d.storage.artifact import root_bytes
from ss4d.storage.errors import NewerError


def test_a_record_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    sizes = Sizes(frames=4, size=32, views=2, resolution=8)
    make_records(tmp_path, num_clips=1, seed=0, sizes=sizes, families=[], workers=1, progress=silent)
    root = next((tmp_path / "store").rglob("*.zarr")) / "zarr.json"
    attributes = json.loads(root.read_text())["attributes"]
    root.write_bytes(root_bytes({**attributes, "schema": 99, "digest": "0" * 64}))
    with pytest.raises(NewerError, match=r"newer version .* upgrade"):
        open_records(tmp_path).read(0)
    with pytest.raises(NewerError):
        check_records(tmp_path, remove=True)
    assert root.exists()
