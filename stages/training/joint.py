"""The `joint` objective: the image encoder, both flows and both decoders learn together, from what comes out.

Before this step the encoder has learned what cells hold, and nothing of pictures, and the flows have learned from its
tokens as they were. Here gradients of the voxels and of the pictures reach it through the last steps of both samplers,
beside those of its own objective, and what follows it goes along with it.
"""

from collections.abc import Mapping, Sequence

from torch import Generator, Tensor, nn

from ss4d.stages.data.clip import TrainingClip
from ss4d.stages.training.batches import window
from ss4d.stages.training.columns import ImageColumns, column_images
from ss4d.stages.training.end_to_end import ObjectSamples, SampledGaussians, SampledVoxels, StructureSamples
from ss4d.stages.training.flows import LEAST_FRAMES
from ss4d.stages.training.objective import Losses

# Of the pictures' loss, which is as much smaller than those of cells and voxels: so the encoder hears of all three.
PICTURES = 10.0


class Joint:
    """Trains all networks of a model with a column encoder.

    Args:
        columns: the encoder and its objective.
        structure: samples of that encoder and of the flow of structures, which learns.
        voxels: the objective of these samples.
        objects: samples of both flows, given those.
        gaussians: the objective of these samples.
    """

    name = "joint"

    def __init__(
        self,
        columns: ImageColumns,
        structure: StructureSamples,
        voxels: SampledVoxels,
        objects: ObjectSamples,
        gaussians: SampledGaussians,
    ) -> None:
        self._columns, self._structure, self._objects = columns, structure, objects
        self._voxels, self._gaussians = voxels, gaussians
        for network in self.trained().values():  # samples leave alone what they only look at
            network.requires_grad_(True)

    def trained(self) -> dict[str, nn.Module]:
        return {**self._columns.trained(), **self._voxels.trained(), **self._gaussians.trained()}

    def loss(self, clips: Sequence[TrainingClip], generator: Generator) -> Losses:
        clips = window(clips, generator, LEAST_FRAMES, None, self._objects.frame_multiple)
        tokens, pitch = self._columns.encoder.tokens(column_images(clips, None))
        columns = self._columns.judged(clips, tokens, pitch)
        tokens = tokens.view(len(clips), -1, *tokens.shape[1:])
        structure = self._structure.under(tokens, generator)
        voxels = self._voxels.sampled_loss(clips, tokens, structure, self._voxels.coded_loss(clips, generator))
        coded = self._gaussians.coded(clips, generator)
        gaussians = self._gaussians.sampled_loss(coded, *self._objects.under(tokens, structure, generator))
        return Losses(
            columns.total + voxels.total + PICTURES * gaussians.total,
            {**_named("cells", columns), **_named("voxels", voxels), **_named("pictures", gaussians)},
        )

    def pictures(self, clips: Sequence[TrainingClip]) -> dict[str, Tensor]:
        """Those of the voxels and of the objects that come out."""
        return {**self._voxels.pictures(clips), **self._gaussians.pictures(clips)}


def _named(what: str, losses: Losses) -> Mapping[str, Tensor]:
    return {f"{what}_{name}": part for name, part in losses.parts.items()}
