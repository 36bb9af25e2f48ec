"""Stage 2: velocity of the structured latents, features on occupied cells of a clip (docs/model.md, section 7).

Sparse rows are (b, t, x, y, z); times and tokens are (b, t, ...). A U-net of convolutions halves space, then time,
around a transformer in which all voxels of a clip attend to each other.
"""

import math
from dataclasses import dataclass, replace
from itertools import chain, pairwise

import torch
from torch import Tensor, nn

from ss4d.stages.errors import InputError, ModelError
from ss4d.stages.nn.args import at_least_one, one_of
from ss4d.stages.nn.block import KeptTokens
from ss4d.stages.nn.embed import absolute_position
from ss4d.stages.nn.flow_trunk import FlowArgs, FlowTrunk
from ss4d.stages.nn.norm import FINAL_EPS, layer_norm
from ss4d.stages.nn.precision import cast_weights
from ss4d.stages.nn.resample import SPACE_KERNEL, SPACE_TIME_KERNEL, TIME_KERNEL, ResidualBlock
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.coords import PerAxis, SparseTensor
from ss4d.stages.ops.pooling import NOT_MERGED, Pooling, pool, unpool
from ss4d.stages.ops.windows import frames

HALVE_SPACE: PerAxis = (1, 2, 2, 2)
HALVE_TIME: PerAxis = (2, 1, 1, 1)
CONV_TYPES = ("3D_1D", "3D_4D", "4D", "non")


@dataclass(frozen=True, kw_only=True)
class SLatFlow4DModelArgs(FlowArgs):
    """The options published beside the weights."""

    io_block_channels: tuple[int, ...]  # of each level that halves space; patch_size is 2^(number of them)
    conv_type: str = "3D"
    io_block_channels_t: tuple[int, ...] | None = None  # of each level that halves time
    num_io_res_blocks: int = 2
    num_io_res4d_blocks: int = 2  # of output blocks in time
    use_skip_connection: bool = True


@dataclass(frozen=True)
class _Step:
    """One residual block of the U-net and the resampling before it.

    Attributes:
        in_channels: of the rows before the remembered ones are joined.
        out_channels: of the rows it gives.
        strides: poolings before the block in this order; on the way out as many are undone.
    """

    in_channels: int
    out_channels: int
    strides: tuple[PerAxis, ...] = ()


@dataclass(frozen=True)
class _Way:
    """The levels of the U-net that halve space, or time, or (in 4D) both.

    Attributes:
        kernel: of the residual blocks.
        strides: of one level's poolings.
        levels: channels of each level, from the outside.
        inner: channels inside the last level.
    """

    kernel: tuple[int, ...]
    strides: tuple[PerAxis, ...]
    levels: tuple[int, ...]
    inner: int

    def steps_in(self, num_blocks: int) -> list[_Step]:
        """Per level `num_blocks` - 1 blocks, then one that halves and goes to the next level's channels."""
        steps = []
        for channels, deeper in self._pairs():
            steps += [_Step(channels, channels)] * (num_blocks - 1) + [_Step(channels, deeper, self.strides)]
        return steps

    def steps_out(self, num_blocks: int) -> list[_Step]:
        """The mirror image: per level one block that doubles, then `num_blocks` - 1 more."""
        steps = []
        for channels, deeper in reversed(self._pairs()):
            steps += [_Step(deeper, channels, self.strides)] + [_Step(channels, channels)] * (num_blocks - 1)
        return steps

    def _pairs(self) -> list[tuple[int, int]]:
        return list(pairwise((*self.levels, self.inner)))


def _ways(args: SLatFlow4DModelArgs) -> tuple[_Way, _Way, tuple[PerAxis, ...]]:
    """The levels in space, those in time, and the halvings in time that have no blocks."""
    both = args.conv_type == "4D"
    strides = (HALVE_SPACE, HALVE_TIME) if both else (HALVE_SPACE,)
    space = _Way(SPACE_TIME_KERNEL if both else SPACE_KERNEL, strides, args.io_block_channels, args.model_channels)
    levels = args.io_block_channels_t or ()
    bare = (HALVE_TIME,) * len(levels) if args.conv_type == "non" else ()
    kernel = SPACE_TIME_KERNEL if args.conv_type == "3D_4D" else TIME_KERNEL
    return space, _Way(kernel, (HALVE_TIME,), () if bare else levels, args.model_channels), bare


