"""The transformer block of every network, dense or sparse, 3D or 4D; rows are packed (n, c), sorted by clip and frame.

Networks differ only in which rows attend to each other and in whether rows know their frame index: both are in `Rows`.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from ss4d.stages.nn.attention import Attention, KeysValues
from ss4d.stages.nn.norm import LayerNorm, layer_norm
from ss4d.stages.nn.pieces import by_rows
from ss4d.stages.ops import rotary
from ss4d.stages.ops.attention import AttentionPlan, window_plan
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.coords import PerAxis, Sites
from ss4d.stages.ops.windows import NO_SHIFT, Extent, Frames


@dataclass(frozen=True, eq=False)
class Rows:
    """What a stack of blocks must know about the rows it works on.

    Attributes:
        plans: block i attends inside the windows of plan i mod their number.
        phase: (N, 1, D / 2) rotation of each row by its frame index; None for none.
    """

    plans: tuple[AttentionPlan, ...]
    phase: Tensor | None


@dataclass(frozen=True, eq=False)
class Condition:
    """What the rows of each frame are conditioned on.

    Attributes:
        frames: the rows of each frame.
        time: (frames, C) embedding of the flow time; (frames, 6 C) modulation where blocks share theirs.
        tokens: (frames x L, context channels) image tokens; None where all of them are zeros.
        plan: attention of rows to the tokens of their frame; None where there are no tokens.
        kept: keeps keys and values of these tokens from pass to pass; None keeps none.
    """

    frames: Frames
    time: Tensor
    tokens: Tensor | None
    plan: AttentionPlan | None
    kept: "KeptTokens | None" = None


class KeptTokens:
    """Keys and values of the same image tokens, kept from pass to pass: those of the first blocks, as many as fit.

    Args:
        room: bytes that they may take together.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: dict[Attention, KeysValues] = {}

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return sum(tensor.nbytes for pair in self._kept.values() for tensor in pair)

    def of(self, attention: Attention, tokens: Tensor) -> KeysValues:
        """What `attention` sees in `tokens` (tokens, context channels), which must always be the same."""
        if attention in self._kept:
            return self._kept[attention]
        made = attention.keys_values(tokens)
        if self.size + sum(tensor.nbytes for tensor in made) <= self._room:
            self._kept[attention] = made
        return made


def rows_of(sites: Sites, extent: Extent, *, head_channels: int, rope_base: float | None) -> Rows:
    """Windows of `extent`, shifted by half of it in every odd block, and rotation by the frame index.

    Args:
        sites: cells of the rows.
        extent: width of a window for each axis; None puts no border on that axis.
        head_channels: D.
        rope_base: base of the rotation's frequencies; None for no rotation.
    """
    half: PerAxis = tuple(0 if width is None else width // 2 for width in extent)  # type: ignore[assignment]  # of four
    shifts = (NO_SHIFT,) if half == NO_SHIFT else (NO_SHIFT, half)
    phase = None
    if rope_base is not None:
        phase = sites.derived(
            ("phases", head_channels, rope_base), lambda s: rotary.phases(s.coords[:, 1], head_channels, rope_base)
        )
    return Rows(tuple(window_plan(sites, extent, shift) for shift in shifts), phase)


class FeedForward(nn.Module):
    """Linear, tanh-GELU, Linear."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        hidden = int(channels * ratio)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        return by_rows(self.mlp, x)


class Block(nn.Module):
    """Attention and feed-forward, each after a norm and added to the rows (docs/model.md, section 8)."""

    def __init__(self, channels: int, heads: int, mlp_ratio: float, ops: Ops, *, head_norm: bool) -> None:
        super().__init__()
        self.attn = Attention(channels, heads, ops, head_norm=head_norm)
        self.mlp = FeedForward(channels, mlp_ratio)

    def forward(self, x: Tensor, plan: AttentionPlan, phase: Tensor | None) -> Tensor:
        """Rows (N, C) to rows (N, C)."""
        x = x + self.attn(layer_norm(x), plan, phase=phase)
        out: Tensor = x + self.mlp(layer_norm(x))
        return out


class ConditionedBlock(nn.Module):
    """A block that the flow time modulates and that sees the image tokens of its frame (docs/model.md, section 5).

    Args:
        channels: C.
        context_channels: width of the image tokens.
        heads: H.
        mlp_ratio: hidden width of the feed-forward over C.
        ops: kernels.
        head_norm: normalize queries and keys of self-attention.
        cross_head_norm: normalize queries and keys of attention to tokens.
        shared_modulation: the modulation comes with the condition instead of from this block's own layer.
    """

    def __init__(
        self,
        channels: int,
        context_channels: int,
        heads: int,
        mlp_ratio: float,
        ops: Ops,
        *,
        head_norm: bool,
        cross_head_norm: bool,
        shared_modulation: bool,
    ) -> None:
        super().__init__()
        self.norm2 = LayerNorm(channels)
        self.self_attn = Attention(channels, heads, ops, head_norm=head_norm)
        self.cross_attn = Attention(channels, heads, ops, context_channels=context_channels, head_norm=cross_head_norm)
        self.mlp = FeedForward(channels, mlp_ratio)
        self.adaLN_modulation = None if shared_modulation else modulation_layer(channels)

    def forward(self, x: Tensor, plan: AttentionPlan, phase: Tensor | None, condition: Condition) -> Tensor:
        """Rows (N, C) to rows (N, C)."""
        frames, time = condition.frames, condition.time
        modulation = time if self.adaLN_modulation is None else self.adaLN_modulation(time)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation.chunk(6, dim=1)
        # Nothing keeps a name that is not needed until the end: rows are what memory peaks at.
        attended = self.self_attn(modulate(layer_norm(x), shift, scale, frames), plan, phase=phase)
        x = add_gated(x, attended, gate, frames)
        del attended
        x = x + self._seen(x, condition)
        h = self.mlp(modulate(layer_norm(x), mlp_shift, mlp_scale, frames))
        return add_gated(x, h, mlp_gate, frames)

    def _seen(self, x: Tensor, condition: Condition) -> Tensor:
        """What rows (N, C) find in the tokens: (N, C), or (C) where it is the same for all."""
        if condition.tokens is None or condition.plan is None:
            return self.cross_attn.of_zeros()
        context = condition.tokens if condition.kept is None else condition.kept.of(self.cross_attn, condition.tokens)
        seen: Tensor = self.cross_attn(self.norm2(x), condition.plan, context=context)
        return seen


def modulation_layer(channels: int) -> nn.Sequential:
    """Embedding of the flow time (C) to shift, scale, gate of attention and shift, scale, gate of the feed-forward."""
    return nn.Sequential(nn.SiLU(), nn.Linear(channels, 6 * channels))


def modulate(x: Tensor, shift: Tensor, scale: Tensor, frames: Frames) -> Tensor:
    """Gives x (1 + scale) + shift with shift and scale (frames, C) of each row's frame."""
    spread = frames.spread
    return spread(shift).addcmul(frames.split(x), spread(1 + scale)).view_as(x)


def add_gated(x: Tensor, h: Tensor, gate: Tensor, frames: Frames) -> Tensor:
    """Gives x + h gate with gate (frames, C) of each row's frame."""
    return frames.split(x).addcmul(frames.split(h), frames.spread(gate)).view_as(x)
