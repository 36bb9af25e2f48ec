"""Train a model by its recipe: five steps, each of which leaves its result in a folder and is skipped once it has.

OUT/training/STEP holds what a step writes as it goes, and in the end result/ with its networks; OUT itself becomes a
model folder when all is there.
"""

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from stages.data.clip import HELD_OUT_SEED, ClipSpec, TrainingClip, make_clip
from stages.errors import InputError
from stages.nn.checkpoint import read_network
from stages.nn.occupancy import SparseStructureDecoder, SparseStructureEncoder
from stages.ops.backend import Ops
from stages.sampling import LatentNormalization
from stages.training import appearance
from stages.training.card import Trained, model_card
from stages.training.clips import ClipStore, FreshClips, StoredClips, make_pool
from stages.training.files import whole_folder
from stages.training.flows import LatentsFlow, StructureFlow
from stages.training.folder import IMAGE_ENCODER, Start, save_roles, write_model
from stages.training.fresh import fresh_network
from stages.training.log import read_log
from stages.training.loop import Say, train
from stages.training.lora import add_adapters, merge_adapters
from stages.training.objective import Objective
from stages.training.occupancy import OccupancyAutoencoder
from stages.training.recipe import STEPS, PoolPlan, Recipe, StepPlan
from stages.training.statistics import fold_scale, occupancy_scale, slat_normalization

# What each step leaves, by role; the statistics are numbers.
LEAVES: Mapping[str, tuple[str, ...]] = {
    "occupancy": ("sparse_structure_encoder", "sparse_structure_decoder"),
    "appearance": ("slat_encoder", "slat_decoder_gs"),
    "statistics": (),
    "structure": ("sparse_structure_flow_model", IMAGE_ENCODER),
    "latents": ("slat_flow_model",),
}
NEEDS: Mapping[str, tuple[str, ...]] = {
    "occupancy": (),
    "appearance": (),
    "statistics": ("appearance",),
    "structure": ("occupancy",),
    "latents": ("appearance", "statistics", "structure"),
}
FLOWS = ("structure", "latents")
SHOWN = 2  # clips in pictures
REPORT_EVERY = 10.0  # seconds between two lines on the clips being made


@dataclass(frozen=True, kw_only=True)
class Training:
    """One call of the training command.

    Attributes:
        recipe: what to train and how long.
        out: the folder that becomes a model folder.
        device: to train on.
        ops: kernels for it.
        seed: decides everything random.
        only: one step, or None for all that there are to do.
        deadline: `time.monotonic()` after which to stop, with a checkpoint.
        start: a model to go on from: then its image encoder stays as it is.
        lora: rank of the adapters that the flows learn instead of all their weights; needs `start`.
        store: records to train on in place of made clips.
        steps: optimizer steps of each step of training, or None for those of the recipe.
        rate: part of the recipe's learning rates to take.
        fresh: make new clips for every step, instead of drawing from a pool.
        workers: processes that make clips.
    """

    recipe: Recipe
    out: Path
    device: torch.device
    ops: Ops
    seed: int = 0
    only: str | None = None
    deadline: float = math.inf
    start: Start | None = None
    lora: int | None = None
    steps: int | None = None
    rate: float = 1.0
    store: ClipStore | None = None
    fresh: bool = False
    workers: int = 1


def run_training(training: Training, say: Say) -> bool:
    """Does what is left to do, and writes the model folder once every network is there.

    Returns:
        Whether all is done; if not, the same call goes on.

    Raises:
        InputError: if a step lacks what earlier ones leave, or `out` holds another training.
        TrainingError: if a loss stops being a number.
    """
    if training.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    run = _Run(training, say)
    for step in run.steps():
        if not run.do(step):
            say(f"stopped in {step} with a checkpoint; the same command goes on from there")
            return False
    run.write_model()
    return True


