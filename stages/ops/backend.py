"""The record of kernels that networks are given; `ss4d.stages.ops.kernel_choice` chooses among such records."""

from dataclasses import dataclass

from ss4d.stages.ops.attention import Attention, attention
from ss4d.stages.ops.conv import Convolution, conv


@dataclass(frozen=True, kw_only=True)
class Ops:
    """One implementation of each kernel, all with the signatures of the torch ones.

    Attributes:
        attention: q (Nq, H, D), k (Nk, H, D), v (Nk, H, D), plan -> (Nq, H, D); see `ss4d.stages.ops.attention`.
        conv: feats (N, C_in), sites, weight (C_out, k..., C_in), bias (C_out) -> (N, C_out), or with a stride
            feats (M, C_in) of merged cells; see `ss4d.stages.ops.conv`.
    """

    attention: Attention
    conv: Convolution


# Runs on every device torch knows, deterministic on a CPU.
TORCH_OPS = Ops(attention=attention, conv=conv)
