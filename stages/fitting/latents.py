"""Structured latents as what a fit changes, seen through the frozen decoder of Gaussians.

Axes: n voxel, c latent channel, t frame.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from ss4d.stages.decoding import frame_offsets
from ss4d.stages.fitting.descent import Piece
from ss4d.stages.fitting.groups import Groups, grouped
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoder
from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.ops.splat import Gaussians
from ss4d.stages.types import StructuredLatents


@dataclass(frozen=True, eq=False)
class LatentStart:
    """Latents as they were, on the decoder's device. Frames are decoded as many together as are drawn together."""

    decoder: SLatGaussianDecoder
    latents: StructuredLatents
    coords: Tensor
    feats: Tensor
    spread: Tensor  # (c): the deviation of each channel over the clip, in which a change of 1 is measured
    offsets: Tensor
    groups: Groups

    @classmethod
    def of(cls, latents: StructuredLatents, decoder: SLatGaussianDecoder) -> "LatentStart":
        """Those of a clip."""
        device = decoder.out_layer.weight.device
        coords, feats = latents.coords.to(device), latents.feats.to(device)
        offsets = frame_offsets(latents.coords, latents.num_frames).to(device)
        centers = (coords[:, 2:].float() + 0.5) / latents.resolution - 0.5
        spread = feats.std(0, correction=0) if len(feats) else feats.new_ones(feats.shape[1])
        return cls(decoder, latents, coords, feats, spread, offsets, grouped(centers, offsets))

    @property
    def channels(self) -> int:
        return self.feats.shape[1]

    def moved(self, by: Tensor, piece: Piece) -> tuple[Gaussians, Tensor]:
        """The Gaussians of some frames, their latents changed `by` (n, c); where each frame begins."""
        first = self.coords.new_tensor([0, piece.frames.start, 0, 0, 0])
        coords = self.coords[piece.rows] - first
        feats = self.feats[piece.rows] + self.spread * by
        raw = self.decoder(SparseTensor(Sites(coords), feats))
        offsets = self.offsets[piece.frames.start : piece.frames.stop + 1] - piece.rows.start
        gaussians = self.decoder.activate(self.decoder.split(raw, coords))
        return gaussians, offsets * self.decoder.representation.num_gaussians

    def all_moved(self, by: Tensor) -> StructuredLatents:
        """The latents, changed."""
        return replace(self.latents, feats=(self.feats + self.spread * by).cpu())
