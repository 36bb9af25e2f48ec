"""Stage 1: velocity of the occupancy latent, a dense grid of every frame (docs/model.md, section 5).

Axes: b clip, t frame, c channels, x y z cells; tokens are packed rows on the full grid, x slowest, z fastest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ss4d.stages.errors import InputError, ModelError
from ss4d.stages.nn.args import at_least_one
from ss4d.stages.nn.block import KeptTokens
from ss4d.stages.nn.embed import absolute_position, constant
from ss4d.stages.nn.flow_trunk import FlowArgs, FlowTrunk
from ss4d.stages.nn.norm import FINAL_EPS, layer_norm
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.coords import Sites, full_grid
from ss4d.stages.ops.windows import EACH_FRAME, Extent


@dataclass(frozen=True, kw_only=True)
class SparseStructureFlow4DModelArgs(FlowArgs):
    """The options published beside the weights."""

    window_size: int | None = None  # frames that attend to each other; None: all of a clip

    @property
    def extent(self) -> Extent:
        """What a window spans along (t, x, y, z)."""
        return (self.window_size, None, None, None) if self.expand_self_attn else EACH_FRAME


def _check(args: SparseStructureFlow4DModelArgs) -> None:
    at_least_one(args, "window_size")
    if args.resolution % args.patch_size:
        raise ModelError(f"resolution {args.resolution} does not divide by patch_size {args.patch_size}")
    if args.window_size is not None and not args.expand_self_attn:
        raise ModelError("option window_size needs expand_self_attn: frames that attend to themselves have no window")


class SparseStructureFlow4DModel(FlowTrunk):
    """The transformer of stage 1.

    Args:
        args: the published options.
        ops: kernels.

    Raises:
        ModelError: naming an option that cannot be honored.
    """

    def __init__(self, args: SparseStructureFlow4DModelArgs, ops: Ops) -> None:
        channels, cells = args.model_channels, args.patch_size**3
        super().__init__(
            args, ops, widths_in=(args.in_channels * cells, channels), widths_out=(channels, args.out_channels * cells)
        )
        _check(args)
        self.args = args
        self.pos_emb: Tensor
        shape = ((args.resolution // args.patch_size) ** 3, channels)
        self.register_buffer("pos_emb", constant(shape, self.computed()["pos_emb"]))
        self._grid: tuple[Any, Sites] | None = None

    def computed(self) -> dict[str, Callable[[], Tensor]]:
        """What gives the buffers that follow from the options, by name."""
        side = self.args.resolution // self.args.patch_size
        return {"pos_emb": lambda: absolute_position(_cells(side), self.args.model_channels)}

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None, kept: KeptTokens | None = None) -> Tensor:
        """Velocity at `x`.

        Args:
            x: (b, t, c, r, r, r) noisy latents.
            t: (b, t) flow time of each frame, already x 1000.
            cond: (b, t, l, c) image tokens of each frame; None for zeros.
            kept: keys and values of `cond`, from `kept_tokens`; the first pass fills it and all must be given the same
                `cond`, without gradients. None keeps nothing.

        Returns:
            (b, t, c, r, r, r), c the output channels.

        Raises:
            InputError: if the shapes do not fit the network or each other.
        """
        self._check_inputs(x, t, cond)
        num_clips, num_frames = x.shape[:2]
        sites = self._sites((num_clips, num_frames), x.device)
        h = self.transform(self._embed(x), sites, self.t_embedder(t), cond, kept)
        h = self.out_layer(layer_norm(h.float(), FINAL_EPS))
        return _unpatchify(h, num_clips, num_frames, self.args.resolution, self.args.patch_size)

    def _embed(self, x: Tensor) -> Tensor:
        h = self.input_layer(_patchify(x, self.args.patch_size))
        embedded: Tensor = h.view(-1, *self.pos_emb.shape) + self.pos_emb
        return embedded.flatten(0, 1).to(self.torso_dtype)

    def _sites(self, clip_shape: tuple[int, int], device: torch.device) -> Sites:
        """The full grid of tokens, kept for the next call: a sampler asks for the same one at every step."""
        key = (clip_shape, device)
        if self._grid is None or self._grid[0] != key:
            self._grid = (key, full_grid(clip_shape, self.args.resolution // self.args.patch_size, device))
        return self._grid[1]

    def _check_inputs(self, x: Tensor, t: Tensor, cond: Tensor | None) -> None:
        wanted = (self.args.in_channels, *(self.args.resolution,) * 3)
        if x.ndim != 6 or x.shape[2:] != wanted:
            raise InputError(f"the network takes latents (b, t, {', '.join(map(str, wanted))}), got {tuple(x.shape)}")
        tokens = None if cond is None else tuple(cond.shape)
        if t.shape != x.shape[:2] or (tokens and (len(tokens) != 4 or tokens[:2] != x.shape[:2])):
            raise InputError(
                f"latents of {x.shape[0]} clips x {x.shape[1]} frames need times (b, t) and tokens (b, t, l, c), "
                f"got {tuple(t.shape)} and {tokens}"
            )


def _cells(size: int) -> Tensor:
    """Every (x, y, z) of a grid, x slowest: (size^3, 3)."""
    axis = torch.arange(size)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).flatten(0, 2)


def _patchify(x: Tensor, size: int) -> Tensor:
    """(b, t, c, r, r, r) to rows (b t tokens, c size^3): channel slowest, then the patch's x, y, z."""
    clips, frame_count, channels, r = x.shape[:4]
    n = r // size
    # As einops says it: "(b t) c (x i) (y j) (z k) -> (b t) x y z c i j k".
    patches = x.reshape(clips * frame_count, channels, n, size, n, size, n, size).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return patches.reshape(clips * frame_count * n**3, channels * size**3)


def _unpatchify(rows: Tensor, clips: int, frame_count: int, r: int, size: int) -> Tensor:
    """The inverse of `_patchify`."""
    n = r // size
    # As einops says it: "(b t) x y z c i j k -> (b t) c (x i) (y j) (z k)".
    patches = rows.view(clips * frame_count, n, n, n, -1, size, size, size).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return patches.reshape(clips, frame_count, -1, r, r, r)
