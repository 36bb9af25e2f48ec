"""How much arithmetic a pass of a network takes, in closed form from its options: an estimate.

At the published size it is within a fifth of what is counted; small models have fewer image tokens than it takes. Only
matrix products and convolutions count. How many voxels an object has is not known beforehand: as many as objects
have at the published size, scaled as a surface is.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ss4d.stages.nn.column_encoder import ColumnEncoderArgs
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


def flop(args: Any, frames: int, voxels: float | None = None) -> float:
    """Floating-point operations of one pass of the network with these options.

    Args:
        args: of the network.
        frames: that pass.
        voxels: of a frame; None if that is not known.
    """
    return next(count(args, frames, voxels) for kind, count in COUNTS.items() if isinstance(args, kind))


def assumed_voxels(resolution: int) -> float:
    """Occupied cells of a frame, where they are not known."""
    return PUBLISHED_VOXELS * (resolution / PUBLISHED_RESOLUTION) ** 2


def _blocks(num_blocks: int, channels: int, mlp_ratio: float, rows: float, group: float) -> float:
    """Of transformer blocks whose rows attend to the `group` rows of their group."""
    per_row: float = num_blocks * ((8 + 4 * mlp_ratio) * channels**2 + 4 * group * channels)
    return rows * per_row


def _cross(num_blocks: int, channels: int, cond_channels: int, rows: float, frames: int) -> float:
    """Of cross-attention to the image tokens of each row's frame."""
    tokens = IMAGE_TOKENS * frames
    return num_blocks * (rows * (4 * channels**2 + 4 * IMAGE_TOKENS * channels) + tokens * 4 * cond_channels * channels)


def _vision_transformer(args: VisionTransformerArgs, frames: int, _: float | None) -> float:
    tokens = (args.image_size // args.patch_size) ** 2 + 1 + args.num_registers
    return _blocks(args.num_blocks, args.model_channels, args.mlp_ratio, tokens * frames, tokens)


def _column_encoder(args: ColumnEncoderArgs, frames: int, _: float | None) -> float:
    cells = [(args.image_size / args.patch_size / (1 << level)) ** 2 for level in range(len(args.channels))]
    convolutions = 2 * (args.num_blocks + args.num_up_blocks)
    return frames * sum(convolutions * 18 * c**2 * n for c, n in zip(args.channels, cells, strict=True))


def _structure_flow(args: SparseStructureFlow4DModelArgs, frames: int, _: float | None) -> float:
    tokens = (args.resolution // args.patch_size) ** 3
    together = min(args.window_size or frames, frames) if args.expand_self_attn else 1
    rows = tokens * frames
    return _blocks(args.num_blocks, args.model_channels, args.mlp_ratio, rows, tokens * together) + _cross(
        args.num_blocks, args.model_channels, args.cond_channels, rows, frames
    )


def _occupancy(args: SparseStructureDecoderArgs | SparseStructureEncoderArgs, frames: int, _: float | None) -> float:
    coarse_first = sorted(args.channels, reverse=True)
    sizes = [(COARSEST << level) ** 3 for level in range(len(coarse_first))]
    convolutions = [2 * args.num_res_blocks] * len(sizes)
    convolutions[0] += 2 * args.num_res_blocks_middle
    return frames * sum(
        count * 54 * channels**2 * cells
        for count, channels, cells in zip(convolutions, coarse_first, sizes, strict=True)
    )


def _latent_flow(args: SLatFlow4DModelArgs, frames: int, voxels: float | None) -> float:
    filled = (voxels or assumed_voxels(args.resolution)) * frames
    rows = filled * HALVED ** len(args.io_block_channels) / 2 ** len(args.io_block_channels_t or ())
    group = rows if args.expand_self_attn else rows / frames
    widest = args.io_block_channels[0] if args.io_block_channels else args.model_channels
    convolutions = 2 * 2 * args.num_io_res_blocks * 54 * widest**2 * filled  # each way, two of a block
    return (
        _blocks(args.num_blocks, args.model_channels, args.mlp_ratio, rows, group)
        + _cross(args.num_blocks, args.model_channels, args.cond_channels, rows, frames)
        + convolutions
    )


def _sparse_transformer(args: SparseTransformerArgs, frames: int, voxels: float | None) -> float:
    rows = (voxels or assumed_voxels(args.resolution)) * frames
    together = frames if args.expand_self_attn else 1
    if args.attn_mode == "full":
        group = rows / frames * together
    else:  # a surface crosses a window in about twice as many cells as a side of it has
        group = 2 * args.window_size**2 * min(args.window_size, together)
    return _blocks(args.num_blocks, args.model_channels, args.mlp_ratio, rows, group)


COUNTS: Mapping[type, Callable[[Any, int, float | None], float]] = {
    VisionTransformerArgs: _vision_transformer,
    ColumnEncoderArgs: _column_encoder,
    SparseStructureFlow4DModelArgs: _structure_flow,
    SparseStructureDecoderArgs: _occupancy,
    SparseStructureEncoderArgs: _occupancy,
    SLatFlow4DModelArgs: _latent_flow,
    SLatGaussianDecoderArgs: _sparse_transformer,
    SLatEncoderArgs: _sparse_transformer,
}