class _Run:
    """A training and the results it has so far."""

    def __init__(self, training: Training, say: Say) -> None:
        self.training, self._say = training, say
        self.folder = training.out / "training"

    def steps(self) -> Sequence[str]:
        training = self.training
        if training.lora is not None and training.start is None:
            raise InputError("adapters need a model to adapt: give --init with --lora")
        if not 0 < training.rate < math.inf:
            raise InputError(f"--rate {training.rate:g} is no part of a learning rate: it must be greater than 0")
        possible = STEPS if training.lora is None else FLOWS
        if training.only is None:
            return possible
        if training.only not in possible:
            raise InputError(f"--only {training.only} is none of the steps {', '.join(possible)}")
        return (training.only,)

    def do(self, step: str) -> bool:
        """Does one step, or finds it done; False if the time was up before."""
        result = self._result(step)
        if result.exists():
            given = json.loads((result / "result.json").read_text())["settings"]
            if given != json.loads(json.dumps(self._settings(step))):
                raise InputError(
                    f"{result} comes from another training; choose another --out, or delete {result.parent} and the "
                    "steps after it to do them again"
                )
            self._say(f"{step:<11} is done")
            return True
        for needed in NEEDS[step]:
            if not self._has(needed):
                raise InputError(f"{step} needs what {needed} leaves: do that step first, or give --init with encoders")
        began = time.monotonic()
        if began > self.training.deadline:
            return False
        networks, content = self._measure() if step == "statistics" else self._train(step)
        if networks is None:
            return False
        with whole_folder(result) as draft:
            save_roles(draft, networks)
            content |= {"settings": self._settings(step), "machine": _machine(self.training.device)}
            (draft / "result.json").write_text(json.dumps(content, indent=1))
        return True

    def write_model(self) -> None:
        """Writes the model folder, if there is a network for every role."""
        training = self.training
        if not all(self._has(step) for step in STEPS):
            return
        start = training.start
        networks = {role: self._network(role) for role in training.recipe.networks if self._known(role)}
        samplers = (
            {} if start is None else {name: getattr(start, name) for name in ("structure_sampler", "slat_sampler")}
        )
        model = Start(networks=networks, normalization=self._normalization(), origin=training.out.name, **samplers)
        write_model(training.out, model, self._card())
        self._say(f"the model is in {training.out}")

    def _train(self, step: str) -> tuple[dict[str, nn.Module] | None, dict[str, Any]]:
        plan = self._plan(step)
        objective = self._objective(step)
        if self.training.lora is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.training.seed)
                for network in objective.trained().values():
                    add_adapters(network, self.training.lora)
        with self._clips(plan) as clips:
            done = train(
                objective,
                clips,
                plan.settings,
                self.folder / step,
                shown=self._shown(plan),
                say=self._say,
                deadline=self.training.deadline,
            )
        trained = objective.trained()
        if not done:
            return None, {}
        for network in trained.values():
            merge_adapters(network)
        left = {role: trained[role] for role in LEAVES[step] if role in trained}
        return left, self._fold_scale(**trained) if step == "occupancy" else {}

    def _fold_scale(
        self, sparse_structure_encoder: nn.Module, sparse_structure_decoder: nn.Module
    ) -> dict[str, list[float]]:
        """Brings the occupancy latent to unit size."""
        encoder, decoder = sparse_structure_encoder, sparse_structure_decoder
        assert isinstance(encoder, SparseStructureEncoder), "that is its role"
        assert isinstance(decoder, SparseStructureDecoder), "that is its role"
        scale = occupancy_scale(encoder, self._measured())
        fold_scale(encoder, decoder, scale)
        return {"occupancy_scale": scale.tolist()}

    def _measure(self) -> tuple[dict[str, nn.Module], dict[str, Any]]:
        """The statistics of the structured latents."""
        normalization = slat_normalization(self._network("slat_encoder"), self._measured())
        numbers = {"slat_normalization": asdict(normalization)}
        self._say(f"statistics  {json.dumps(numbers)}")
        return {}, numbers

    def _measured(self) -> list[list[TrainingClip]]:
        """What latents are measured on: clips, each a batch of its own, as they may differ in length."""
        with self._clips(replace(self._plan("structure"), vary=False)) as clips:
            return [clips.batch(i, 1) for i in range(self.training.recipe.measured)]

    def _objective(self, step: str) -> Objective:
        network, start = self._network, self.training.start
        if step == "occupancy":
            return OccupancyAutoencoder(network("sparse_structure_encoder"), network("sparse_structure_decoder"))
        if step == "appearance":
            encoder, decoder = network("slat_encoder"), network("slat_decoder_gs")
            if start is None:
                appearance.start(encoder, decoder)
            return appearance.AppearanceAutoencoder(encoder, decoder)
        if step == "structure":
            return StructureFlow(
                network("sparse_structure_flow_model"),
                network(IMAGE_ENCODER),
                network("sparse_structure_encoder"),
                network("sparse_structure_decoder"),
                learn_images=start is None,
            )
        return LatentsFlow(
            network("slat_flow_model"),
            network(IMAGE_ENCODER),
            network("slat_encoder"),
            self._normalization(),
            network("slat_decoder_gs"),
        )

    def _network(self, role: str) -> Any:
        """The network of the latest step that left it, or the one to start from, or a new one; on the device."""
        training = self.training
        for step in reversed(STEPS):
            if role in LEAVES[step] and (self._result(step) / f"{role}.json").exists():
                return read_network(self._result(step) / role, training.ops).to(training.device)
        if self._known(role):
            assert training.start is not None, "known roles that no step left come from there"
            return deepcopy(training.start.networks[role]).to(training.device)
        return fresh_network(role, *training.recipe.networks[role], training.ops, training.seed).to(training.device)

    def _known(self, role: str) -> bool:
        """Whether the network was trained: by a step, or before."""
        left = any(role in LEAVES[step] and self._result(step).exists() for step in STEPS)
        return left or (self.training.start is not None and role in self.training.start.networks)

    def _has(self, step: str) -> bool:
        """Whether what a step leaves is there."""
        start = self.training.start
        return self._result(step).exists() or (start is not None and all(r in start.networks for r in LEAVES[step]))

    def _normalization(self) -> LatentNormalization:
        file = self._result("statistics") / "result.json"
        if not file.exists():
            assert self.training.start is not None, "the statistics are needed before"
            return self.training.start.normalization
        numbers = json.loads(file.read_text())["slat_normalization"]
        return LatentNormalization(mean=tuple(numbers["mean"]), std=tuple(numbers["std"]))

    def _result(self, step: str) -> Path:
        return self.folder / step / "result"

    def _plan(self, step: str) -> StepPlan:
        training = self.training
        plan = training.recipe.plans[step]
        return replace(plan, settings=plan.settings.changed(training.seed, training.steps, training.rate))

    def _settings(self, step: str) -> dict[str, Any]:
        """What must be the same for a result to be this training's."""
        training = self.training
        plan = self._plan("structure" if step == "statistics" else step)
        return {
            "recipe": training.recipe.name,
            "loop": plan.settings.decides(),
            "pool": None if training.store else asdict(plan.pool),
            "vary": plan.vary and not training.store,
            "records": len(training.store) if training.store else None,
            "fresh": training.fresh,
            "start": training.start and training.start.origin,
            "lora": training.lora,
        }

    @contextmanager
    def _clips(self, plan: StepPlan) -> Iterator[StoredClips | FreshClips]:
        training = self.training
        spec, num_frames = self._spec(plan.pool), plan.pool.num_frames
        if training.fresh and training.store is None:
            source: StoredClips | FreshClips = FreshClips(spec, training.seed, training.workers)
        else:
            store = training.store or self._pool(plan.pool)
            vary = plan.vary and training.store is None  # people's own data stay as they are
            source = StoredClips(store, training.seed, num_frames, spec.resolution, vary=vary)
        try:
            yield source
        finally:
            source.close()

    def _pool(self, plan: PoolPlan) -> ClipStore:
        spec = self._spec(plan)
        name = f"{spec.num_frames}x{spec.input_size}-{spec.num_views}x{spec.view_size}-{spec.resolution}"
        return make_pool(
            self.folder / "clips" / name,
            spec,
            self.training.seed,
            plan.size,
            self.training.workers,
            progress=_now_and_then(lambda done, total: self._say(f"clips       {done:>6}/{total} made")),
        )

    def _spec(self, plan: PoolPlan) -> ClipSpec:
        networks = self.training.recipe.networks
        start = self.training.start.networks if self.training.start else {}

        def option(role: str, name: str) -> int:
            return cast(int, getattr(start[role].args, name) if role in start else networks[role][1][name])

        return ClipSpec(
            seed=0,
            num_frames=plan.num_frames,
            num_views=plan.num_views,
            view_size=plan.view_size,
            input_size=option(IMAGE_ENCODER, "image_size"),
            resolution=option("slat_decoder_gs", "resolution"),
        )

    def _shown(self, plan: StepPlan) -> list[TrainingClip]:
        """Clips that nothing trains on; of people's own data, the first ones, whether trained on or not."""
        if self.training.store is not None:
            return [self.training.store.read(i) for i in range(min(SHOWN, len(self.training.store)))]
        spec = self._spec(plan.pool)
        return [make_clip(replace(spec, seed=HELD_OUT_SEED + i)) for i in range(SHOWN)]

    def _card(self) -> str:
        training = self.training
        results = {
            step: json.loads((self._result(step) / "result.json").read_text())
            for step in STEPS
            if self._result(step).exists()
        }
        trained = {
            step: Trained(loop=result["settings"]["loop"], rows=read_log(self.folder / step))
            for step, result in results.items()
            if step != "statistics"
        }
        machine = results[next(reversed(results))]["machine"]
        return model_card(training.recipe, trained, self._settings("structure"), training.seed, machine)


def _machine(device: torch.device) -> str:
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{chip}, {os.cpu_count()} CPU cores, PyTorch {torch.__version__}, Python {platform.python_version()}"


def _now_and_then(tell: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Calls `tell` for the last one, and every `REPORT_EVERY` seconds before."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > REPORT_EVERY:
            last = time.monotonic()
            tell(done, total)

    return progress