def _check(args: SLatFlow4DModelArgs) -> None:
    one_of("conv_type", args.conv_type, CONV_TYPES)
    at_least_one(args, "io_block_channels", "io_block_channels_t", "num_io_res_blocks", "num_io_res4d_blocks")
    levels_t = args.io_block_channels_t or ()
    if args.patch_size != 2 ** len(args.io_block_channels):
        raise ModelError(
            f"option patch_size is {args.patch_size}, but {len(args.io_block_channels)} levels of io_block_channels "
            f"halve the grid to a patch of {2 ** len(args.io_block_channels)}"
        )
    if args.conv_type == "4D" and levels_t:
        raise ModelError("option io_block_channels_t has no meaning with conv_type '4D', which halves time with space")
    if args.conv_type in ("3D_1D", "3D_4D"):
        if levels_t and levels_t[0] != args.model_channels:
            raise ModelError(
                f"io_block_channels_t starts with {levels_t[0]}, but its first block is given model_channels "
                f"{args.model_channels}"
            )
        if args.use_skip_connection and args.num_io_res_blocks != args.num_io_res4d_blocks:
            raise ModelError(
                f"with use_skip_connection, num_io_res4d_blocks {args.num_io_res4d_blocks} must equal "
                f"num_io_res_blocks {args.num_io_res_blocks}"
            )


