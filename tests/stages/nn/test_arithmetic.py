"""The estimate of arithmetic against what was counted operation by operation, and against how it must grow."""

import json
from dataclasses import replace
from typing import Any

import pytest

from ss4d.stages.nn.arithmetic import Load, flop
from ss4d.stages.nn.checkpoint import NETWORKS, network_args
from ss4d.stages.nn.column_encoder import ColumnEncoderArgs
from ss4d.stages.nn.image_encoders import DINOV2_VITL14_REG
from ss4d.stages.nn.latent_encoder import SLatEncoderArgs
from ss4d.stages.nn.occupancy import SparseStructureEncoderArgs
from ss4d.stages.roles import GAUSSIAN_DECODER, LATENT_FLOW, STRUCTURE_FLOW
from tests.helpers.places import DATA

# TFLOP of a pass over 32 frames of 20,000 voxels at the published sizes, by a counter on tensors without memory.
COUNTED = {STRUCTURE_FLOW: 511, LATENT_FLOW: 606, GAUSSIAN_DECODER: 131}


def published(role: str) -> Any:
    network = json.loads((DATA / "official_layout.json").read_text())[role]
    return network_args(network["name"].removeprefix("Elastic"), network["args"])


@pytest.mark.parametrize("role", COUNTED)
def test_the_published_networks_take_about_what_was_counted(role: str) -> None:
    assert flop(published(role), Load(frames=32)) == pytest.approx(COUNTED[role] * 1e12, rel=0.2)


def test_frames_that_see_each_other_cost_more_than_frames_alone() -> None:
    flow = published(LATENT_FLOW)
    assert flop(flow, Load(frames=64)) > 3 * flop(flow, Load(frames=32))
    for alone in (replace(flow, expand_self_attn=False), published(STRUCTURE_FLOW), DINOV2_VITL14_REG):
        assert flop(alone, Load(frames=64)) == pytest.approx(2 * flop(alone, Load(frames=32)))


def test_every_network_has_its_count() -> None:
    others = [
        ColumnEncoderArgs(image_size=64, resolution=16, cell_channels=16, channels=(80, 160)),
        SparseStructureEncoderArgs(in_channels=1, latent_channels=8, num_res_blocks=1, channels=(8, 32)),
        SLatEncoderArgs(resolution=16, model_channels=128, latent_channels=8, num_blocks=2, in_channels=9),
        published("sparse_structure_decoder"),
    ]
    counted = {type(args) for args in (*map(published, COUNTED), DINOV2_VITL14_REG, *others)}
    assert counted == {kind.args for kind in NETWORKS.values()}
    few, one = Load(frames=4), Load(frames=1)
    assert all(flop(args, few) == pytest.approx(4 * flop(args, one)) for args in (*others[:2], others[3]))
