"""How much arithmetic a pass of a network takes, in closed form from its options: an estimate.

At the published size it is within a fifth of what is counted. Only matrix products and convolutions count. How many
voxels an object has is not known beforehand: as many as objects have at the published size, scaled as a surface is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ss4d.stages.nn.column_encoder import ColumnEncoderArgs
from ss4d.stages.nn.flow_trunk import FlowArgs
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoderArgs
from ss4d.stages.nn.image_encoders import VisionTransformerArgs
from ss4d.stages.nn.latent_encoder import SLatEncoderArgs
from ss4d.stages.nn.latent_flow import SLatFlow4DModelArgs
from ss4d.stages.nn.occupancy import SparseStructureDecoderArgs, SparseStructureEncoderArgs
from ss4d.stages.nn.structure_flow import SparseStructureFlow4DModelArgs
from ss4d.stages.nn.trunk import SparseTransformerArgs

PUBLISHED_VOXELS, PUBLISHED_RESOLUTION = 20_000, 64  # of a frame
HALVED = 0.21  # part of a surface's voxels that is left when space is halved once
IMAGE_TOKENS = 1374  # of a frame, in the published model
COARSEST = 16  # cells along each axis of the grid that occupancy latents have


@dataclass(frozen=True, kw_only=True)
class Load:
    """What passes through a network at once.

    Attributes:
        frames: how many.
        voxels: of a frame; None if that is not known.
        tokens: image tokens of a frame.
    """

    frames: int
    voxels: float | None = None
    tokens: int = IMAGE_TOKENS

    def filled(self, resolution: int) -> float:
        """Occupied cells of all frames on a grid of `resolution`, or what is assumed for them."""
        assumed = PUBLISHED_VOXELS * (resolution / PUBLISHED_RESOLUTION) ** 2
        return (self.voxels or assumed) * self.frames


def flop(args: Any, load: Load) -> float:
    """Floating-point operations of one pass of the network with these options."""
    return next(count(args, load) for kind, count in COUNTS.items() if isinstance(args, kind))


def image_tokens(args: VisionTransformerArgs | ColumnEncoderArgs) -> int:
    """How many tokens the image encoder with these options makes of a frame."""
    if isinstance(args, ColumnEncoderArgs):
        return args.resolution**2
    return (args.image_size // args.patch_size) ** 2 + 1 + args.num_registers


def _blocks(num_blocks: int, channels: int, mlp_ratio: float, rows: float, group: float) -> float:
    """Of transformer blocks whose rows attend to the `group` rows of their group."""
    per_row: float = num_blocks * ((8 + 4 * mlp_ratio) * channels**2 + 4 * group * channels)
    return rows * per_row


def _cross(args: FlowArgs, rows: float, load: Load) -> float:
    """Of cross-attention to the image tokens of each row's frame."""
    channels, seen = args.model_channels, load.tokens
    own = rows * (4 * channels**2 + 4 * seen * channels)
    return args.num_blocks * (own + seen * load.frames * 4 * args.cond_channels * channels)


def _vision_transformer(args: VisionTransformerArgs, load: Load) -> float:
    tokens = image_tokens(args)
    return _blocks(args.num_blocks, args.model_channels, args.mlp_ratio, tokens * load.frames, tokens)


def _column_encoder(args: ColumnEncoderArgs, load: Load) -> float:
    cells = [(args.image_size / args.patch_size / (1 << level)) ** 2 for level in range(len(args.channels))]
    convolutions = 2 * (args.num_blocks + args.num_up_blocks)
    return load.frames * sum(convolutions * 18 * c**2 * n for c, n in zip(args.channels, cells, strict=True))


def _structure_flow(args: SparseStructureFlow4DModelArgs, load: Load) -> float:
    cells = (args.resolution // args.patch_size) ** 3
    together = min(args.window_size or load.frames, load.frames) if args.expand_self_attn else 1
    rows = cells * load.frames
    blocks = _blocks(args.num_blocks, args.model_channels, args.mlp_ratio, rows, cells * together)
    return blocks + _cross(args, rows, load)


def _occupancy(args: SparseStructureDecoderArgs | SparseStructureEncoderArgs, load: Load) -> float:
    coarse_first = sorted(args.channels, reverse=True)
    sizes = [(COARSEST << level) ** 3 for level in range(len(coarse_first))]
    convolutions = [2 * args.num_res_blocks] * len(sizes)
    convolutions[0] += 2 * args.num_res_blocks_middle
    return load.frames * sum(
        count * 54 * channels**2 * cells
        for count, channels, cells in zip(convolutions, coarse_first, sizes, strict=True)
    )


def _latent_flow(args: SLatFlow4DModelArgs, load: Load) -> float:
    filled = load.filled(args.resolution)
    rows = filled * HALVED ** len(args.io_block_channels) / 2 ** len(args.io_block_channels_t or ())
    group = rows if args.expand_self_attn else rows / load.frames
    widest = args.io_block_channels[0] if args.io_block_channels else args.model_channels
    convolutions = 2 * 2 * args.num_io_res_blocks * 54 * widest**2 * filled  # each way, two of a block
    return (
        _blocks(args.num_blocks, args.model_channels, args.mlp_ratio, rows, group)
        + _cross(args, rows, load)
        + convolutions
    )


def _sparse_transformer(args: SparseTransformerArgs, load: Load) -> float:
    rows = load.filled(args.resolution)
    together = load.frames if args.expand_self_attn else 1
    if args.attn_mode == "full":
        group = rows / load.frames * together
    else:  # a surface crosses a window in about twice as many cells as a side of it has
        group = 2 * args.window_size**2 * min(args.window_size, together)
    return _blocks(args.num_blocks, args.model_channels, args.mlp_ratio, rows, group)


COUNTS: Mapping[type, Callable[[Any, Load], float]] = {
    VisionTransformerArgs: _vision_transformer,
    ColumnEncoderArgs: _column_encoder,
    SparseStructureFlow4DModelArgs: _structure_flow,
    SparseStructureDecoderArgs: _occupancy,
    SparseStructureEncoderArgs: _occupancy,
    SLatFlow4DModelArgs: _latent_flow,
    SLatGaussianDecoderArgs: _sparse_transformer,
    SLatEncoderArgs: _sparse_transformer,
}
