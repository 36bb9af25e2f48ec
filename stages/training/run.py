"""Train a model by its recipe: seven steps, each of which leaves its result in a folder and is skipped once it has.

OUT/training/STEP holds what a step writes as it goes, and in the end result/ with its networks; OUT itself becomes a
model folder when all is there.
"""

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from ss4d.stages.data.clip import HELD_OUT_SEED, ClipSpec, TrainingClip, make_clip
from ss4d.stages.errors import InputError
from ss4d.stages.nn.occupancy import SparseStructureDecoder, SparseStructureEncoder
from ss4d.stages.roles import GAUSSIAN_DECODER, IMAGE_ENCODER, LATENT_ENCODER
from ss4d.stages.training.assembly import build_objective
from ss4d.stages.training.card import Trained, model_card
from ss4d.stages.training.clips import ClipStore, FreshClips, StoredClips, make_pool
from ss4d.stages.training.files import whole_folder
from ss4d.stages.training.folder import Start, save_roles, write_model
from ss4d.stages.training.log import read_log
from ss4d.stages.training.loop import Say, train
from ss4d.stages.training.lora import add_adapters, merge_adapters
from ss4d.stages.training.options import ENCODERS_OF, END_TO_END, FLOWS, LEAVES, NEEDS, Training
from ss4d.stages.training.recipe import STEPS, PoolPlan, StepPlan
from ss4d.stages.training.results import Results
from ss4d.stages.training.statistics import fold_scale, occupancy_scale, slat_normalization

SHOWN = 2  # clips in pictures
REPORT_EVERY = 10.0  # seconds between two lines on the clips being made


def run_training(training: Training, say: Say) -> bool:
    """Does what is left to do, and writes the model folder once every network is there.

    Returns:
        Whether all is done; if not, the same call goes on.

    Raises:
        InputError: if options do not fit each other, a step lacks what earlier ones leave, or `out` holds another
            training.
        TrainingError: if a loss stops being a number.
    """
    if training.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    run = _Run(training, say)
    for step in run.steps():
        if not run.do(step):
            say(f"the time was up in {step}; what is made is kept, and the same command goes on from there")
            return False
    run.write_model()
    return True


class _TimeUpError(Exception):
    """The deadline passed while clips were made."""


