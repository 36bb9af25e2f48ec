"""Multi-head attention between packed rows; rows are (n, c), inside a head (n, h, d)."""

from torch import Tensor, nn

from ss4d.stages.nn.norm import HeadNorm
from ss4d.stages.ops.attention import AttentionPlan
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.rotary import rotate


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
        self, x: Tensor, plan: AttentionPlan, *, phase: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Attends inside the groups of `plan`.

        Args:
            x: (N, C).
            plan: which rows attend to which.
            phase: (N, 1, D / 2) rotation of each row, self-attention only; None rotates nothing.
            context: (tokens, context_channels) rows to attend to, where the module was built for them.

        Returns:
            (N, C).
        """
        if context is None:
            q, k, v = self._heads(self.to_qkv(x), 3)
        else:
            (q,), (k, v) = self._heads(self.to_q(x), 1), self._heads(self.to_kv(context), 2)
        if phase is not None:
            q, k = rotate(q, phase), rotate(k, phase)
        if self.head_norm:
            q, k = self.q_rms_norm(q), self.k_rms_norm(k)
        attended = self.ops.attention(q.to(v.dtype), k.to(v.dtype), v, plan)
        out: Tensor = self.to_out(attended.flatten(1))
        return out

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return x.view(len(x), parts, self.heads, x.shape[1] // (parts * self.heads)).unbind(1)
