"""The `occupancy` objective: the grids of single frames through encoder and decoder and back.

Axes: b grid (frames of clips, chosen at random), x y z cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from ss4d.stages.data.clip import TrainingClip
from ss4d.stages.evaluation.metrics import iou
from ss4d.stages.nn.occupancy import SparseStructureDecoder, SparseStructureEncoder
from ss4d.stages.roles import STRUCTURE_DECODER, STRUCTURE_ENCODER
from ss4d.stages.training import losses
from ss4d.stages.training.batches import occupancy_grids
from ss4d.stages.training.objective import Losses
from ss4d.stages.training.show import beside, voxel_picture

PICTURE_SIZE = 128


@dataclass(frozen=True, kw_only=True)
class OccupancySettings:
    """What a step looks at, and what each term of the loss weighs; cross-entropy and Dice weigh 1.

    Attributes:
        num_frames: frames of each clip in a batch; neighbors look alike, so a few of many clips teach more.
        kl: enough to keep latents near the normal that the flow starts from, too little to cost voxels.
    """

    num_frames: int = 6
    kl: float = 1e-3


class OccupancyAutoencoder:
    """Trains encoder and decoder of the occupancy.

    Args:
        encoder: to train.
        decoder: to train.
        settings: weights and amounts.
        learn_decoder: whether the decoder learns, too, or the encoder alone learns to code for it.
    """

    name = "occupancy"

    def __init__(
        self,
        encoder: SparseStructureEncoder,
        decoder: SparseStructureDecoder,
        settings: OccupancySettings = OccupancySettings(),
        *,
        learn_decoder: bool = True,
    ) -> None:
        decoder.requires_grad_(learn_decoder)
        self._learn_decoder = learn_decoder
        self.encoder, self.decoder, self.settings = encoder, decoder, settings

    def trained(self) -> dict[str, nn.Module]:
        decoder = {STRUCTURE_DECODER: self.decoder} if self._learn_decoder else {}
        return {STRUCTURE_ENCODER: self.encoder, **decoder}

    def loss(self, clips: Sequence[TrainingClip], generator: Generator) -> Losses:
        grids = torch.cat([self._chosen(clip, generator) for clip in clips])[:, None]
        mean, logvar = (moment.float() for moment in self.encoder(grids))
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        logits = self.decoder(losses.sample(mean, logvar, noise)).float()
        parts = {
            "bce": losses.bce(logits, grids),
            "dice": losses.dice(logits, grids),
            "kl": losses.gaussian_kl(mean, logvar),
        }
        total = parts["bce"] + parts["dice"] + self.settings.kl * parts["kl"]
        parts["iou"] = iou(logits > 0, grids > 0).mean()
        return Losses(total, {name: part.detach() for name, part in parts.items()})

    def _chosen(self, clip: TrainingClip, generator: Generator) -> Tensor:
        """Random frames of a clip (b, x, y, z), all turned and mirrored alike.

        The eight ways to turn and mirror about the vertical axis leave an object standing; how it lies in the grid
        should make no difference to its voxels.
        """
        grids = occupancy_grids([clip], self.decoder.input_layer.weight.device)[0]
        grids = grids[torch.randperm(len(grids), generator=generator)[: self.settings.num_frames].to(grids.device)]
        mirror_x, mirror_y, swap = torch.randint(2, (3,), generator=generator).tolist()
        grids = grids.flip([axis for axis, mirror in ((1, mirror_x), (2, mirror_y)) if mirror])
        return grids.transpose(1, 2) if swap else grids

    @torch.no_grad()
    def pictures(self, clips: Sequence[TrainingClip]) -> dict[str, Tensor]:
        """Each clip's middle frame from the front and from the side: true voxels beside decoded ones."""
        rows = []
        for clip in clips:
            grids = occupancy_grids([clip], self.decoder.input_layer.weight.device)[0, clip.num_frames // 2]
            guess = self.decoder(self.encoder(grids[None, None])[0])[0, 0] > 0
            pair = (grids > 0, guess)
            rows.append(beside([voxel_picture(g, side, PICTURE_SIZE) for side in ("front", "side") for g in pair]))
        return {"voxels": torch.cat(rows)}
