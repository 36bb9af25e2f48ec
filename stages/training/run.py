"""Train a model by its recipe, step by step; each leaves its result in a folder and is skipped once it has.

OUT/training/STEP holds what a step writes as it goes, and in the end result/ with its networks; OUT itself becomes a
model folder when all is there.
"""

import json
import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ss4d.stages.errors import InputError
from ss4d.stages.training.assets import asset_files
from ss4d.stages.training.card import Trained, model_card
from ss4d.stages.training.files import whole_folder
from ss4d.stages.training.folder import Start, save_roles, write_model
from ss4d.stages.training.log import read_log
from ss4d.stages.training.loop import Say, train
from ss4d.stages.training.lora import add_adapters, merge_adapters
from ss4d.stages.training.recipe import StepPlan
from ss4d.stages.training.results import Results
from ss4d.stages.training.sources import ClipSources, TimeUpError
from ss4d.stages.training.steps import LEAVES, STEPS, Step, possible_steps
from ss4d.stages.training.training import Training


def run_training(training: Training, say: Say) -> bool:
    """Does what is left to do, and writes the model folder once every network is there.

    Returns:
        Whether all is done; if not, the same call goes on.

    Raises:
        InputError: if options do not fit each other, a step lacks what earlier ones leave, or `out` holds another
            training.
        TrainingError: if a loss stops being a number.
    """
    _check(training)
    if training.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    run = _Run(training, say)
    for step in possible_steps(training):
        if not run.do(step):
            say(f"the time was up in {step.name}; what is made is kept, and the same command goes on from there")
            return False
    _write_model(run.results, say)
    return True


def _check(training: Training) -> None:
    if training.lora is not None and training.start is None:
        raise InputError("adapters need a model to adapt: give --init with --lora")
    if training.deepen and (training.start is None or training.only != "images"):
        raise InputError("--deepen adds to an image encoder that learns on: give --init and --only images with it")
    if not 0 < training.rate < math.inf:
        raise InputError(f"--rate {training.rate:g} is no part of a learning rate: it must be greater than 0")
    if training.fresh and training.store is not None:
        raise InputError("--fresh makes clips, and --data brings them: choose one")


class _Run:
    """A training and the results it has so far."""

    def __init__(self, training: Training, say: Say) -> None:
        self.training, self._say = training, say
        self.results = Results(training, LEAVES)
        self._sources = ClipSources(self.results, say)
        self._start_digest = None if training.start is None else training.start.digest()

    def do(self, step: Step) -> bool:
        """Does one step, or finds it done; False if the time was up before."""
        result = self.results.path(step.name)
        if result.exists():
            given = json.loads((result / "result.json").read_text())["settings"]
            if given != json.loads(json.dumps(self._settings(step))):
                raise InputError(
                    f"{result} comes from another training; choose another --out, or delete {result.parent} and the "
                    "steps after it to do them again"
                )
            self._say(f"{step.name:<11} is done")
            return True
        for needed in step.needs:
            if not self.results.has(needed):
                raise InputError(
                    f"{step.name} needs what {needed} leaves: do that step first, or give --init with encoders"
                )
        if time.monotonic() > self.training.deadline:
            return False
        try:
            trained = self._train(step)
            if trained is None:
                return False
            numbers = self._measure(step, trained)
        except TimeUpError:
            return False
        with whole_folder(result) as draft:
            save_roles(draft, trained)
            content = numbers | {"settings": self._settings(step), "machine": _machine(self.training.device)}
            (draft / "result.json").write_text(json.dumps(content, indent=1))
        return True

    def _train(self, step: Step) -> dict[str, nn.Module] | None:
        """The networks that the step leaves, by role; None if the time was up before."""
        if step.objective is None:
            return {}
        plan, objective = self._plan(step), step.objective(self.results)
        if self.training.lora is not None and step.adapts:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.training.seed)
                for network in objective.trained().values():
                    add_adapters(network, self.training.lora)
        with self._sources.open(plan) as clips:
            done = train(
                objective,
                clips,
                plan.settings,
                self.results.folder / step.name,
                identity=self._settings(step),
                shown=self._sources.shown(plan),
                say=self._say,
                deadline=self.training.deadline,
            )
        if not done:
            return None
        trained = objective.trained()
        for network in trained.values():
            merge_adapters(network)
        return {role: trained[role] for role in step.leaves if role in trained}

    def _measure(self, step: Step, trained: Mapping[str, nn.Module]) -> dict[str, Any]:
        """The numbers that the step leaves."""
        if step.measure is None:
            return {}
        numbers = step.measure(
            self.results, trained, self._sources.measured(self.training.recipe.plans[step.measured_on])
        )
        if numbers:
            self._say(f"{step.name:<11} {json.dumps(numbers)}")
        return numbers

    def _plan(self, step: Step) -> StepPlan:
        training = self.training
        plan = training.recipe.plans[step.plan]
        return replace(plan, settings=plan.settings.changed(training.seed, training.steps, training.rate))

    def _settings(self, step: Step) -> dict[str, Any]:
        """What must be the same for a result or a checkpoint to be this training's."""
        training, plan = self.training, self._plan(step)
        return {
            "recipe": training.recipe.name,
            "loop": plan.settings.decides(),
            "pool": None if training.store else plan.pool.decides(),
            "vary": plan.vary and not training.store,
            "records": training.store_digest,
            "assets": None if training.assets is None else training.assets.name,
            "fresh": training.fresh,
            "start": self._start_digest,
            "lora": training.lora if step.adapts else None,
            # Options that came later are noted where they are used, so that earlier trainings go on.
            **({"deepen": True} if training.deepen else {}),
        }


def _write_model(results: Results, say: Say) -> None:
    """Writes the model folder, if there is a network for every role and the folder is older than one of them."""
    training = results.training
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
    write_model(training.out, model, _card(results))
    say(f"the model is in {training.out}")


def _card(results: Results) -> str:
    training = results.training
    contents = {
        step: json.loads((results.path(step.name) / "result.json").read_text())
        for step in STEPS.values()
        if results.path(step.name).exists()
    }
    trained = {
        step.name: Trained(loop=content["settings"]["loop"], rows=read_log(results.folder / step.name))
        for step, content in contents.items()
        if step.objective is not None
    }
    return model_card(
        training.recipe,
        trained,
        records=None if training.store is None else len(training.store),
        fresh=training.fresh,
        assets=[] if training.assets is None else [file.stem for file in asset_files(training.assets)],
        start=None if training.start is None else training.start.origin,
        deepened=any(content["settings"].get("deepen") for content in contents.values()),
        lora=training.lora,
        seed=training.seed,
        machine=next(reversed(contents.values()))["machine"],
    )


def _machine(device: torch.device) -> str:
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{chip}, {os.cpu_count()} CPU cores, PyTorch {torch.__version__}, Python {platform.python_version()}"
