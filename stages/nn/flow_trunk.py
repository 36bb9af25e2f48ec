"""What the flows of both stages share: options, embedded flow time, conditioned blocks (docs/model.md, section 5).

Rows are packed (n, c) on sites (b, t, x, y, z).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ss4d.stages.nn.args import at_least_one, head_count, one_of
from ss4d.stages.nn.block import Condition, ConditionedBlock, KeptTokens, modulation_layer, rows_of
from ss4d.stages.nn.embed import TimestepEmbedder
from ss4d.stages.nn.precision import cast_weights
from ss4d.stages.ops.attention import token_plan
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.coords import Sites
from ss4d.stages.ops.windows import EACH_FRAME, WHOLE_CLIP, Extent, frames

# Of keys and values of image tokens. A small object or a small model has more tokens than rows: with all blocks of the
# published latent flow they are a third of a pass over 3,000 voxels a frame. So many bytes hold those of 9 frames in
# half precision; of 32 frames they would take 4 GiB, and save a hundredth where there are 20,000 voxels.
KEPT_BYTES = 5 << 28


@dataclass(frozen=True, kw_only=True)
class FlowArgs:
    """The published options that both flows have.

    `use_fp16` and `use_checkpoint` state how the published run computed and trained; here the caller's
    `set_torso_dtype` decides the precision.
    """

    resolution: int  # cells of the grid along each axis
    in_channels: int
    model_channels: int
    cond_channels: int  # width of the image tokens
    out_channels: int
    num_blocks: int
    patch_size: int = 2  # cells merged to a token along each axis
    pe_mode: str = "ape"  # "rope_t": rotate by the frame index; "ape": do not
    num_heads: int | None = None  # None: model_channels / num_head_channels
    num_head_channels: int | None = 64
    mlp_ratio: float = 4.0
    expand_self_attn: bool = False  # whether rows of several frames attend to each other
    rope_base: float = 10000.0
    share_mod: bool = False
    qk_rms_norm: bool = False
    qk_rms_norm_cross: bool = False
    use_fp16: bool = False
    use_checkpoint: bool = False
    insert_temporal: bool = False

    @property
    def extent(self) -> Extent:
        """What a window spans along (t, x, y, z)."""
        return WHOLE_CLIP if self.expand_self_attn else EACH_FRAME


class FlowTrunk(nn.Module):
    """Embedded flow time, input layer, blocks, output layer; a flow adds how its rows pass from one to the next.

    Args:
        args: the published options.
        ops: kernels.
        widths_in: channels that the input layer takes and gives.
        widths_out: channels that the output layer takes and gives.

    Attributes:
        torso_dtype: that the blocks compute in.
        kept_bytes: that keys and values of a clip's image tokens may take from one sampler step to the next.

    Raises:
        ModelError: naming an option that cannot be honored.
    """

    def __init__(self, args: FlowArgs, ops: Ops, *, widths_in: tuple[int, int], widths_out: tuple[int, int]) -> None:
        super().__init__()
        one_of("pe_mode", args.pe_mode, ("rope_t", "ape"))
        one_of("insert_temporal", args.insert_temporal, (False,))
        at_least_one(args, "resolution", "in_channels", "model_channels", "cond_channels", "out_channels", "patch_size")
        at_least_one(args, "num_heads", "num_head_channels", "mlp_ratio", "rope_base")
        self._args = args
        self.heads = head_count(args.model_channels, args.num_heads, args.num_head_channels)
        self.torso_dtype = torch.float32
        self.kept_bytes = KEPT_BYTES
        self.t_embedder = TimestepEmbedder(args.model_channels)
        self.adaLN_modulation = modulation_layer(args.model_channels) if args.share_mod else None
        self.input_layer = nn.Linear(*widths_in)
        self.blocks = nn.ModuleList(
            ConditionedBlock(
                args.model_channels,
                args.cond_channels,
                self.heads,
                args.mlp_ratio,
                ops,
                head_norm=args.qk_rms_norm,
                cross_head_norm=args.qk_rms_norm_cross,
                shared_modulation=args.share_mod,
            )
            for _ in range(args.num_blocks)
        )
        self.out_layer = nn.Linear(*widths_out)

    def set_torso_dtype(self, dtype: torch.dtype) -> None:
        """Runs the blocks in `dtype` from now on; norms, embeddings, input and output layers stay in float32."""
        self.torso_dtype = dtype
        cast_weights(self.blocks, dtype)

    def kept_tokens(self, sharers: int = 1) -> KeptTokens:
        """A new memory for keys and values of image tokens, for one of so many `sharers` of `kept_bytes`."""
        return KeptTokens(self.kept_bytes // sharers)

    def transform(self, h: Tensor, sites: Sites, time: Tensor, cond: Tensor | None, kept: KeptTokens | None) -> Tensor:
        """Rows (N, C) through all blocks.

        Args:
            h: (N, C) rows of `sites`, in the blocks' precision.
            sites: cells of the rows.
            time: (b, t, C) embedded flow time of the frames that `sites` has.
            cond: (b, k t, l, c) image tokens; a frame that k frames were merged to sees the tokens of all k. None
                stands for tokens that are all zeros, whose attention is the same for every row.
            kept: keys and values of `cond`, kept from pass to pass; see `Condition`.
        """
        args, dtype = self._args, self.torso_dtype
        rows = rows_of(
            sites,
            args.extent,
            head_channels=args.model_channels // self.heads,
            rope_base=args.rope_base if args.pe_mode == "rope_t" else None,
        )
        clip_shape = (time.shape[0], time.shape[1])
        time = time.flatten(0, 1)
        if self.adaLN_modulation is not None:
            time = self.adaLN_modulation(time.float())
        tokens = None if cond is None else cond.reshape(*clip_shape, -1, cond.shape[-1])
        condition = Condition(
            frames=frames(sites, clip_shape),
            time=time.to(dtype),
            tokens=None if tokens is None else tokens.flatten(0, 2).to(dtype),
            plan=None if tokens is None else token_plan(sites, clip_shape, tokens.shape[2]),
            kept=kept,
        )
        for i, block in enumerate(self.blocks):
            h = block(h, rows.plans[i % len(rows.plans)], rows.phase, condition)
        return h
