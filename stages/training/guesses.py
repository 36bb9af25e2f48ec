"""Clips on the voxels that the flow of structures finds for them, which is what the flow of latents meets in use.

Trained on true voxels alone, it would never see any that contradict the images, and paint those it is given at random.
Cascades of generators have this everywhere; the cure is to train on what the stage before makes.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from stages.data.clip import TrainingClip
from stages.nn.occupancy import SparseStructureDecoder, occupied_cells
from stages.nn.structure_flow import SparseStructureFlow4DModel
from stages.sampling import SamplerParams, network_time, sample

GUESSED = 0.75  # share of clips; the rest keep their true voxels, or a better structure would look worse
SAMPLER = SamplerParams(steps=4, cfg_strength=0.0, cfg_interval=(0.5, 1.0), rescale_t=3.0, temperature=0.3)
MOST = 2.0  # times as many voxels as the truth has: more is no guess, and would not fit in memory
ROWS_AT_ONCE = 1024  # of distances


class StructureGuess:
    """What the flow of structures makes of clips.

    Args:
        flow: as it will be used.
        decoder: of its latents.
    """

    def __init__(self, flow: SparseStructureFlow4DModel, decoder: SparseStructureDecoder) -> None:
        self._flow, self._decoder = flow.eval().requires_grad_(False), decoder.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, clips: Sequence[TrainingClip], tokens: Tensor, generator: Generator) -> list[TrainingClip]:
        """The clips, `GUESSED` of them on guessed voxels; one of which too little or too much is found stays as it is.

        Args:
            clips: of one length.
            tokens: (b, t, l, c) of their images, on the flow's device.
            generator: on the CPU.
        """
        args = self._flow.args
        shape = (len(clips), tokens.shape[1], args.in_channels, *[args.resolution] * 3)
        noise = torch.randn(shape, generator=generator).to(tokens.device)
        chosen = torch.nonzero(torch.rand(len(clips), generator=generator) < GUESSED).flatten().tolist()
        varied = list(clips)
        if not chosen:
            return varied
        cond = tokens[chosen]

        def velocity(x: Tensor, t: float) -> Tensor:
            times = network_time(t, cond.shape[1], cond.device).expand(len(cond), -1)
            v: Tensor = self._flow(x, times, cond)
            return v.float()

        for number, latent in zip(chosen, sample(velocity, velocity, noise[chosen], SAMPLER), strict=True):
            coords, _ = occupied_cells(self._decoder, latent)
            if len(coords) <= MOST * len(clips[number].coords):
                guessed = on_voxels(clips[number], coords)
                varied[number] = guessed if len(guessed.coords) else clips[number]
        return varied


def on_voxels(clip: TrainingClip, coords: Tensor) -> TrainingClip:
    """The clip on other voxels, each with the looks of the true one nearest to it in its frame.

    Args:
        clip: to change.
        coords: (n, 5) int32, sorted, rows (0, t, x, y, z); those of frames that are truly empty are left out.
    """
    start = 0
    kept, looks = torch.zeros(len(coords), dtype=torch.bool), torch.zeros(len(coords), dtype=torch.int64)
    for frame in range(clip.num_frames):
        here, there = coords[:, 1] == frame, clip.coords[clip.coords[:, 1] == frame]
        if len(there):
            kept |= here
            looks[here] = start + nearest(coords[here, 2:], there[:, 2:])
        start += len(there)
    return replace(clip, coords=coords[kept], feats=clip.feats[looks[kept]])


def nearest(cells: Tensor, others: Tensor) -> Tensor:
    """For each of `cells` (n, 3) the number (n) int64 of the nearest of `others` (m, 3)."""
    found = [torch.cdist(part, others.float()).argmin(1) for part in torch.split(cells.float(), ROWS_AT_ONCE)]
    return torch.cat(found)
