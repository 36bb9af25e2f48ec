"""The `voxels` and `gaussians` objectives: each flow and its decoder learn together, from what they make of images.

Before these steps, flows are trained on velocities and decoders on codes, and neither on what the two give together.
Where the images leave a flow uncertain, its samples are unlike any code, and a decoder that was trained on codes alone
draws too little there; and the flow of structured latents has only seen true voxels, which never contradict the images.
So here the samplers run as in use, on clips that the flows have not seen, and the loss is that of the voxels and of the
pictures that come out, with gradients through the last steps of the sampler. Each clip is also decoded from its code,
so that the decoder keeps what it learned from codes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from ss4d.stages.data.clip import TrainingClip
from ss4d.stages.evaluation.metrics import iou
from ss4d.stages.nn.column_encoder import guessed
from ss4d.stages.nn.guide import GuidedLatentFlow, GuidedStructureFlow
from ss4d.stages.nn.image_encoders import ImageEncoder
from ss4d.stages.nn.latent_flow import SLatFlow4DModel
from ss4d.stages.nn.occupancy import SparseStructureDecoder, cell_logits, occupied_cells
from ss4d.stages.nn.structure_flow import SparseStructureFlow4DModel
from ss4d.stages.ops.coords import Sites
from ss4d.stages.roles import GAUSSIAN_DECODER, LATENT_FLOW, STRUCTURE_DECODER, STRUCTURE_FLOW
from ss4d.stages.sampler_params import LatentNormalization, SamplerParams
from ss4d.stages.training import losses
from ss4d.stages.training.appearance import AppearanceAutoencoder, Choice, Scene, backgrounds, white
from ss4d.stages.training.batches import occupancy_grids, window
from ss4d.stages.training.clips import cut
from ss4d.stages.training.flows import LEAST_FRAMES, image_tokens, sampled
from ss4d.stages.training.objective import Losses
from ss4d.stages.training.occupancy import OccupancyAutoencoder
from ss4d.stages.training.show import beside, picture, voxel_picture

SAMPLED = 0.5  # share of the loss that samples have; codes have the rest
LEARNED_STEPS = 2  # of a sampler, its last: each one more costs a forward and a backward pass, and their memory
PICTURE_SIZE = 128


class StructureSamples:
    """What the flow of structures makes of clips.

    Args:
        image_encoder: of the flow.
        flow: of occupancy latents.
        sampler: as the model is used.
        learned_steps: the last steps of the sampler from which the flow learns; with 0 it stays as it is.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        flow: SparseStructureFlow4DModel,
        sampler: SamplerParams,
        *,
        learned_steps: int = 0,
    ) -> None:
        self.image_encoder, self.flow = image_encoder.eval().requires_grad_(False), flow
        flow.requires_grad_(learned_steps > 0)
        self._sampler, self._learned_steps = sampler, learned_steps

    def guess(self, tokens: Tensor) -> Tensor:
        """What the image encoder alone tells of cells (b t, x, y, z) by tokens (b, t, l, c); empty if it does not."""
        return guessed(self.image_encoder, tokens.flatten(0, 1))

    def __call__(self, clips: Sequence[TrainingClip], generator: Generator) -> tuple[Tensor, Tensor]:
        """Image tokens (b, t, l, c), and occupancy latents (b, t, c, r, r, r) that they lead to.

        Args:
            clips: of one length.
            generator: on the CPU.
        """
        tokens = image_tokens(self.image_encoder, clips, self.flow.pos_emb.device)
        args = self.flow.args
        shape = (*tokens.shape[:2], args.out_channels, *[args.resolution] * 3)
        noise = torch.randn(shape, generator=generator).to(tokens.device)
        return tokens, sampled(
            GuidedStructureFlow(self.flow), noise, tokens, self._sampler, self._learned_steps
        ).float()


class ObjectSamples:
    """What both flows make of clips.

    Args:
        structure: its samples.
        decoder: of those.
        flow: the other.
        normalization: of its latents.
        sampler: as the model is used.
        learned_steps: the last steps of the sampler from which that flow learns; with 0 it stays as it is.
    """

    def __init__(
        self,
        structure: StructureSamples,
        decoder: SparseStructureDecoder,
        flow: SLatFlow4DModel,
        normalization: LatentNormalization,
        sampler: SamplerParams,
        *,
        learned_steps: int = 0,
    ) -> None:
        self._structure, self._decoder = structure, decoder.eval().requires_grad_(False)
        self.flow = flow.requires_grad_(learned_steps > 0)
        self._sampler, self._learned_steps = sampler, learned_steps
        self._mean, self._std = torch.tensor(normalization.mean), torch.tensor(normalization.std)
        self.frame_multiple = flow.frame_multiple

    def __call__(self, clips: Sequence[TrainingClip], generator: Generator) -> tuple[Tensor, Tensor]:
        """Voxels (n, 5) int32, and their latents (n, c) as the decoder to Gaussians takes them.

        Args:
            clips: of one length, a multiple of `frame_multiple`.
            generator: on the CPU.
        """
        tokens, structure = self._structure(clips, generator)
        device = tokens.device
        with torch.no_grad():
            coords, _ = occupied_cells(self._decoder, structure.flatten(0, 1), self._structure.guess(tokens))
        coords[:, 0], coords[:, 1] = coords[:, 1] // tokens.shape[1], coords[:, 1] % tokens.shape[1]
        coords = coords.to(device)
        noise = torch.randn(len(coords), self.flow.args.out_channels, generator=generator).to(device)
        if len(coords):
            flow = GuidedLatentFlow(self.flow, Sites(coords))
            noise = sampled(flow, noise, tokens, self._sampler, self._learned_steps).float()
        return coords, noise * self._std.to(device) + self._mean.to(device)


