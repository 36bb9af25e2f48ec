"""Structured latents to Gaussians: G of them around each voxel (docs/model.md, section 8).

Rows are (n, c) on sites (b, t, x, y, z); Gaussians are packed voxel by voxel, (n G, ...).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ss4d.stages.errors import ModelError
from ss4d.stages.nn.args import one_of
from ss4d.stages.nn.embed import constant
from ss4d.stages.nn.trunk import SparseTransformer, SparseTransformerArgs
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.coords import SparseTensor
from ss4d.stages.ops.splat import Gaussians

# The constant spherical harmonic, to the digits of the model. Viewers compute with more of them, as export/ply.py does,
# and in float32 that is another number.
SH_DEGREE_0 = 0.28209479
PARTS = {"_xyz": 3, "_features_dc": 3, "_scaling": 3, "_rotation": 4, "_opacity": 1}  # channels, in the order of a row


@dataclass(frozen=True, kw_only=True)
class SLatGaussianDecoderArgs(SparseTransformerArgs):
    """The options published beside the weights; for `representation_config` see `Representation`."""

    representation_config: dict[str, Any]


@dataclass(frozen=True)
class Representation:
    """How a voxel's channels become Gaussians, as `representation_config` says.

    Attributes:
        factors: by which each part is multiplied (`lr`).
        perturbed: whether centers start spread out in the voxel (`perturb_offset`).
        voxel_size: how far a center may go, in cells.
        num_gaussians: G.
        screen_filter: variance of the rasterizer's filter, pixel^2 (`2d_filter_kernel_size`); for who draws them.
        world_filter: least standard deviation (`3d_filter_kernel_size`), in the unit of the object's box.
        scaling_bias: scale of a Gaussian whose channels are 0.
        opacity_bias: opacity of a Gaussian whose channel is 0.
    """

    factors: Mapping[str, float]
    perturbed: bool
    voxel_size: float
    num_gaussians: int
    screen_filter: float
    world_filter: float
    scaling_bias: float
    opacity_bias: float


@dataclass(frozen=True, eq=False, kw_only=True)
class RawGaussians:
    """Channels by meaning, before bias and activation, each times its factor.

    Attributes:
        xyz: (n G, 3) centers, the object's box being [0, 1]^3.
        features_dc: (n G, 1, 3).
        scaling: (n G, 3).
        rotation: (n G, 4).
        opacity: (n G, 1).
    """

    xyz: Tensor
    features_dc: Tensor
    scaling: Tensor
    rotation: Tensor
    opacity: Tensor


class SLatGaussianDecoder(SparseTransformer):
    """The decoder.

    Args:
        args: the published options.
        ops: kernels.

    Raises:
        ModelError: naming an option that cannot be honored.
    """

    offset_perturbation: Tensor

    def __init__(self, args: SLatGaussianDecoderArgs, ops: Ops) -> None:
        representation = read_representation(args.representation_config)
        out_channels = representation.num_gaussians * sum(PARTS.values())
        super().__init__(args, args.latent_channels, out_channels, ops)
        self.args, self.representation = args, representation
        if representation.perturbed:
            shape = (representation.num_gaussians, 3)
            self.register_buffer("offset_perturbation", constant(shape, self.computed()["offset_perturbation"]))

    @property
    def frame_multiple(self) -> int:
        """Part of a clip that begins at a multiple of so many frames has the attention windows of the whole clip."""
        return self.args.extent[0] or 1

    def computed(self) -> dict[str, Callable[[], Tensor]]:
        """What gives the buffers that follow from the options, by name."""
        shape = self.representation
        if not shape.perturbed:
            return {}
        return {"offset_perturbation": lambda: offset_perturbation(shape.num_gaussians, shape.voxel_size)}

    def forward(self, x: SparseTensor) -> Tensor:
        """Latents (N, latent channels) to the raw channels (N, 14 G) of each voxel; see `split` and `activate`."""
        return self.transform(x)

    def split(self, raw: Tensor, coords: Tensor) -> RawGaussians:
        """Raw channels by meaning, and centers from the voxels they belong to.

        Args:
            raw: (N, 14 G), from `forward`.
            coords: (N, 5) (b, t, x, y, z) of the rows.
        """
        shape, count, resolution = self.representation, self.representation.num_gaussians, self.args.resolution
        columns = torch.split(raw, [count * width for width in PARTS.values()], dim=1)
        xyz, features_dc, scaling, rotation, opacity = (
            column.reshape(len(raw), count, width) * shape.factors[name]
            for column, (name, width) in zip(columns, PARTS.items(), strict=True)
        )
        if shape.perturbed:
            xyz = xyz + self.offset_perturbation
        cells = (coords[:, None, 2:].to(raw.dtype) + 0.5) / resolution
        centers = cells + torch.tanh(xyz) * (0.5 * shape.voxel_size / resolution)
        return RawGaussians(
            xyz=centers.flatten(0, 1),
            features_dc=features_dc.reshape(-1, 1, 3),
            scaling=scaling.flatten(0, 1),
            rotation=rotation.flatten(0, 1),
            opacity=opacity.flatten(0, 1),
        )

    def activate(self, raw: RawGaussians) -> Gaussians:
        """Biases and activations: raw parts to Gaussians in world space."""
        shape = self.representation
        softplus = functional.softplus(raw.scaling + math.log(math.expm1(shape.scaling_bias)))
        upright = raw.rotation + raw.rotation.new_tensor([1.0, 0.0, 0.0, 0.0])
        return Gaussians(
            means=raw.xyz - 0.5,
            scales=torch.sqrt(softplus.square() + shape.world_filter**2),
            quats=functional.normalize(upright, dim=1),
            colors=0.5 + SH_DEGREE_0 * raw.features_dc.squeeze(1),
            opacities=torch.sigmoid(raw.opacity + math.log(shape.opacity_bias / (1 - shape.opacity_bias))),
        )


def offset_perturbation(count: int, voxel_size: float) -> Tensor:
    """Where the centers of a voxel start: atanh((2 h - 1) / voxel_size) of `count` Hammersley points h, (count, 3)."""
    index = torch.arange(count)
    points = torch.stack([index / count, _radical_inverse(index, 2), _radical_inverse(index, 3)], dim=1)
    return torch.atanh((2 * points - 1) / voxel_size)


def _radical_inverse(index: Tensor, base: int) -> Tensor:
    """The digits of each number in `base`, mirrored at the point: 6 = 110 in base 2 gives 0.011 = 0.375."""
    result, digit, rest = torch.zeros(len(index)), 1.0, index
    for _ in range(math.ceil(math.log(max(len(index), 2), base)) + 1):
        digit /= base
        result, rest = result + digit * (rest % base), rest // base
    return result


def read_representation(config: Mapping[str, Any]) -> Representation:
    """Reads `representation_config`, strictly.

    Raises:
        ModelError: naming an option that is missing, unknown or impossible.
    """
    numbers = ("voxel_size", "2d_filter_kernel_size", "3d_filter_kernel_size", "scaling_bias", "opacity_bias")
    _same_keys(
        "representation_config", config, {"lr", "perturb_offset", "num_gaussians", "scaling_activation", *numbers}
    )
    one_of("representation_config.scaling_activation", config["scaling_activation"], ("softplus",))
    one_of("representation_config.perturb_offset", config["perturb_offset"], (True, False))
    if not isinstance(config["lr"], Mapping):
        raise ModelError(f"option representation_config.lr must hold a number for each part, got {config['lr']!r}")
    _same_keys("representation_config.lr", config["lr"], set(PARTS))
    count = config["num_gaussians"]
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ModelError(f"option representation_config.num_gaussians must be a whole number from 1, got {count!r}")
    _positive("representation_config", {name: config[name] for name in numbers})
    _positive("representation_config.lr", config["lr"])
    if config["opacity_bias"] >= 1:
        raise ModelError(f"option representation_config.opacity_bias must be under 1, got {config['opacity_bias']}")
    if config["perturb_offset"] and config["voxel_size"] <= 1:
        raise ModelError(f"perturb_offset needs representation_config.voxel_size over 1, got {config['voxel_size']}")
    return Representation(
        factors=dict(config["lr"]),
        perturbed=config["perturb_offset"],
        voxel_size=config["voxel_size"],
        num_gaussians=count,
        screen_filter=config["2d_filter_kernel_size"],
        world_filter=config["3d_filter_kernel_size"],
        scaling_bias=config["scaling_bias"],
        opacity_bias=config["opacity_bias"],
    )


def _same_keys(option: str, given: Mapping[str, Any], wanted: set[str]) -> None:
    if missing := sorted(wanted - given.keys()):
        raise ModelError(f"option {option} lacks {', '.join(missing)}")
    if unknown := sorted(given.keys() - wanted):
        raise ModelError(f"option {option} has {', '.join(unknown)}, which is unknown")


def _positive(option: str, numbers: Mapping[str, Any]) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise ModelError(f"option {option}.{name} must be a number over 0, got {value!r}")
