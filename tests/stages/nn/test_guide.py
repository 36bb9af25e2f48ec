"""Guides: each cell of a flow is told the features of the very cells that it covers."""

import pytest
import torch
from torch import Tensor, nn

from ss4d.stages.errors import ModelError
from ss4d.stages.nn.guide import GuidedLatentFlow, GuidedStructureFlow
from ss4d.stages.ops.coords import Sites, SparseTensor

SIDE, FEATURES = 4, 3


class Recorder(nn.Module):
    """A flow that keeps what it is given."""

    def __init__(self, in_channels: int, resolution: int) -> None:
        super().__init__()
        self.args = type("Args", (), {"in_channels": in_channels, "out_channels": 2, "resolution": resolution})
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor | SparseTensor, t: Tensor, cond: Tensor | None, kept: None) -> Tensor | SparseTensor:
        self.seen.append(x.feats if isinstance(x, SparseTensor) else x)
        return x


def tokens() -> Tensor:
    """Of a clip of two frames, (1, 2, l, c): feature k of the cell (x, y, z) in frame t is the number t x y z k."""
    t, x, z, y, k = torch.meshgrid(*map(torch.arange, (2, SIDE, SIDE, SIDE, FEATURES)), indexing="ij")
    named = t * 10000 + x * 1000 + y * 100 + z * 10 + k
    return named.reshape(1, 2, SIDE**2, SIDE * FEATURES).float()


def test_a_structure_flow_is_told_all_cells_that_each_of_its_own_covers() -> None:
    flow = Recorder(2 + 8 * FEATURES, 2)
    GuidedStructureFlow(flow)(torch.zeros(1, 2, 2, 2, 2, 2), torch.zeros(1, 2), tokens())  # type: ignore[arg-type]
    (seen,) = flow.seen
    assert seen.shape == (1, 2, 2 + 8 * FEATURES, 2, 2, 2)
    told = seen[0, 1, 2:, 1, 0, 1]
    wanted = {10000 + x * 1000 + y * 100 + z * 10 + k for x in (2, 3) for y in (0, 1) for z in (2, 3) for k in range(3)}
    assert set(told.int().tolist()) == wanted
    assert int(told[0]) == 12020  # x slowest, then y, z and the features


def test_without_a_condition_flows_are_told_zeros() -> None:
    sites = Sites(torch.tensor([[0, 0, 1, 2, 3], [0, 1, 3, 0, 2]], dtype=torch.int32))
    structure, latent = Recorder(2 + 8 * FEATURES, 2), Recorder(2 + FEATURES, SIDE)
    for cond in (torch.zeros_like(tokens()), None):
        GuidedStructureFlow(structure)(torch.ones(1, 2, 2, 2, 2, 2), torch.zeros(1, 2), cond)  # type: ignore[arg-type]
        GuidedLatentFlow(latent, sites)(torch.ones(2, 2), torch.zeros(1, 2), cond)  # type: ignore[arg-type]
    assert torch.equal(*structure.seen)
    assert torch.equal(*latent.seen)


def test_a_latent_flow_is_told_its_voxels() -> None:
    flow = Recorder(2 + FEATURES, SIDE)
    sites = Sites(torch.tensor([[0, 0, 1, 2, 3], [0, 1, 3, 0, 2]], dtype=torch.int32))
    GuidedLatentFlow(flow, sites)(torch.zeros(2, 2), torch.zeros(1, 2), tokens())  # type: ignore[arg-type]
    (seen,) = flow.seen
    assert seen[:, 2:].int().tolist() == [[1230, 1231, 1232], [13020, 13021, 13022]]


def test_a_flow_without_a_guide_sees_its_latents_alone() -> None:
    flow = Recorder(2, 2)
    x = torch.rand(1, 2, 2, 2, 2, 2)
    GuidedStructureFlow(flow)(x, torch.zeros(1, 2), torch.zeros(1, 2, 5, 7))  # type: ignore[arg-type]
    assert torch.equal(flow.seen[0], x)


@pytest.mark.parametrize("cond", [torch.zeros(1, 2, 15, 12), torch.zeros(1, 2, 16, 13), torch.zeros(1, 2, 16, 16)])
def test_tokens_of_another_model_are_refused(cond: Tensor) -> None:
    sites = Sites(torch.tensor([[0, 0, 1, 2, 3]], dtype=torch.int32))
    with pytest.raises(ModelError):
        GuidedLatentFlow(Recorder(5, SIDE), sites)(torch.zeros(1, 2), torch.zeros(1, 2), cond)  # type: ignore[arg-type]
    guided, x = GuidedStructureFlow(Recorder(26, 2)), torch.zeros(1, 2, 2, 2, 2, 2)  # type: ignore[arg-type]
    with pytest.raises(ModelError):
        guided(x, torch.zeros(1, 2), cond)
