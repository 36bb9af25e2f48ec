"""What is measured: the networks of a size with random weights, on inputs that look like those of a clip.

Axes: t frame, l token, c channel; sparse rows are (b, t, x, y, z).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ss4d.pipelines.bench.clock import products_format
from ss4d.pipelines.bench.naive import NAIVE_OPS
from ss4d.pipelines.hub import model_path
from ss4d.stages.errors import InputError
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.nn.arithmetic import image_tokens
from ss4d.stages.nn.block import KeptTokens
from ss4d.stages.nn.checkpoint import NETWORKS, network_args
from ss4d.stages.nn.guide import GuidedLatentFlow, GuidedStructureFlow
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.ops.rasterize import Rasterize
from ss4d.stages.published import PUBLISHED
from ss4d.stages.roles import GAUSSIAN_DECODER, IMAGE_ENCODER, LATENT_FLOW, STRUCTURE_DECODER, STRUCTURE_FLOW
from ss4d.stages.types import GaussianClip
from ss4d.stages.weights import Description, HasTorso, describe

SizeName = Literal["tiny", "published"]
Networks = Mapping[str, Description]  # by role
PICTURE = 512  # pixels of a side of what is drawn
TIME = 700.0  # of the flow, x 1000
SHELL_AREA = 15  # voxels of a sphere of radius 1 and of the thickness that surfaces have, 1.2 cells


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One piece of work of a stage.

    Attributes:
        stage: of a run.
        work: what of it.
        products: what nearly all of its products are computed in, a name of `clock.ceilings`; None if it has none.
        network: whose layers are told apart; None where nothing is.
        fast: does the work once, as a run does it.
        plain: does it in the naive way; None where there is no other.
    """

    stage: str
    work: str
    products: str | None
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
        ops: kernels of networks.
        rasterize: draws.
    """

    size: SizeName
    frames: int
    voxels: int
    device: torch.device
    dtype: torch.dtype
    ops: Ops
    rasterize: Rasterize


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


def _descriptions(size: SizeName) -> Networks:
    if size == "tiny":
        folder = ModelFolder.open(model_path("bundled:tiny"))
        roles = (IMAGE_ENCODER, STRUCTURE_FLOW, STRUCTURE_DECODER, LATENT_FLOW, GAUSSIAN_DECODER)
        return {role: describe(folder.description(role)) for role in roles}
    made = {role: (network.name.removeprefix("Elastic"), network.args) for role, network in PUBLISHED.items()}
    networks = {role: Description(name, network_args(name, args)) for role, (name, args) in made.items()}
    return networks | {IMAGE_ENCODER: describe(None)}


def _build(network: Description, given: Inputs) -> Any:
    with given.device:
        module = NETWORKS[network.name].build(network.args, given.ops)
    if isinstance(module, HasTorso):
        module.set_torso_dtype(given.dtype)
    return module.eval().requires_grad_(False)


def _naive_twin(network: Description, fast: nn.Module) -> Callable[[], Any]:
    """Gives the same network in float32 on naive kernels; made when it is first asked for, so that no memory of it is
    counted before.
    """

    @cache
    def twin() -> Any:
        with torch.device("meta"):
            plain = NETWORKS[network.name].build(network.args, NAIVE_OPS)
        plain.load_state_dict({name: tensor.float() for name, tensor in fast.state_dict().items()}, assign=True)
        return plain.eval().requires_grad_(False)

    return twin


def _tokens(networks: Networks, given: Inputs) -> Tensor:
    """Image tokens (t, l, c), random."""
    count = image_tokens(networks[IMAGE_ENCODER].args)
    return torch.randn(given.frames, count, networks[LATENT_FLOW].args.cond_channels, device=given.device)


def _latent_sites(networks: Networks, given: Inputs) -> Tensor:
    return shells(given.frames, given.voxels, networks[LATENT_FLOW].args.resolution).to(given.device)


def _encoding(networks: Networks, given: Inputs) -> Subject:
    encoder = _build(networks[IMAGE_ENCODER], given)
    side = encoder.args.image_size
    images = torch.rand(given.frames, encoder.image_channels, side, side, device=given.device)
    return Subject(
        stage="conditioning",
        work="image encoder",
        products=products_format(encoder, given.device),
        network=None,
        fast=lambda: encoder(images),
    )


def _structure(networks: Networks, given: Inputs) -> Subject:
    fast = _build(networks[STRUCTURE_FLOW], given)
    plain = _naive_twin(networks[STRUCTURE_FLOW], fast)
    args = fast.args
    x = torch.randn(1, given.frames, args.out_channels, *(args.resolution,) * 3, device=given.device)
    t, cond = torch.full((1, given.frames), TIME, device=given.device), _tokens(networks, given)[None]
    zeros, kept = torch.zeros_like(cond), fast.kept_tokens()

    def step(flow: Any, negative: Tensor | None, kept: KeptTokens | None) -> tuple[Tensor, Tensor]:
        guided = GuidedStructureFlow(flow)
        return guided(x, t, cond, kept), guided(x, t, negative)

    return Subject(
        stage="sparse_structure",
        work="guided step",
        products=products_format(fast, given.device),
        network=fast,
        fast=lambda: step(fast, None, kept),
        plain=lambda: step(plain(), zeros, None),
    )


def _occupancy(networks: Networks, given: Inputs) -> Subject:
    decoder = _build(networks[STRUCTURE_DECODER], given)
    side = networks[STRUCTURE_FLOW].args.resolution
    latent = torch.randn(given.frames, decoder.args.latent_channels, *(side,) * 3, device=given.device)
    return Subject(
        stage="sparse_structure",
        work="occupancy decoder",
        products=products_format(decoder, given.device),
        network=None,
        fast=lambda: decoder(latent),
    )


def _latents(networks: Networks, given: Inputs) -> Subject:
    fast = _build(networks[LATENT_FLOW], given)
    plain = _naive_twin(networks[LATENT_FLOW], fast)
    tokens, coords = _tokens(networks, given), _latent_sites(networks, given)
    copies = -given.frames % fast.frame_multiple
    cond = torch.cat([tokens, *(tokens[-1:] for _ in range(copies))])[None]
    t, zeros = torch.full(cond.shape[:2], TIME, device=given.device), torch.zeros_like(cond)
    sites = Sites(coords)
    x = torch.randn(len(coords), fast.args.out_channels, device=given.device)
    guided, kept = GuidedLatentFlow(fast, sites), fast.kept_tokens()

    def naive_pass(tokens: Tensor) -> Tensor:
        return GuidedLatentFlow(plain(), Sites(coords))(x, t, tokens)

    return Subject(
        stage="slat",
        work="guided step",
        products=products_format(fast, given.device),
        network=fast,
        fast=lambda: guided.with_and_without(x, t, cond, kept),
        plain=lambda: (naive_pass(cond), naive_pass(zeros)),
    )


def _decoder(networks: Networks, given: Inputs) -> tuple[Any, Callable[[], Any]]:
    """The Gaussian decoder, and what decodes with it."""
    decoder = _build(networks[GAUSSIAN_DECODER], given)
    coords = _latent_sites(networks, given)
    x = SparseTensor(Sites(coords), torch.randn(len(coords), decoder.args.latent_channels, device=given.device))
    return decoder, lambda: decoder.activate(decoder.split(decoder(x), x.coords))


def _decoding(networks: Networks, given: Inputs) -> Subject:
    decoder, decode = _decoder(networks, given)
    return Subject(
        stage="decoding",
        work="Gaussian decoder",
        products=products_format(decoder, given.device),
        network=decoder,
        fast=decode,
    )


def _picture(networks: Networks, given: Inputs) -> Subject:
    decoder, decode = _decoder(networks, given)
    scene = _first_frame(decode(), given.voxels * decoder.representation.num_gaussians)
    camera = orbit_camera(30, 20, size=PICTURE)
    return Subject(
        stage="export",
        work="one picture",
        products=None,
        network=None,
        fast=lambda: given.rasterize(scene, camera),
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


# By stage, in the order of a run.
SUBJECTS: Sequence[tuple[str, Callable[[Networks, Inputs], Subject]]] = (
    ("conditioning", _encoding),
    ("sparse_structure", _structure),
    ("sparse_structure", _occupancy),
    ("slat", _latents),
    ("decoding", _decoding),
    ("export", _picture),
)
STAGES = tuple(dict.fromkeys(stage for stage, _ in SUBJECTS))


def num_subjects(stages: Collection[str] = STAGES) -> int:
    """How many pieces of work of these stages are measured."""
    return sum(stage in stages for stage, _ in SUBJECTS)


def subjects(given: Inputs, stages: Collection[str] = STAGES) -> Iterator[Subject]:
    """All that is measured of the stages, in the order of a run; a network is made when its turn comes.

    Raises:
        InputError: a frame cannot have so many voxels.
    """
    networks = _descriptions(given.size)
    resolution = networks[LATENT_FLOW].args.resolution
    if given.voxels > resolution**3:
        raise InputError(f"--voxels must be at most {resolution**3}, all cells of the grid, got {given.voxels}")
    for stage, make in SUBJECTS:
        if stage in stages:
            yield make(networks, given)
