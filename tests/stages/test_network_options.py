"""Options that a network's description leaves out have the values of the authors' loader (docs/model.md, section 1)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ss4d.stages.errors import ModelError
from ss4d.stages.model_folder import NetworkFiles
from ss4d.stages.nn.checkpoint import NETWORKS
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.weights import describe, load_network

CPU = torch.device("cpu")
SIZES = {"resolution": 16, "model_channels": 64, "num_blocks": 1}
FLOW = {**SIZES, "in_channels": 8, "out_channels": 8, "cond_channels": 40}
LATENT = {**SIZES, "latent_channels": 8}
DEFAULTS: dict[str, Any] = {
    "num_heads": None,
    "num_head_channels": 64,
    "mlp_ratio": 4,
    "pe_mode": "ape",
    "expand_self_attn": False,
    "use_fp16": False,
    "qk_rms_norm": False,
}
OF_FLOWS = {**DEFAULTS, "patch_size": 2, "rope_base": 10000, "qk_rms_norm_cross": False, "share_mod": False}
OF_LATENTS = {**DEFAULTS, "window_size": 8, "attn_mode": "swin", "use_fp16": True, "expand_self_attn": True}
LEVELS = {"num_io_res_blocks": 2, "num_io_res4d_blocks": 2, "use_skip_connection": True, "conv_type": "3D"}


@pytest.mark.parametrize(
    ("name", "required", "defaults"),
    [
        ("SparseStructureFlow4DModel", FLOW, {**OF_FLOWS, "window_size": None}),
        ("SLatFlow4DModel", {**FLOW, "io_block_channels": [32]}, {**OF_FLOWS, **LEVELS}),
        ("SLatGaussianDecoder", {**LATENT, "representation_config": {}}, OF_LATENTS),
        ("SLatEncoder", {**LATENT, "in_channels": 20}, OF_LATENTS),
        (
            "SparseStructureDecoder",
            {"out_channels": 1, "latent_channels": 3, "num_res_blocks": 1, "channels": [8]},
            {"num_res_blocks_middle": 2, "norm_type": "layer", "use_fp16": False},
        ),
    ],
)
def test_options_left_out_are_the_authors(
    tmp_path: Path, name: str, required: dict[str, Any], defaults: dict[str, Any]
) -> None:
    file = tmp_path / "network.json"
    file.write_text(json.dumps({"name": name, "args": required}))
    args = describe(file).args
    assert {option: getattr(args, option) for option in defaults} == defaults


def test_the_authors_flow_without_levels_of_its_own_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "network.json"
    file.write_text(json.dumps({"name": "SLatFlow4DModel", "args": {**FLOW, "io_block_channels": [32]}}))
    files = NetworkFiles(weights=tmp_path / "network.safetensors", description=file)
    save_file({str(number): torch.zeros(1) for number in range(100)}, files.weights)  # the head is read first
    with pytest.raises(ModelError, match=r"network\.json: option conv_type is '3D'"):
        load_network(describe(file), files, TORCH_OPS, device=CPU)


@pytest.mark.parametrize("temporal", [False, True])
def test_heads_may_be_counted_alone_and_no_temporal_blocks_inserted(tmp_path: Path, temporal: bool) -> None:
    options = {**FLOW, "resolution": 4, "num_heads": 2, "num_head_channels": None, "insert_temporal": temporal}
    file = tmp_path / "network.json"
    file.write_text(json.dumps({"name": "SparseStructureFlow4DModel", "args": options}))
    with torch.device("meta"):
        description = describe(file)
        if temporal:
            with pytest.raises(ModelError, match="option insert_temporal is True"):
                NETWORKS[description.name].build(description.args, TORCH_OPS)
        else:
            network = NETWORKS[description.name].build(description.args, TORCH_OPS)
            assert network.heads == 2
