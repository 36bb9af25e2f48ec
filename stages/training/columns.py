"""The `images` objective: the image encoder alone learns what each cell behind the image holds.

Its tokens must tell which cells the surface passes through, their colors and normals, and how far from above the camera
looks. A network of convolutions learns that from single frames, many times faster than through a flow.

Axes: n frames of clips, x y z cells, k features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from ss4d.stages.data.clip import TrainingClip
from ss4d.stages.evaluation.metrics import iou
from ss4d.stages.nn.column_encoder import ColumnEncoder, lifted
from ss4d.stages.roles import IMAGE_ENCODER
from ss4d.stages.training import losses
from ss4d.stages.training.batches import batch_coords, batch_feats, occupancy_grids
from ss4d.stages.training.clips import cut
from ss4d.stages.training.flows import input_images
from ss4d.stages.training.objective import Losses
from ss4d.stages.training.show import beside, picture, voxel_picture

PICTURE_SIZE = 128


@dataclass(frozen=True, kw_only=True)
class ColumnSettings:
    """What each term of the loss weighs; cross-entropy and Dice weigh 1.

    Attributes:
        color: of the absolute difference of colors, in true cells.
        shape: of that of normals and offsets.
        pitch: of the squared error of the pitch in radians.
    """

    color: float = 1.0
    shape: float = 0.1
    pitch: float = 0.5


class ImageColumns:
    """Trains a column encoder.

    Args:
        encoder: to train.
        settings: weights and amounts.
    """

    name = "images"

    def __init__(self, encoder: ColumnEncoder, settings: ColumnSettings = ColumnSettings()) -> None:
        self.encoder, self.settings = encoder, settings

    def trained(self) -> dict[str, nn.Module]:
        return {IMAGE_ENCODER: self.encoder}

    def loss(self, clips: Sequence[TrainingClip], generator: Generator) -> Losses:
        images = input_images(self.encoder, clips, self.encoder.out.weight.device, generator)
        return self.judged(clips, *self.encoder.tokens(images))

    def judged(self, clips: Sequence[TrainingClip], tokens: Tensor, pitch: Tensor) -> Losses:
        """How well tokens (n, l, c) and pitches (n) tell what the clips, all of one length, hold."""
        settings, device = self.settings, tokens.device
        values = self.encoder.cells(lifted(tokens, self.encoder.args.resolution))
        truth = occupancy_grids(clips, device).flatten(0, 1)
        b, t, x, y, z = batch_coords(clips).to(device).long().unbind(1)
        found = values[b * clips[0].num_frames + t, x, y, z, 1:]
        feats = batch_feats(clips).to(device)
        parts = {
            "bce": losses.bce(values[..., 0], truth),
            "dice": losses.dice(values[..., 0], truth),
            "color": losses.l1(found[:, :3], feats[:, :3]),
            "shape": losses.l1(found[:, 3:], feats[:, 3:]),
            "pitch": functional.mse_loss(pitch, true_pitch(clips).to(device)),
        }
        weights = (1.0, 1.0, settings.color, settings.shape, settings.pitch)
        total = torch.stack([weight * part for weight, part in zip(weights, parts.values(), strict=True)]).sum()
        parts["iou"] = iou(values[..., 0] > 0, truth > 0).mean()
        return Losses(total, {name: part.detach() for name, part in parts.items()})

    @torch.no_grad()
    def pictures(self, clips: Sequence[TrainingClip]) -> dict[str, Tensor]:
        """Input, then true and found voxels of the middle frame from the front, then from the side."""
        rows = []
        for clip in clips:
            middle = cut(clip, clip.num_frames // 2, 1)
            images = input_images(self.encoder, [middle], self.encoder.out.weight.device, None)
            values = self.encoder.cells(lifted(self.encoder(images), self.encoder.args.resolution))
            truth, guess = occupancy_grids([middle], images.device)[0, 0] > 0, values[0, ..., 0] > 0
            sides = [voxel_picture(grid, side, PICTURE_SIZE) for side in ("front", "side") for grid in (truth, guess)]
            rows.append(beside([picture(middle.frames[0], PICTURE_SIZE), *sides]))
        return {"voxels": torch.cat(rows)}


def true_pitch(clips: Sequence[TrainingClip]) -> Tensor:
    """The input camera's pitch (n) above the horizon in each frame, in radians."""
    # Where the grid's axes are the camera's, the direction ahead is +y; upright turns it to the world's.
    pitches = [-math.asin(max(-1.0, min(1.0, float(clip.upright[2, 1])))) for clip in clips]
    return torch.tensor(pitches).repeat_interleave(torch.tensor([clip.num_frames for clip in clips]))
