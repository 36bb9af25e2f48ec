"""Multi-head attention between packed rows; rows are (n, c), inside a head (n, h, d)."""

from functools import partial

import torch
from torch import Tensor, nn

from ss4d.stages.nn.norm import HeadNorm
from ss4d.stages.nn.pieces import by_rows
from ss4d.stages.ops.attention import AttentionPlan, gather
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.rotary import rotate

KeysValues = tuple[Tensor, Tensor]  # (tokens, H, D) each, the keys normalized where the module does that


class Attention(nn.Module):
    """Self-attention of rows, or, with `context_channels`, attention of rows to image tokens.

    Rotation comes before the norm of queries and keys (docs/model.md, section 5).

    Args:
        channels: C.
        heads: H; C / H is the width of a head.
        ops: kernels.
        context_channels: width of the image tokens; None for self-attention.
        head_norm: whether queries and keys are normalized (`qk_rms_norm`, `qk_rms_norm_cross`).
    """

    def __init__(
        self, channels: int, heads: int, ops: Ops, *, context_channels: int | None = None, head_norm: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.ops, self.head_norm = heads, ops, head_norm
        if context_channels is None:
            self.to_qkv = nn.Linear(channels, 3 * channels)
        else:
            self.to_q = nn.Linear(channels, channels)
            self.to_kv = nn.Linear(context_channels, 2 * channels)
        if head_norm:
            self.q_rms_norm = HeadNorm(heads, channels // heads)
            self.k_rms_norm = HeadNorm(heads, channels // heads)
        self.to_out = nn.Linear(channels, channels)

    def forward(
        self, x: Tensor, plan: AttentionPlan, *, phase: Tensor | None = None, context: Tensor | KeysValues | None = None
    ) -> Tensor:
        """Attends inside the groups of `plan`.

        Args:
            x: (N, C).
            plan: which rows attend to which.
            phase: (N, 1, D / 2) rotation of each row, self-attention only; None rotates nothing.
            context: (tokens, context_channels) rows to attend to, where the module was built for them, or what
                `keys_values` gives for these.

        Returns:
            (N, C).
        """
        if context is None:
            # The rows are gathered once, instead of their queries, keys and values: a third of the memory and time.
            qkv = self.to_qkv(gather(x, plan.query_order))
            q, k, v = self._heads(qkv, 3)
            turns = () if phase is None else (gather(phase, plan.query_order),)
            q, k = self._prepared(q, "q_rms_norm", turns), self._prepared(k, "k_rms_norm", turns)
            attended = self.ops.attention(q, k, v, plan.gathered).flatten(1)
            del q, k, v, qkv  # most of the memory that is in use here
            return gather(self.to_out(attended), plan.inverse)
        k, v = context if isinstance(context, tuple) else self.keys_values(context)
        q = self._prepared(self._heads(self.to_q(x), 1)[0], "q_rms_norm")
        out: Tensor = self.to_out(self.ops.attention(q, k, v, plan).flatten(1))
        return out

    def keys_values(self, context: Tensor) -> KeysValues:
        """What rows attend to in `context` (tokens, context_channels): the same as long as that is."""
        k, v = self._heads(self.to_kv(context), 2)
        return self._prepared(k, "k_rms_norm"), v

    def of_zeros(self) -> Tensor:
        """What attention to tokens gives every row, (C), where all of them are zeros: their values are equal then."""
        values = self.to_kv.bias.chunk(2)[1]
        out: Tensor = self.to_out(values)
        return out

    def _prepared(self, x: Tensor, norm: str, turns: tuple[Tensor, ...] = ()) -> Tensor:
        """Queries or keys (N, H, D) that no one else needs, rotated and normalized; they take the place of `x`."""
        if not turns and not self.head_norm:
            return x
        return by_rows(partial(_prepared, getattr(self, norm, None), x.dtype), x, *turns, into=x)

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return x.view(len(x), parts, self.heads, x.shape[1] // (parts * self.heads)).unbind(1)


def _prepared(norm: HeadNorm | None, dtype: torch.dtype, x: Tensor, phase: Tensor | None = None) -> Tensor:
    """Queries or keys (n, H, D), rotated, then normalized, in float32, and given back as `dtype`."""
    if phase is not None:
        x = rotate(x, phase)
    return (x if norm is None else norm(x)).to(dtype)
