"""Per-voxel image features to the distribution of structured latents; rows are (n, c) on sites (b, t, x, y, z)."""

from dataclasses import dataclass

from torch import Tensor

from ss4d.stages.nn.args import at_least_one
from ss4d.stages.nn.trunk import SparseTransformer, SparseTransformerArgs
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.coords import SparseTensor


@dataclass(frozen=True, kw_only=True)
class SLatEncoderArgs(SparseTransformerArgs):
    """The options published beside the weights."""

    in_channels: int  # width of the image features


class SLatEncoder(SparseTransformer):
    """The encoder (docs/model.md, section 8)."""

    def __init__(self, args: SLatEncoderArgs, ops: Ops) -> None:
        at_least_one(args, "in_channels")
        super().__init__(args, args.in_channels, 2 * args.latent_channels, ops)
        self.args = args

    def forward(self, x: SparseTensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (N, latent channels), of features (N, in_channels)."""
        mean, logvar = self.transform(x).chunk(2, dim=1)
        return mean, logvar
