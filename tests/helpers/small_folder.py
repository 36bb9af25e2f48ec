"""A model folder with two small networks, to be changed by a test.

`pytest_plugins = ["tests.helpers.small_folder"]` in a test module gives `folder`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ss4d.stages.nn.checkpoint import save_network
from ss4d.stages.nn.image_encoders import VisionTransformer, VisionTransformerArgs
from ss4d.stages.nn.occupancy import SparseStructureDecoder, SparseStructureDecoderArgs

ROLE = "sparse_structure_decoder"
DECODER = SparseStructureDecoderArgs(
    out_channels=1, latent_channels=3, num_res_blocks=1, channels=(8, 4), num_res_blocks_middle=1
)
ENCODER = VisionTransformerArgs(image_size=28, patch_size=14, model_channels=12, num_blocks=2, num_heads=2)


def pipeline() -> dict[str, Any]:
    sampler = {
        "name": "FlowEulerGuidanceIntervalSampler",
        "args": {"sigma_min": 1e-5},
        "params": {"steps": 25, "cfg_strength": 5, "cfg_interval": [0.5, 1.0], "rescale_t": 3.0},
    }
    return {
        "name": "TrellisVideoTo4DPipeline",
        "args": {
            "models": {ROLE: "ckpts/decoder"},
            "sparse_structure_sampler": sampler,
            "slat_sampler": {**sampler, "params": {**sampler["params"], "steps": 12}},
            "slat_normalization": {"mean": [0.0, 1], "std": [1.0, 2.5]},
            "image_cond_model": "ckpts/image_encoder",
        },
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with an occupancy decoder and an image encoder."""
    torch.manual_seed(0)
    (tmp_path / "pipeline.json").write_text(json.dumps(pipeline()))
    save_network(tmp_path / "ckpts/decoder", "SparseStructureDecoder", DECODER, SparseStructureDecoder(DECODER))
    save_network(tmp_path / "ckpts/image_encoder", "VisionTransformer", ENCODER, VisionTransformer(ENCODER))
    return tmp_path


def edit_json(file: Path, edit: Callable[[Any], None]) -> None:
    data = json.loads(file.read_text())
    edit(data)
    file.write_text(json.dumps(data))
