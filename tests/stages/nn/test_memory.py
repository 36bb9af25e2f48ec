"""What a pass of each published network takes in memory: 32 frames of 20,000 voxels in half precision, counted.

All blocks are alike, and each is over before the next begins, so the peak of two is that of 24.
"""

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ss4d.pipelines.bench.subjects import shells
from ss4d.stages.nn import pieces
from ss4d.stages.nn.arithmetic import Load
from ss4d.stages.nn.checkpoint import build_network
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoder
from ss4d.stages.nn.latent_flow import SLatFlow4DModel
from ss4d.stages.nn.peaks import peak
from ss4d.stages.nn.structure_flow import SparseStructureFlow4DModel
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.roles import GAUSSIAN_DECODER, LATENT_FLOW, STRUCTURE_FLOW
from tests.helpers.places import DATA
from tests.helpers.pretend_device import PretendDevice
from tests.stages.nn import test_networks as small

OFFICIAL = json.loads((DATA / "official_layout.json").read_text())
FRAMES, VOXELS, GRID, TOKENS = 32, 20_000, 64, 1374
GIB = 2**30
ALLOWED = {STRUCTURE_FLOW: 3.4, LATENT_FLOW: 8.7, GAUSSIAN_DECODER: 8.5}  # of all but weights, in GiB


def published(role: str) -> nn.Module:
    """The network of a role with two blocks instead of many, without values."""
    network = OFFICIAL[role]
    with torch.device("meta"):
        module = build_network(network["name"].removeprefix("Elastic"), {**network["args"], "num_blocks": 2}, TORCH_OPS)
    module.set_torso_dtype(torch.float16)  # type: ignore[operator]  # each of these has a torso
    return module.eval().requires_grad_(False)


def flow_condition() -> tuple[Tensor, Tensor]:
    """Times and image tokens, on the device."""
    return torch.empty(1, FRAMES, device="cuda"), torch.empty(1, FRAMES, TOKENS, 1024, device="cuda")


def structure_pass(_: PretendDevice, net: nn.Module) -> Callable[[], object]:
    t, cond = flow_condition()
    x = torch.empty(1, FRAMES, 8, 16, 16, 16, device="cuda")
    return lambda: net(x, t, cond)


def latent_pass(device: PretendDevice, net: nn.Module) -> Callable[[], object]:
    """Both of a guided step, which have the way in in common."""
    assert isinstance(net, SLatFlow4DModel)
    t, cond = flow_condition()
    x = SparseTensor(Sites(device.there(shells(FRAMES, VOXELS, GRID))), torch.empty(FRAMES * VOXELS, 8, device="cuda"))
    return lambda: net.with_and_without(x, t, cond)


def decoder_pass(device: PretendDevice, net: nn.Module) -> Callable[[], object]:
    assert isinstance(net, SLatGaussianDecoder)
    x = SparseTensor(Sites(device.there(shells(FRAMES, VOXELS, GRID))), torch.empty(FRAMES * VOXELS, 8, device="cuda"))
    return lambda: net.activate(net.split(net(x), x.coords))


@torch.no_grad()
@pytest.mark.parametrize(
    ("role", "prepare", "most"),
    [
        (STRUCTURE_FLOW, structure_pass, 2.1),
        (LATENT_FLOW, latent_pass, 3.6),
        (GAUSSIAN_DECODER, decoder_pass, 6.9),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_published_networks_peak_under(
    role: str,
    prepare: Callable[[PretendDevice, nn.Module], Callable[[], object]],
    most: float,
) -> None:
    with PretendDevice(values=False) as device:
        net = device.move(published(role))
        weights = device.live
        run = prepare(device, net)
        run()
        activations = (device.peak - weights) / GIB
        assert activations <= most, f"{activations:.2f} GiB"
    # One network is loaded at a time, so this is all that a run takes of a card, beside what torch itself needs.
    kept = getattr(net, "kept_bytes", 0) / GIB
    assert activations + kept <= ALLOWED[role]
    assert activations + kept + 2 * OFFICIAL[role]["parameters"] / GIB < 8
    assert peak(net.args, 2, Load(frames=FRAMES)) / GIB == pytest.approx(activations, rel=0.1)
    assert peak(net.args, 2, Load(frames=FRAMES, voxels=VOXELS)) == peak(net.args, 2, Load(frames=FRAMES))


@torch.no_grad()
def test_pieces_give_what_all_rows_give_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    latents, t, cond = small.latents(0)
    flow = small.built(SLatFlow4DModel, small.LATENT)
    decoder = small.built(SLatGaussianDecoder, small.DECODER)
    structure = small.built(SparseStructureFlow4DModel, small.STRUCTURE)
    x = torch.randn(2, 4, 3, 4, 4, 4)

    def results() -> list[Tensor]:
        return [flow(latents, t, cond).feats, decoder(latents), structure(x, t, cond)]

    whole = results()
    monkeypatch.setattr(pieces, "PIECE", 7)
    for at_once, piece_by_piece in zip(whole, results(), strict=True):
        torch.testing.assert_close(piece_by_piece, at_once, atol=1e-5, rtol=1e-5)


def test_gradients_do_not_depend_on_the_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _, _ = small.latents(0)
    net = small.built(SLatGaussianDecoder, small.DECODER).requires_grad_(True)
    gradients = []
    for size in (pieces.PIECE, 7):
        monkeypatch.setattr(pieces, "PIECE", size)
        net.zero_grad()
        net(x).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in net.parameters()])
    assert all(map(torch.equal, *gradients))
