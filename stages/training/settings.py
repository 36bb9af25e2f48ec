"""How long and how fast to train, and the learning rate of every step."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

WARMUP_PART = 5  # one of so many parts of all steps may be warm-up


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How long and how fast to train.

    Attributes:
        steps: in all.
        batch: clips in each.
        learning_rate: after the warm-up.
        matrix_rate: that of Muon on the matrices of transformer blocks; None for AdamW on these, too.
        warmup: steps in which the learning rate rises from 0, a fifth of all at most.
        schedule: "cosine" falls to a hundredth at the last step; "constant" stays.
        weight_decay: of AdamW, on matrices and kernels; biases, norms and gains have none.
        clip_norm: the gradient is clipped to this norm.
        ema: decay of the average of the weights that is kept in the end.
        save_every: steps from one checkpoint to the next, at most.
        save_seconds: time from one checkpoint to the next, at most, but for the step that is being made.
        picture_every: steps from one set of pictures to the next.
        log_every: steps between two looks at the losses: each makes the host wait for the device.
        bfloat16: whether a CPU, too, computes products in bfloat16, as a GPU does, if it is faster so.
        seed: decides everything random.
    """

    steps: int
    batch: int
    learning_rate: float
    matrix_rate: float | None = None
    warmup: int = 200
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema: float = 0.999
    save_every: int = 500
    save_seconds: float = 120.0
    picture_every: int = 1000
    log_every: int = 20
    bfloat16: bool = False
    seed: int = 0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.learning_rate * self.share(step)

    def share(self, step: int) -> float:
        """What part of its rate a step learns at: of the step alone, so that resumed runs follow the same path."""
        warmup = min(self.warmup, max(self.steps // WARMUP_PART, 1))
        rise = min(1.0, (step + 1) / max(warmup, 1))
        if self.schedule == "constant":
            return rise
        done = max(0.0, (step - warmup) / max(self.steps - warmup, 1))
        return rise * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)

    def changed(self, seed: int, steps: int | None, rate: float) -> "TrainSettings":
        """Those of one training: from `seed`, for `steps` if given, at `rate` times these learning rates."""
        return replace(
            self,
            seed=seed,
            steps=self.steps if steps is None else steps,
            learning_rate=self.learning_rate * rate,
            matrix_rate=None if self.matrix_rate is None else self.matrix_rate * rate,
        )

    def decides(self) -> dict[str, object]:
        """The settings that change what is learned."""
        how_often = {"save_every", "save_seconds", "picture_every", "log_every"}
        return {name: value for name, value in asdict(self).items() if name not in how_often}
