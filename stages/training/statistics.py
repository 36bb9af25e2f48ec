"""Bring latents to about unit size for the flows: by numbers where the format has a place for them, else in weights.

Axes: b frame, c channel, x y z cells; structured latents are rows (n, c).
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ss4d.stages.data.clip import TrainingClip
from ss4d.stages.nn.latent_encoder import SLatEncoder
from ss4d.stages.nn.occupancy import SparseStructureDecoder, SparseStructureEncoder
from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.sampler_params import LatentNormalization
from ss4d.stages.training.batches import batch_coords, batch_feats, occupancy_grids

Batches = Iterable[Sequence[TrainingClip]]


@torch.no_grad()
def slat_normalization(encoder: SLatEncoder, batches: Batches) -> LatentNormalization:
    """Mean and standard deviation of each channel of the structured latents, over all voxels of all clips."""
    device = encoder.out_layer.weight.device

    def latents(clips: Sequence[TrainingClip]) -> Tensor:
        sites = Sites(batch_coords(clips).to(device))
        mean: Tensor = encoder(SparseTensor(sites, batch_feats(clips).to(device)))[0]
        return mean

    mean, square = _moments(latents, batches)
    std = (square - mean.square()).sqrt()
    return LatentNormalization(mean=tuple(mean.tolist()), std=tuple(std.tolist()))


@torch.no_grad()
def occupancy_scale(encoder: SparseStructureEncoder, batches: Batches) -> Tensor:
    """Root mean square (c) of each channel of the occupancy latent, over all cells of all frames."""
    device = encoder.input_layer.weight.device

    def latents(clips: Sequence[TrainingClip]) -> Tensor:
        mean: Tensor = encoder(occupancy_grids(clips, device).flatten(0, 1)[:, None])[0]
        return mean.movedim(1, -1).flatten(0, -2)

    return _moments(latents, batches)[1].sqrt().float()


def _moments(latents: Callable[[Sequence[TrainingClip]], Tensor], batches: Batches) -> tuple[Tensor, Tensor]:
    """Mean and mean square (c), float64 on the CPU, of the rows that `latents` gives for each batch."""
    count, total, square = 0, torch.zeros(()), torch.zeros(())
    for clips in batches:
        rows = latents(clips).double().cpu()
        count += len(rows)
        total, square = total + rows.sum(0), square + rows.square().sum(0)
    return total / count, square / count


@torch.no_grad()
def fold_scale(encoder: SparseStructureEncoder, decoder: SparseStructureDecoder, scale: Tensor) -> None:
    """Divides the latent between encoder and decoder by `scale` (c), in their weights; what is decoded stays the same.

    A scale alone: a shift could not be folded in, because the decoder pads the latent with zeros.
    """
    last, first = encoder.out_layer[2], decoder.input_layer
    assert isinstance(last, nn.Conv3d), "the encoder ends with a convolution"
    assert last.bias is not None, "which has a bias"
    scale = scale.to(first.weight.device)
    means = slice(0, len(scale))
    last.weight[means] /= scale[:, None, None, None, None]
    last.bias[means] /= scale
    last.bias[len(scale) :] -= 2 * scale.log()  # log-variances
    first.weight *= scale[:, None, None, None]
