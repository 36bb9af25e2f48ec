"""Descriptions of models that an earlier version wrote are read with the same meaning."""

import json
import shutil
from pathlib import Path

import pytest

from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.weights import describe
from tests.helpers.places import DATA

FOLDERS = sorted((DATA / "model_folders").iterdir())


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An earlier model folder, with empty files where its weights were."""
    copy = Path(shutil.copytree(request.param, tmp_path / "model"))
    for description in (copy / "ckpts").glob("*.json"):
        description.with_suffix(".safetensors").touch()
    return copy


def test_an_earlier_model_folder_opens(folder: Path) -> None:
    model = ModelFolder.open(folder)
    published = json.loads((folder / "pipeline.json").read_text())["args"]
    for params, sampler in ((model.structure_sampler, "sparse_structure"), (model.slat_sampler, "slat")):
        given = published[f"{sampler}_sampler"]["params"]
        assert {name: getattr(params, name) for name in given} == {
            name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
        }
    for role in model.references:
        files = model.files(role)
        args = describe(files.description).args
        given = json.loads((folder / "ckpts" / f"{files.weights.stem}.json").read_text())["args"]
        assert {name: getattr(args, name) for name in given if not isinstance(given[name], dict | list)} == {
            name: value for name, value in given.items() if not isinstance(value, dict | list)
        }
