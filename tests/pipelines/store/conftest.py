"""Records of runs that computed nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ss4d.pipelines.run_record import RECORD
from tests.helpers.recorded_runs import recipe, refs_of


@pytest.fixture
def write_run(finished_run: Path) -> Callable[..., Path]:
    """Writes the record of a run that refers to the artifacts of that number."""
    template = json.loads((finished_run / RECORD).read_text())

    def write(folder: Path, number: int, **changes: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        known = template["stages"]
        stages = {s: {**known[s], "key": r.key, "recipe": recipe(s, number)} for s, r in refs_of(number).items()}
        (folder / RECORD).write_text(json.dumps({**template, "stages": stages, **changes}))
        return folder

    return write
