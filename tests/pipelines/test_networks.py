"""The model of a configuration: what its networks are loaded with, and what a run's record says of it."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ss4d.pipelines.networks import ModelChoice, open_model
from ss4d.stages.roles import STRUCTURE_DECODER
from tests.helpers.places import ROOT

TINY = ROOT / "configs" / "models" / "tiny"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny model."""
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def test_the_record_names_the_tensors_that_nothing_takes(folder: Path) -> None:
    weights = folder / "ckpts" / "sparse_structure_decoder.safetensors"
    save_file(load_file(weights) | {"head.weight": torch.zeros(2)}, weights)
    model = open_model(ModelChoice(model=str(folder)), "cpu")
    assert model.describe()["left_over"] == {}
    model.network(STRUCTURE_DECODER)
    assert model.describe()["left_over"] == {"sparse_structure_decoder.safetensors": ["head.weight"]}
