"""The transformer on sparse voxels that the Gaussian decoder and the latent encoder share (docs/model.md, section 8).

Rows are (n, c) on sites (b, t, x, y, z).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ss4d.stages.errors import InputError
from ss4d.stages.nn.args import at_least_one, head_count, one_of
from ss4d.stages.nn.block import Block, rows_of
from ss4d.stages.nn.embed import absolute_position
from ss4d.stages.nn.norm import FINAL_EPS, layer_norm
from ss4d.stages.nn.pieces import by_rows
from ss4d.stages.nn.precision import cast_weights
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.coords import SparseTensor
from ss4d.stages.ops.windows import EACH_FRAME, WHOLE_CLIP, Extent

ROPE_BASE = 10000.0


@dataclass(frozen=True, kw_only=True)
class SparseTransformerArgs:
    """The published options that decoder and encoder have in common.

    `use_fp16` and `use_checkpoint` state how the published run computed and trained; here the caller's
    `set_torso_dtype` decides the precision.
    """

    resolution: int  # cells of the voxel grid along each axis
    model_channels: int
    latent_channels: int
    num_blocks: int
    pe_mode: str = "ape"  # "rope_t": rotate by the frame index; "ape": do not
    num_heads: int | None = None  # None: model_channels / num_head_channels
    num_head_channels: int | None = 64
    mlp_ratio: float = 4.0
    attn_mode: str = "swin"  # "swin": cubes of window_size; "full": all voxels
    window_size: int = 8  # cells, and frames where several attend to each other
    expand_self_attn: bool = True  # whether voxels of several frames attend to each other
    qk_rms_norm: bool = False
    use_fp16: bool = True
    use_checkpoint: bool = False

    @property
    def extent(self) -> Extent:
        """What a window spans along (t, x, y, z)."""
        if self.attn_mode == "full":
            return WHOLE_CLIP if self.expand_self_attn else EACH_FRAME
        w = self.window_size
        return (w if self.expand_self_attn else 1, w, w, w)


class SparseTransformer(nn.Module):
    """Input layer, position embedding, blocks, output layer.

    Args:
        args: the published options.
        in_channels: of the rows given.
        out_channels: of the rows returned.
        ops: kernels.

    Raises:
        ModelError: naming an option that cannot be honored.
    """

    def __init__(self, args: SparseTransformerArgs, in_channels: int, out_channels: int, ops: Ops) -> None:
        super().__init__()
        one_of("attn_mode", args.attn_mode, ("swin", "full"))
        one_of("pe_mode", args.pe_mode, ("rope_t", "ape"))
        at_least_one(args, "resolution", "model_channels", "latent_channels", "num_heads", "num_head_channels")
        at_least_one(args, "mlp_ratio", "window_size")
        self.heads = head_count(args.model_channels, args.num_heads, args.num_head_channels)
        self.torso_dtype = torch.float32
        self._args, self._in_channels = args, in_channels
        channels = args.model_channels
        self.input_layer = nn.Linear(in_channels, channels)
        self.blocks = nn.ModuleList(
            Block(channels, self.heads, args.mlp_ratio, ops, head_norm=args.qk_rms_norm) for _ in range(args.num_blocks)
        )
        self.out_layer = nn.Linear(channels, out_channels)

    def set_torso_dtype(self, dtype: torch.dtype) -> None:
        """Runs the blocks in `dtype` from now on; norms, embeddings, input and output layers stay in float32."""
        self.torso_dtype = dtype
        cast_weights(self.blocks, dtype)

    def transform(self, x: SparseTensor) -> Tensor:
        """Features (N, in_channels) to rows (N, out_channels).

        Raises:
            InputError: if the features have another width.
        """
        if x.feats.ndim != 2 or x.feats.shape[1] != self._in_channels:
            raise InputError(f"the network takes features (n, {self._in_channels}), got {tuple(x.feats.shape)}")
        args = self._args
        rows = rows_of(
            x.sites,
            args.extent,
            head_channels=args.model_channels // self.heads,
            rope_base=ROPE_BASE if args.pe_mode == "rope_t" else None,
        )
        h = by_rows(self._embed, x.feats, x.coords[:, 2:])
        for i, block in enumerate(self.blocks):
            h = block(h, rows.plans[i % len(rows.plans)], rows.phase)
        return by_rows(self._finish, h)

    def _embed(self, feats: Tensor, positions: Tensor) -> Tensor:
        h: Tensor = self.input_layer(feats) + absolute_position(positions, self._args.model_channels)
        return h.to(self.torso_dtype)

    def _finish(self, h: Tensor) -> Tensor:
        out: Tensor = self.out_layer(layer_norm(h.float(), FINAL_EPS))
        return out
