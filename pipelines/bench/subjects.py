"""What is measured: the networks of a size with random weights, on inputs that look like those of a clip.

Axes: t frame, l token, c channel; sparse rows are (b, t, x, y, z).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ss4d.pipelines.bench.naive import NAIVE_OPS
from ss4d.pipelines.hub import model_path
from ss4d.stages.errors import InputError
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.nn.block import Kept
from ss4d.stages.nn.checkpoint import NETWORKS, network_args
from ss4d.stages.nn.guide import GuidedLatentFlow, GuidedStructureFlow
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.published import PUBLISHED
from ss4d.stages.roles import GAUSSIAN_DECODER, IMAGE_ENCODER, LATENT_FLOW, STRUCTURE_DECODER, STRUCTURE_FLOW
from ss4d.stages.types import GaussianClip
from ss4d.stages.weights import Description, HasTorso, describe

SizeName = Literal["tiny", "published"]
PICTURE = 512  # pixels of a side of what is drawn
TIME = 700.0  # of the flow, x 1000
NUM_SUBJECTS = 6
SHELL_AREA = 15  # voxels of a sphere of radius 1 and of the thickness that surfaces have, 1.2 cells


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One piece of work of a stage.

    Attributes:
        stage: of a run.
        work: what of it.
        network: whose layers are told apart; None where nothing is.
        fast: does the work once, as a run does it.
        plain: does it in the naive way; None where there is no other.
    """

    stage: str
    work: str
    network: nn.Module | None
    fast: Callable[[], Any]
    plain: Callable[[], Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The size of the networks and of the clip, and what computes.

    Attributes:
        size: of the networks.
        frames: of the clip.
        voxels: of each frame.
        device: that computes.
        dtype: that the torsos compute in.
        ops: kernels.
    """

    size: SizeName
    frames: int
    voxels: int
    device: torch.device
    dtype: torch.dtype
    ops: Ops


def subjects(given: Inputs) -> Iterator[Subject]:
    """All that is measured, in the order of a run; a network is made when its turn comes, and let go after it.

    Raises:
        InputError: a frame cannot have so many voxels.
    """
    networks = _descriptions(given.size)
    resolution = networks[LATENT_FLOW].args.resolution
    if given.voxels > resolution**3:
        raise InputError(f"--voxels must be at most {resolution**3}, all cells of the grid, got {given.voxels}")
    encoding = _encoding(networks[IMAGE_ENCODER], given)
    tokens = encoding.fast()
    yield encoding
    del encoding
    yield _structure(networks[STRUCTURE_FLOW], given, tokens)
    yield _occupancy(networks[STRUCTURE_DECODER], given, networks[STRUCTURE_FLOW].args.resolution)
    coords = shells(given.frames, given.voxels, resolution).to(given.device)
    yield _latents(networks[LATENT_FLOW], given, tokens, coords)
    decoder = _build(networks[GAUSSIAN_DECODER], given, given.ops)
    x = SparseTensor(Sites(coords), torch.randn(len(coords), decoder.args.latent_channels, device=given.device))

    def decode() -> Any:
        return decoder.activate(decoder.split(decoder(x), x.coords))

    yield Subject(stage="decoding", work="Gaussian decoder", network=decoder, fast=decode)
    scene, camera = (
        _first_frame(decode(), given.voxels * decoder.representation.num_gaussians),
        orbit_camera(30, 20, size=PICTURE),
    )
    yield Subject(stage="export", work="one picture", network=None, fast=lambda: given.ops.rasterize(scene, camera))


def shells(frames: int, voxels: int, resolution: int) -> Tensor:
    """Coordinates of a sphere's surface that sways from frame to frame, `voxels` of them in each, sorted.

    Few voxels are those of a small sphere, many of a thick surface: neighbors are as many as on an object's surface.
    """
    radius = min(0.375 * resolution, (voxels / SHELL_AREA) ** 0.5)
    axis = torch.arange(resolution)
    cells = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).flatten(0, 2)
    parts = []
    for frame in range(frames):
        center = torch.tensor([frame % 3 - 1.5, -0.5, -0.5]) + resolution / 2
        nearest = ((cells - center).norm(dim=1) - radius).abs().argsort(stable=True)[:voxels].sort().values
        parts.append(torch.cat([torch.tensor([[0, frame]]).expand(voxels, 2), cells[nearest]], 1))
    return torch.cat(parts).int()


def _descriptions(size: SizeName) -> Mapping[str, Description]:
    if size == "tiny":
        folder = ModelFolder.open(model_path("bundled:tiny"))
        roles = (IMAGE_ENCODER, STRUCTURE_FLOW, STRUCTURE_DECODER, LATENT_FLOW, GAUSSIAN_DECODER)
        return {role: describe(folder.description(role)) for role in roles}
    made = {role: (network.name.removeprefix("Elastic"), network.args) for role, network in PUBLISHED.items()}
    networks = {role: Description(name, network_args(name, args)) for role, (name, args) in made.items()}
    return networks | {IMAGE_ENCODER: describe(None)}


def _build(network: Description, given: Inputs, ops: Ops) -> Any:
    with given.device:
        module = NETWORKS[network.name].build(network.args, ops)
    if isinstance(module, HasTorso):
        module.set_torso_dtype(given.dtype)
    return module.eval().requires_grad_(False)


def _build_both(network: Description, given: Inputs) -> tuple[Any, Any]:
    """The network, and its naive twin in float32."""
    with given.device:
        fast = NETWORKS[network.name].build(network.args, given.ops)
    with torch.device("meta"):
        plain = NETWORKS[network.name].build(network.args, NAIVE_OPS)
    plain.load_state_dict(fast.state_dict(), assign=True)
    assert isinstance(fast, HasTorso)
    fast.set_torso_dtype(given.dtype)
    return fast.eval().requires_grad_(False), plain.eval().requires_grad_(False)


def _encoding(network: Description, given: Inputs) -> Subject:
    encoder = _build(network, given, given.ops)
    side = encoder.args.image_size
    images = torch.rand(given.frames, encoder.image_channels, side, side, device=given.device)
    return Subject(stage="conditioning", work="image encoder", network=None, fast=lambda: encoder(images))


def _structure(network: Description, given: Inputs, tokens: Tensor) -> Subject:
    args = network.args
    fast, plain = _build_both(network, given)
    x = torch.randn(1, given.frames, args.out_channels, *(args.resolution,) * 3, device=given.device)
    t, cond = torch.full((1, given.frames), TIME, device=given.device), tokens[None]
    zeros, kept = torch.zeros_like(cond), fast.kept_tokens(cond.shape[:3].numel())

    def step(flow: Any, negative: Tensor | None, kept: Kept | None) -> tuple[Tensor, Tensor]:
        guided = GuidedStructureFlow(flow)
        return guided(x, t, cond, kept), guided(x, t, negative)

    return Subject(
        stage="sparse_structure",
        work="guided step",
        network=fast,
        fast=lambda: step(fast, None, kept),
        plain=lambda: step(plain, zeros, None),
    )


def _occupancy(network: Description, given: Inputs, resolution: int) -> Subject:
    decoder = _build(network, given, given.ops)
    latent = torch.randn(given.frames, network.args.latent_channels, *(resolution,) * 3, device=given.device)
    return Subject(
        stage="sparse_structure",
        work="occupancy decoder",
        network=None,
        fast=lambda: decoder(latent),
    )


def _latents(network: Description, given: Inputs, tokens: Tensor, coords: Tensor) -> Subject:
    fast, plain = _build_both(network, given)
    copies = -given.frames % fast.frame_multiple
    cond = torch.cat([tokens, *(tokens[-1:] for _ in range(copies))])[None]
    t, zeros = torch.full(cond.shape[:2], TIME, device=given.device), torch.zeros_like(cond)
    sites = Sites(coords)
    x = torch.randn(len(coords), network.args.out_channels, device=given.device)
    guided, kept = GuidedLatentFlow(fast, sites), fast.kept_tokens(cond.shape[:3].numel())

    def naive_pass(tokens: Tensor) -> Tensor:
        return GuidedLatentFlow(plain, Sites(coords))(x, t, tokens)

    return Subject(
        stage="slat",
        work="guided step",
        network=fast,
        fast=lambda: (guided(x, t, cond, kept), guided(x, t, None)),
        plain=lambda: (naive_pass(cond), naive_pass(zeros)),
    )


def _first_frame(gaussians: Any, count: int) -> GaussianClip:
    return GaussianClip(
        means=gaussians.means[:count].cpu(),
        scales=gaussians.scales[:count].cpu(),
        quats=gaussians.quats[:count].cpu(),
        colors=gaussians.colors[:count].cpu(),
        opacities=gaussians.opacities[:count, 0].cpu(),
        offsets=torch.tensor([0, count]),
    )
