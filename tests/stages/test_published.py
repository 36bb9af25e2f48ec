"""The published sizes, and a folder of the published layout with random weights."""

import json
from pathlib import Path

import pytest
import torch

from ss4d.stages.model_folder import DINOV2_FILE, LocalFiles, ModelFolder
from ss4d.stages.nn.image_encoders import VisionTransformerArgs
from ss4d.stages.nn.occupancy import occupied_cells
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.published import PUBLISHED, write_random_model
from ss4d.stages.roles import GAUSSIAN_DECODER, IMAGE_ENCODER, LATENT_FLOW, STRUCTURE_DECODER, STRUCTURE_FLOW
from ss4d.stages.weights import load_role
from tests.helpers.places import DATA

OFFICIAL = json.loads((DATA / "official_layout.json").read_text())
SMALL = {"model_channels": 24, "num_blocks": 1, "num_heads": 2}
ENCODER = VisionTransformerArgs(image_size=28, patch_size=14, model_channels=12, num_blocks=2, num_heads=2)


@pytest.mark.parametrize("role", OFFICIAL)
def test_options_are_those_that_give_the_published_tensors(role: str) -> None:
    network = PUBLISHED[role]
    assert network.name == OFFICIAL[role]["name"]
    assert {**network.args, "use_fp16": None} == {**OFFICIAL[role]["args"], "use_fp16": None}


def test_a_folder_of_random_weights_loads_and_decodes_to_so_many_voxels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("published", "weights"):
        monkeypatch.setattr(f"ss4d.stages.{module}.DINOV2_VITL14_REG", ENCODER)
    flow = SMALL | {"cond_channels": 12}
    changes = {
        STRUCTURE_FLOW: flow,
        STRUCTURE_DECODER: {"channels": [16, 8, 8]},
        LATENT_FLOW: flow | {"io_block_channels": [12], "io_block_channels_t": [24]},
        GAUSSIAN_DECODER: SMALL,
    }
    file = write_random_model(tmp_path / "model", seed=0, changes=changes)
    assert file == tmp_path / "model" / DINOV2_FILE
    here = LocalFiles(tmp_path / "model")
    folder = ModelFolder.read(here, lambda _: here)
    left: list[str] = []
    networks = {
        role: load_role(
            folder, role, TORCH_OPS, device=torch.device("cpu"), left_over=lambda _, names: left.extend(names)
        )
        for role in (*PUBLISHED, IMAGE_ENCODER)
    }
    assert left == []
    assert all(tensor.isfinite().all() for net in networks.values() for tensor in net.state_dict().values())
    latent = torch.randn(2, 8, 16, 16, 16, generator=torch.Generator().manual_seed(5))
    coords, resolution = occupied_cells(networks[STRUCTURE_DECODER], latent)  # type: ignore[arg-type]
    assert resolution == 64
    assert 10_000 < len(coords) / 2 < 40_000
    # In lumps: their cells fill at least a third of the cells of a grid half as fine.
    assert len(torch.unique(coords // coords.new_tensor([1, 1, 2, 2, 2]), dim=0)) < len(coords) / 2.5