class SampledVoxels:
    """Trains the flow of structures and the decoder of the occupancy on samples, the decoder on codes, too.

    Args:
        autoencoder: its decoder learns, its encoder stays as it is.
        samples: of the flow, which learns.
    """

    name = "voxels"

    def __init__(self, autoencoder: OccupancyAutoencoder, samples: StructureSamples) -> None:
        autoencoder.encoder.eval().requires_grad_(False)
        self._autoencoder, self._samples = autoencoder, samples

    def trained(self) -> dict[str, nn.Module]:
        return {
            STRUCTURE_DECODER: self._autoencoder.decoder,
            STRUCTURE_FLOW: self._samples.flow,
        }

    def loss(self, clips: Sequence[TrainingClip], generator: Generator) -> Losses:
        coded = self._autoencoder.loss(clips, generator)
        length = min(clip.num_frames for clip in clips)
        clips = window(clips, generator, length, None, 1)
        tokens, latents = self._samples(clips, generator)
        truth = occupancy_grids(clips, latents.device).flatten(0, 1)[:, None]
        logits = cell_logits(self._autoencoder.decoder, latents.flatten(0, 1), self._samples.guess(tokens)).float()
        logits = logits[:, None]
        parts = {
            "bce": losses.bce(logits, truth),
            "dice": losses.dice(logits, truth),
            "motion": losses.occupancy_motion(*(grids.view(len(clips), length, -1) for grids in (logits, truth))),
        }
        total = SAMPLED * torch.stack(list(parts.values())).sum() + (1 - SAMPLED) * coded.total
        parts["iou"] = iou(logits > 0, truth > 0).mean()
        return Losses(total, _named(parts, coded))

    @torch.no_grad()
    def pictures(self, clips: Sequence[TrainingClip]) -> dict[str, Tensor]:
        """Input, then true and sampled voxels of the middle frame from the front, then from the side."""
        rows = []
        for number, clip in enumerate(clips):
            middle = clip.num_frames // 2
            tokens, latents = self._samples([clip], Generator().manual_seed(number))
            truth = occupancy_grids([clip], latents.device)[0, middle] > 0
            found = cell_logits(self._autoencoder.decoder, latents[0], self._samples.guess(tokens))[middle] > 0
            sides = [voxel_picture(grid, side, PICTURE_SIZE) for side in ("front", "side") for grid in (truth, found)]
            rows.append(beside([picture(clip.frames[middle], PICTURE_SIZE), *sides]))
        return {"voxels": torch.cat(rows)}


class SampledGaussians:
    """Trains the flow of structured latents and the decoder to Gaussians on samples, the decoder on codes, too.

    Args:
        autoencoder: its decoder learns, its encoder stays as it is.
        samples: of both flows; that of structured latents learns.
    """

    name = "gaussians"

    def __init__(self, autoencoder: AppearanceAutoencoder, samples: ObjectSamples) -> None:
        autoencoder.encoder.eval().requires_grad_(False)
        self._autoencoder, self._samples = autoencoder, samples

    def trained(self) -> dict[str, nn.Module]:
        return {GAUSSIAN_DECODER: self._autoencoder.decoder, LATENT_FLOW: self._samples.flow}

    def loss(self, clips: Sequence[TrainingClip], generator: Generator) -> Losses:
        clips = window(clips, generator, LEAST_FRAMES, None, self._samples.frame_multiple)
        choices = [self._autoencoder.choose(clip, generator) for clip in clips]
        scene = self._autoencoder.scene(choices, backgrounds(choices, generator))
        coded = self._autoencoder.coded_loss(choices, scene, generator)
        made, latents = self._made(clips, choices, scene, generator)
        seen = self._autoencoder.decoded_loss(made, latents)
        return Losses(SAMPLED * seen.total + (1 - SAMPLED) * coded.total, _named(seen.parts, coded))

    @torch.no_grad()
    def pictures(self, clips: Sequence[TrainingClip]) -> dict[str, Tensor]:
        """Each clip's middle frame from two opposite views: the target beside what is made of the input."""
        rows = []
        for number, whole in enumerate(clips):
            multiple = self._samples.frame_multiple
            clip = cut(whole, 0, whole.num_frames // multiple * multiple)
            choice = self._autoencoder.middle(clip)
            scene = self._autoencoder.scene([choice], white([choice]))
            made, latents = self._made([clip], [choice], scene, Generator().manual_seed(number))
            rows.append(self._autoencoder.compared(made, latents))
        return {"objects": torch.cat(rows)}

    def _made(
        self, clips: Sequence[TrainingClip], choices: Sequence[Choice], scene: Scene, generator: Generator
    ) -> tuple[Scene, Tensor]:
        """The scene on the voxels that are found in what was chosen of the clips, and their latents."""
        coords, latents = self._samples(clips, generator)
        count = choices[0].clip.num_frames
        starts = torch.tensor([choice.start for choice in choices], device=coords.device)
        frames = coords[:, 1] - starts[coords[:, 0].long()]
        chosen = (frames >= 0) & (frames < count)
        coords, latents = coords[chosen], latents[chosen]
        sizes = torch.bincount(coords[:, 0].long() * count + frames[chosen], minlength=len(clips) * count)
        return replace(scene, sites=Sites(coords), sizes=sizes), latents


def _named(parts: Mapping[str, Tensor], coded: Losses) -> dict[str, Tensor]:
    """The parts of both losses, those of the codes under names of their own."""
    return {
        **{name: part.detach() for name, part in parts.items()},
        **{f"coded_{name}": part for name, part in coded.parts.items()},
    }