@dataclass(frozen=True, eq=False)
class _Level:
    """Features and the embedded flow time (b, t, C) of their frames, which halving averages."""

    x: SparseTensor
    time: Tensor

    def halved(self, stride: PerAxis) -> tuple["_Level", tuple[Pooling, Tensor]]:
        """The coarser level, and what `doubled` needs to come back."""
        x, merged = pool(self.x, stride)
        b, t, c = self.time.shape
        time = self.time.view(b, t // stride[0], stride[0], c).mean(2)
        return _Level(x, time), (merged, self.time)

    def doubled(self, way_back: tuple[Pooling, Tensor]) -> "_Level":
        merged, time = way_back
        return _Level(unpool(self.x, merged), time)


@dataclass(frozen=True, eq=False)
class _Entered:
    """Where the way in has led; the way out takes from these lists, so that memory is given back as it goes on.

    Attributes:
        level: the one that the transformer is given.
        remembered: rows of each block.
        ways_back: what undoes each halving.
    """

    level: list[_Level]
    remembered: list[Tensor]
    ways_back: list[tuple[Pooling, Tensor]]

    def copy(self) -> "_Entered":
        """The same, to go out another time."""
        return _Entered([*self.level], [*self.remembered], [*self.ways_back])


class SLatFlow4DModel(FlowTrunk):
    """The sparse U-net of stage 2.

    Args:
        args: the published options.
        ops: kernels.

    Raises:
        ModelError: naming an option that cannot be honored.
    """

    def __init__(self, args: SLatFlow4DModelArgs, ops: Ops) -> None:
        _check(args)
        outer = (*args.io_block_channels, args.model_channels)[0]
        super().__init__(args, ops, widths_in=(args.in_channels, outer), widths_out=(outer, args.out_channels))
        self.args = args
        self._build_ways(ops)

    def _build_ways(self, ops: Ops) -> None:
        """The residual blocks before and after the transformer, and the resampling that goes with each."""
        args = self.args
        space, time, self._bare_halvings = _ways(args)
        joined = 2 if args.use_skip_connection else 1

        def blocks(way: _Way, steps: list[_Step], joined: int) -> nn.ModuleList:
            sizes = [(step.in_channels * joined, step.out_channels) for step in steps]
            return nn.ModuleList(ResidualBlock(i, o, args.model_channels, way.kernel, ops) for i, o in sizes)

        steps, steps_t = space.steps_in(args.num_io_res_blocks), time.steps_in(args.num_io_res_blocks)
        self.input_blocks, self.input_blocks_t = blocks(space, steps, 1), blocks(time, steps_t, 1)
        self._strides_in = [step.strides for step in steps + steps_t]
        steps, steps_t = space.steps_out(args.num_io_res_blocks), time.steps_out(args.num_io_res4d_blocks)
        self.out_blocks_t, self.out_blocks = blocks(time, steps_t, joined), blocks(space, steps, joined)
        self._strides_out = [step.strides for step in steps_t + steps]

    @property
    def frame_multiple(self) -> int:
        """A clip's frames must divide by this: how many of them are merged to one."""
        return math.prod(stride[0] for strides in (*self._strides_in, self._bare_halvings) for stride in strides)

    def set_torso_dtype(self, dtype: torch.dtype) -> None:
        """Runs all between input and output layer in `dtype` from now on; norms and embeddings stay in float32."""
        super().set_torso_dtype(dtype)
        for part in (self.input_blocks, self.input_blocks_t, self.out_blocks_t, self.out_blocks):
            cast_weights(part, dtype)

    def forward(self, x: SparseTensor, t: Tensor, cond: Tensor | None, kept: KeptTokens | None = None) -> SparseTensor:
        """Velocity at `x`.

        Args:
            x: features (N, c) of the noisy latents.
            t: (b, t) flow time of each frame, already x 1000.
            cond: (b, t, l, c) image tokens of each frame; None for zeros.
            kept: keys and values of `cond`, from `kept_tokens`; the first pass fills it and all must be given the same
                `cond`, without gradients. None keeps nothing.

        Returns:
            Features (N, c), c the output channels, on the same sites.

        Raises:
            InputError: if the shapes do not fit the network or each other.
        """
        self._check_inputs(x, t, cond)
        return self._leave(x, self._enter(x, t), cond, kept)

    def with_and_without(
        self, x: SparseTensor, t: Tensor, cond: Tensor, kept: KeptTokens | None = None
    ) -> tuple[SparseTensor, SparseTensor]:
        """Velocities at `x` under `cond` and under zeros, as two passes give them; arguments are those of a pass.

        What lies before the first look at tokens is the same for both, and is computed once.
        """
        self._check_inputs(x, t, cond)
        entered = self._enter(x, t)
        return self._leave(x, entered.copy(), cond, kept), self._leave(x, entered, None, None)

    def _enter(self, x: SparseTensor, t: Tensor) -> _Entered:
        """All that comes before the tokens: the blocks of the way in."""
        time = self.t_embedder(t).to(self.torso_dtype)
        level = _Level(x.replace(self.input_layer(x.feats).to(self.torso_dtype)), time)
        remembered: list[Tensor] = []
        ways_back: list[tuple[Pooling, Tensor]] = []
        for block, strides in zip(chain(self.input_blocks, self.input_blocks_t), self._strides_in, strict=True):
            level = _residual(block, _halve(level, strides, ways_back), (), ways_back)
            remembered.append(level.x.feats)
        return _Entered([_halve(level, self._bare_halvings, ways_back)], remembered, ways_back)

    def _leave(self, x: SparseTensor, entered: _Entered, cond: Tensor | None, kept: KeptTokens | None) -> SparseTensor:
        """The transformer and the way out; takes what is remembered as it goes."""
        level, remembered, ways_back = entered.level.pop(), entered.remembered, entered.ways_back
        level = replace(level, x=self._torso(level, cond, kept))
        level = _double(level, len(self._bare_halvings), ways_back)
        for block, strides in zip(chain(self.out_blocks_t, self.out_blocks), self._strides_out, strict=True):
            if self.args.use_skip_connection:
                joined = torch.cat([level.x.feats, remembered.pop()], dim=1)
                level = replace(level, x=level.x.replace(joined))
            level = _residual(block, level, strides, ways_back)
        return x.replace(self.out_layer(layer_norm(level.x.feats.float(), FINAL_EPS)))

    def _torso(self, level: _Level, cond: Tensor | None, kept: KeptTokens | None) -> SparseTensor:
        x, dtype = level.x, self.torso_dtype
        h = x.feats + absolute_position(x.coords[:, 2:], self.args.model_channels).to(dtype)
        return x.replace(self.transform(h, x.sites, level.time, cond, kept))

    def _check_inputs(self, x: SparseTensor, t: Tensor, cond: Tensor | None) -> None:
        if x.feats.ndim != 2 or x.feats.shape[1] != self.args.in_channels:
            raise InputError(f"the network takes latents (n, {self.args.in_channels}), got {tuple(x.feats.shape)}")
        tokens = None if cond is None else tuple(cond.shape)
        if t.ndim != 2 or (tokens and (len(tokens) != 4 or tokens[:2] != t.shape)):
            raise InputError(
                f"the network takes times (b, t) and tokens (b, t, l, c), got {tuple(t.shape)} and {tokens}"
            )
        if t.shape[1] % self.frame_multiple:
            raise InputError(
                f"{t.shape[1]} frames do not divide by {self.frame_multiple}, as many as the network merges; "
                f"repeat the last frame"
            )


def _halve(level: _Level, strides: tuple[PerAxis, ...], ways_back: list[tuple[Pooling, Tensor]]) -> _Level:
    """One pooling after the other, each remembered in `ways_back`."""
    for stride in strides:
        level, way_back = level.halved(stride)
        ways_back.append(way_back)
    return level


def _double(level: _Level, count: int, ways_back: list[tuple[Pooling, Tensor]]) -> _Level:
    """Undoes the last `count` poolings in `ways_back`."""
    for _ in range(count):
        level = level.doubled(ways_back.pop())
    return level


def _residual(
    block: nn.Module, level: _Level, strides: tuple[PerAxis, ...], ways_back: list[tuple[Pooling, Tensor]]
) -> _Level:
    """One block, which undoes the last poolings in `ways_back`, those by `strides`."""
    sites, time = level.x.sites, level.time
    for _ in strides:
        merged, time = ways_back.pop()
        sites = merged.fine
    t, x, y, z = map(math.prod, zip(NOT_MERGED, *strides, strict=True))
    row_frames = frames(sites, (time.shape[0], time.shape[1]))
    return _Level(block(level.x, time.flatten(0, 1), row_frames, sites, (t, x, y, z)), time)
