"""What the training loop asks of whatever it trains: networks, a loss on a batch of clips, and pictures to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Generator, Tensor, nn

from ss4d.stages.data.clip import TrainingClip


@dataclass(frozen=True, eq=False)
class Losses:
    """The loss of one batch.

    Attributes:
        total: scalar to go down, with gradients.
        parts: scalars by name to report, without gradients: the terms of the total before their weights, and measures
            such as "psnr" or "iou".
    """

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """One step of training: which networks move, and by what loss.

    Attributes:
        name: names the step in folders and logs.
    """

    name: str

    def trained(self) -> dict[str, nn.Module]:
        """The networks whose weights move, by role, all on one device."""
        ...

    def loss(self, clips: Sequence[TrainingClip], generator: Generator) -> Losses:
        """The loss of one batch; moves the clips to the networks' device.

        Args:
            clips: at least one, on the CPU.
            generator: on the CPU, fresh for this step: all randomness comes from it, so a step can be repeated.
        """
        ...

    def pictures(self, clips: Sequence[TrainingClip]) -> dict[str, Tensor]:
        """Pictures (h, w, 3) uint8 by name, to look at; the same for the same clips and weights."""
        ...