class _Run:
    """A training and the results it has so far."""

    def __init__(self, training: Training, say: Say) -> None:
        self.training, self._say = training, say
        self.results = Results(training)
        self.folder = self.results.folder
        self._start_digest = None if training.start is None else training.start.digest()

    def steps(self) -> Sequence[str]:
        training = self.training
        if training.lora is not None and training.start is None:
            raise InputError("adapters need a model to adapt: give --init with --lora")
        if not 0 < training.rate < math.inf:
            raise InputError(f"--rate {training.rate:g} is no part of a learning rate: it must be greater than 0")
        if training.fresh and training.store is not None:
            raise InputError("--fresh makes clips, and --data brings them: choose one")
        possible = self._possible()
        if training.only is None:
            return possible
        if training.only not in possible:
            raise InputError(f"--only {training.only} is none of the steps {', '.join(possible)}")
        return (training.only,)

    def _possible(self) -> Sequence[str]:
        """The steps of this training: a model that comes without an encoder keeps its codes."""
        start, lora = self.training.start, self.training.lora
        if start is None:
            return STEPS
        missing = [step for step, encoder in ENCODERS_OF.items() if encoder not in start.networks]
        if lora is not None:
            return (*missing, *FLOWS)
        return (*missing, *FLOWS, *END_TO_END) if missing else STEPS

    def do(self, step: str) -> bool:
        """Does one step, or finds it done; False if the time was up before."""
        result = self.results.path(step)
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
            if not self.results.has(needed):
                raise InputError(f"{step} needs what {needed} leaves: do that step first, or give --init with encoders")
        began = time.monotonic()
        if began > self.training.deadline:
            return False
        try:
            networks, content = self._measure() if step == "statistics" else self._train(step)
        except _TimeUpError:
            return False
        if networks is None:
            return False
        with whole_folder(result) as draft:
            save_roles(draft, networks)
            content |= {"settings": self._settings(step), "machine": _machine(self.training.device)}
            (draft / "result.json").write_text(json.dumps(content, indent=1))
        return True

    def write_model(self) -> None:
        """Writes the model folder, if there is a network for every role and the folder is older than one of them."""
        training, results = self.training, self.results
        if not all(results.has(step) for step in STEPS):
            return
        written = training.out / "pipeline.json"  # the last file of a model to be written
        left = [results.path(step) / "result.json" for step in STEPS if results.path(step).exists()]
        if written.exists() and all(file.stat().st_mtime <= written.stat().st_mtime for file in left):
            return
        structure_sampler, slat_sampler = results.samplers()
        model = Start(
            networks={role: results.network(role) for role in training.recipe.networks if results.known(role)},
            normalization=results.normalization(),
            structure_sampler=structure_sampler,
            slat_sampler=slat_sampler,
            origin=training.out.name,
        )
        write_model(training.out, model, self._card())
        self._say(f"the model is in {training.out}")

    def _train(self, step: str) -> tuple[dict[str, nn.Module] | None, dict[str, Any]]:
        plan = self._plan(step)
        objective = build_objective(step, self.results)
        if self.training.lora is not None and step in FLOWS:
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
                identity=self._settings(step),
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
        # A decoder that was there before wants latents as they are.
        return left, self._fold_scale(**trained) if step == "occupancy" and len(left) == len(LEAVES[step]) else {}

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
        normalization = slat_normalization(self.results.network(LATENT_ENCODER, "statistics"), self._measured())
        numbers = {"slat_normalization": asdict(normalization)}
        self._say(f"statistics  {json.dumps(numbers)}")
        return {}, numbers

    def _measured(self) -> list[list[TrainingClip]]:
        """What latents are measured on: clips, each a batch of its own, as they may differ in length."""
        with self._clips(replace(self._plan("structure"), vary=False)) as clips:
            return [clips.batch(i, 1) for i in range(self.training.recipe.measured)]

    def _plan(self, step: str) -> StepPlan:
        training = self.training
        plan = training.recipe.plans[step]
        return replace(plan, settings=plan.settings.changed(training.seed, training.steps, training.rate))

    def _settings(self, step: str) -> dict[str, Any]:
        """What must be the same for a result or a checkpoint to be this training's."""
        training = self.training
        plan = self._plan("structure" if step == "statistics" else step)
        return {
            "recipe": training.recipe.name,
            "loop": plan.settings.decides(),
            "pool": None if training.store else asdict(plan.pool),
            "vary": plan.vary and not training.store,
            "records": training.store_digest,
            "fresh": training.fresh,
            "start": self._start_digest,
            "lora": training.lora if step in FLOWS else None,
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
            range(plan.first, plan.first + plan.size),
            self.training.workers,
            progress=self._made(),
        )

    def _made(self) -> Callable[[int, int], None]:
        """Hears of clips that are made, and ends that when the time is up."""
        say = _now_and_then(lambda done, total: self._say(f"clips       {done:>6}/{total} made"))

        def progress(done: int, total: int) -> None:
            say(done, total)
            if done < total and time.monotonic() > self.training.deadline:
                raise _TimeUpError

        return progress

    def _spec(self, plan: PoolPlan) -> ClipSpec:
        return ClipSpec(
            seed=0,
            num_frames=plan.num_frames,
            num_views=plan.num_views,
            view_size=plan.view_size,
            input_size=self.results.option(IMAGE_ENCODER, "image_size"),
            resolution=self.results.option(GAUSSIAN_DECODER, "resolution"),
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
            step: json.loads((self.results.path(step) / "result.json").read_text())
            for step in STEPS
            if self.results.path(step).exists()
        }
        trained = {
            step: Trained(loop=result["settings"]["loop"], rows=read_log(self.folder / step))
            for step, result in results.items()
            if step != "statistics"
        }
        machine = results[next(reversed(results))]["machine"]
        return model_card(
            training.recipe,
            trained,
            records=None if training.store is None else len(training.store),
            fresh=training.fresh,
            start=None if training.start is None else training.start.origin,
            lora=training.lora,
            seed=training.seed,
            machine=machine,
        )


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
