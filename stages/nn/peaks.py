"""How much memory a pass of a network peaks at, weights and what is kept aside, in closed form: an estimate.

`tests/stages/nn/test_memory.py` holds it to what is counted. Numbers of voxels are assumed as in
`ss4d.stages.nn.arithmetic` where they are not known.
"""

from collections.abc import Callable, Mapping
from itertools import accumulate
from operator import mul
from typing import Any

from ss4d.stages.nn.arithmetic import COARSEST, HALVED, Load, image_tokens
from ss4d.stages.nn.flow_trunk import FlowArgs
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoderArgs, read_representation
from ss4d.stages.nn.image_encoders import VisionTransformerArgs
from ss4d.stages.nn.latent_flow import SLatFlow4DModelArgs
from ss4d.stages.nn.occupancy import FRAMES_AT_ONCE, SparseStructureDecoderArgs
from ss4d.stages.nn.pieces import PIECE
from ss4d.stages.nn.structure_flow import SparseStructureFlow4DModelArgs

FULL = 4  # bytes of a number in float32
MERGED = 0.57  # part of the rows that is left when time is halved once
NEIGHBORS = 0.75  # share of a cell's neighbors that are active
GAUSSIAN_COPIES = 4  # of the decoder's raw channels, while they become Gaussians


def peak(args: Any, width: int, load: Load) -> float:
    """Bytes that pass through the network with these options at most; 0 for those that are small whatever the clip.

    Args:
        args: of the network.
        width: bytes of a number in its torso.
        load: that passes at once.
    """
    return next((count(args, width, load) for kind, count in PEAKS.items() if isinstance(args, kind)), 0.0)


def kept(args: Any, width: int, load: Load, room: int) -> int:
    """Bytes of keys and values of image tokens that a network keeps from pass to pass, if it is a flow.

    Args:
        args: of the network.
        width: bytes of a number in its torso.
        load: that passes at once.
        room: bytes that they may take: those of whole blocks are kept, as many as fit.
    """
    if not isinstance(args, FlowArgs):
        return 0
    block = load.frames * load.tokens * 2 * args.model_channels * width
    return min(args.num_blocks, room // block) * block


def _vision_transformer(args: VisionTransformerArgs, width: int, load: Load) -> float:
    at_once = min(load.frames, FRAMES_AT_ONCE)
    return at_once * image_tokens(args) * args.model_channels * width * (4 + 2 * args.mlp_ratio)


def _structure_flow(args: SparseStructureFlow4DModelArgs, width: int, load: Load) -> float:
    rows = load.frames * (args.resolution // args.patch_size) ** 3
    unit = rows * args.model_channels * width
    several = args.window_size is not None and load.frames > args.window_size // 2  # windows, not all equally long
    own = 7 if several else 6
    tokens = 6 + 2 * load.frames * load.tokens / rows
    feed_forward = 4 + 2 * args.mlp_ratio * min(rows, PIECE) / rows
    return _given(args, width, load) + _turns(args, rows) + unit * max(own, tokens, feed_forward)


def _latent_flow(args: SLatFlow4DModelArgs, width: int, load: Load) -> float:
    channels, space, time = args.model_channels, args.io_block_channels, args.io_block_channels_t or ()
    left = [HALVED] * len(space) + [MERGED] * len(time)
    rows = list(accumulate(left, mul, initial=load.filled(args.resolution)))
    widths = (*space, *time, channels)
    # What the way in leaves for the way out, and what the transformer is given.
    remembered = sum((args.num_io_res_blocks - 1) * n * c for n, c in zip(rows[:-1], widths[:-1], strict=True))
    remembered += sum(n * c for n, c in zip(rows[1:], widths[1:], strict=True))
    torso = width * (remembered + 9 * rows[-1] * channels + 4 * load.frames * load.tokens * channels)
    coarse, joined = rows[len(space)], 2 if args.use_skip_connection else 1
    # Inside a guided step all is remembered until the pass without tokens goes out, too.
    doubling = width * (3 * joined * coarse * channels + 4 * rows[0] * widths[0] + remembered)
    tables = 27 * sum(rows[: len(space) + 1]) * (4 + NEIGHBORS * 28)  # neighbors, and pairs of those that exist
    return _given(args, width, load) + _turns(args, rows[-1]) + tables + max(torso, doubling)


def _gaussian_decoder(args: SLatGaussianDecoderArgs, width: int, load: Load) -> float:
    rows = load.filled(args.resolution)
    raw = read_representation(args.representation_config).num_gaussians * 14
    attending = 7 * rows * args.model_channels * width + 2 * _turns(args, rows)
    return rows * args.latent_channels * FULL + max(attending, GAUSSIAN_COPIES * rows * raw * FULL)


def _structure_decoder(args: SparseStructureDecoderArgs, width: int, load: Load) -> float:
    cells = (COARSEST << (len(args.channels) - 1)) ** 3
    return min(load.frames, FRAMES_AT_ONCE) * cells * args.channels[-1] * 2 * (width + FULL)


def _given(args: FlowArgs, width: int, load: Load) -> float:
    """The image tokens, as they are given and as the torso takes them."""
    return load.frames * load.tokens * args.cond_channels * (FULL + width)


def _turns(args: Any, rows: float) -> float:
    """The rotation of each row by its frame's index, complex numbers of 8 bytes for each pair of a head's channels."""
    if args.pe_mode != "rope_t":
        return 0.0
    head = args.model_channels / args.num_heads if args.num_heads else args.num_head_channels
    return rows * float(head) / 2 * 8


PEAKS: Mapping[type, Callable[[Any, int, Load], float]] = {
    VisionTransformerArgs: _vision_transformer,
    SparseStructureFlow4DModelArgs: _structure_flow,
    SparseStructureDecoderArgs: _structure_decoder,
    SLatFlow4DModelArgs: _latent_flow,
    SLatGaussianDecoderArgs: _gaussian_decoder,
}
