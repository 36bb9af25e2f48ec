"""Train whatever an `Objective` holds, step by step, so that a run killed at any instant goes on to the same losses.

Nothing but the step decides a step: its batch, its random numbers, its learning rate. Weights, their average and the
optimizer come from the newest checkpoint, so there is no other state to lose.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ss4d.stages.data.clip import TrainingClip
from ss4d.stages.errors import TrainingError
from ss4d.stages.training.checkpoint import State, load_state, save_state
from ss4d.stages.training.clips import ClipSource, step_generator
from ss4d.stages.training.ema import Ema
from ss4d.stages.training.log import Log, Row, write_curves, write_png
from ss4d.stages.training.objective import Objective
from ss4d.stages.training.optimizers import optimizers_of
from ss4d.stages.training.product_format import faster_in_bfloat16
from ss4d.stages.training.settings import TrainSettings

Say = Callable[[str], None]  # called with one line for people to read


def train(
    objective: Objective,
    clips: ClipSource,
    settings: TrainSettings,
    folder: Path,
    *,
    identity: Mapping[str, object],
    shown: Sequence[TrainingClip],
    say: Say,
    deadline: float = math.inf,
) -> bool:
    """Trains from the newest checkpoint in `folder` on; in the end the networks hold the average of their weights.

    `folder` gets checkpoints/, log.jsonl, curves.svg and pictures/.

    Args:
        objective: what to train; its networks must be as they were when the run began.
        clips: batches by step.
        settings: the same for the whole run.
        folder: of this run alone; made if missing.
        identity: what the run is, as JSON; checkpoints of another one are refused.
        shown: clips to draw pictures of.
        say: told of losses and pace.
        deadline: `time.monotonic()` after which to stop, with a checkpoint.

    Returns:
        Whether all steps are done.

    Raises:
        InputError: if the folder holds another run.
        TrainingError: if the loss stops being a number.
    """
    run = _Run(objective, settings, folder, identity, say)
    started_at = run.done
    while run.done < settings.steps and time.monotonic() < deadline:
        run.step(clips.batch(run.done, settings.batch))
        last = run.done == settings.steps
        if last or run.done % settings.log_every == 0:
            run.report()
        if last or run.done % settings.picture_every == 0:
            run.draw(shown)
        if not last and (run.done % settings.save_every == 0 or time.monotonic() - run.saved > settings.save_seconds):
            run.save()
    if run.done > started_at:
        run.save()
    if run.done < settings.steps:
        return False
    run.ema.swap()
    return True


class _Run:
    """A training run between two checkpoints: `done` steps so far."""

    def __init__(
        self, objective: Objective, settings: TrainSettings, folder: Path, identity: Mapping[str, object], say: Say
    ) -> None:
        self.objective, self.settings, self.folder, self._say = objective, settings, folder, say
        self._identity = identity
        self.weights = _weights(objective)
        self.device = next(iter(self.weights.values())).device
        self.optimizers = optimizers_of(self.weights, settings, self.device)
        self.ema = Ema(self.weights, settings.ema)
        wanted = settings.bfloat16 or self.device.type == "cuda"
        self._bfloat16 = wanted and faster_in_bfloat16(self.device)
        if wanted and not self._bfloat16:
            say(f"{objective.name:10s}  products in float32: in bfloat16 this processor is slower")
        self._state = State(self.weights, self.ema.average, self.optimizers)
        folder.mkdir(parents=True, exist_ok=True)
        self.done = load_state(folder / "checkpoints", self._state, identity, say)
        self._log = Log(folder, self.done)
        self._waiting: list[tuple[int, dict[str, Tensor]]] = []  # measured, but not yet fetched from the device
        self._since = self.saved = time.monotonic()

    def step(self, batch: Sequence[TrainingClip]) -> None:
        """One step of the optimizer."""
        settings, number = self.settings, self.done
        generator = step_generator(settings.seed, self.objective.name, number)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16):
            losses = self.objective.loss(batch, generator)
        for weight in self.weights.values():
            weight.grad = None
        losses.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        norm = nn.utils.clip_grad_norm_(list(self.weights.values()), settings.clip_norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_rate"] * settings.share(number)
            optimizer.step()
        self.ema.update(number)
        self.done += 1
        measured = {"loss": losses.total.detach(), **losses.parts, "gradient": norm}
        self._waiting.append((self.done, measured))

    def report(self) -> None:
        """Writes what was measured since the last time, and tells losses and pace."""
        if not self._waiting:
            return
        names = list(self._waiting[0][1])
        values = torch.stack([torch.stack([m[n].float() for n in names]) for _, m in self._waiting]).tolist()
        now = time.monotonic()
        pace = len(self._waiting) / (now - self._since)
        rows: list[Row] = [
            {"step": number, **dict(zip(names, row, strict=True)), "rate": self.settings.rate(number - 1)}
            | {"steps_per_second": pace}
            for (number, _), row in zip(self._waiting, values, strict=True)
        ]
        self._waiting, self._since = [], now
        self._log.add(rows)
        for row in rows:
            if not math.isfinite(row["loss"]):
                raise TrainingError(
                    f"the loss of {self.objective.name} is {row['loss']} at step {row['step']}: lower its learning "
                    f"rate, or look at the data of that step; delete {self.folder} to begin anew"
                )
        means = {name: sum(row[name] for row in rows) / len(rows) for name in names}
        left = (self.settings.steps - self.done) / pace
        self._say(
            f"{self.objective.name:<11} {self.done:>6}/{self.settings.steps}  "
            + "  ".join(f"{name} {value:.4g}" for name, value in means.items())
            + f"  {pace:.2f} steps/s  {left / 60:.1f} min left"
        )

    def draw(self, shown: Sequence[TrainingClip]) -> None:
        """Draws curves, and pictures with the average of the weights."""
        self.report()
        write_curves(self.folder / "curves.svg", self._log.rows)
        pictures = self.folder / "pictures"
        pictures.mkdir(exist_ok=True)
        with self.ema.applied(), torch.no_grad():
            for name, picture in self.objective.pictures(shown).items():
                write_png(pictures / f"{name}-{self.done:06d}.png", picture)
        self._since = time.monotonic()

    def save(self) -> None:
        """Writes a checkpoint, and the log up to it."""
        self.report()
        save_state(self.folder / "checkpoints", self.done, self._state, self._identity)
        self.saved = time.monotonic()


def _weights(objective: Objective) -> dict[str, Tensor]:
    """What the objective trains, by role and name."""
    return {
        f"{role}.{name}": weight
        for role, network in objective.trained().items()
        for name, weight in network.named_parameters()
        if weight.requires_grad
    }
