"""What a run will do, stage by stage and why, known before anything is computed: keys depend on recipes alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config import RunConfig
from pipelines.errors import ConfigError
from pipelines.stages import Stage, stages_of
from storage.refs import ArtifactRef, artifact_key
from storage.store import ArtifactStore

SCHEMA = 1
RUN, REUSE, SKIP = "run", "reuse", "skip"


@dataclass(frozen=True)
class Step:
    """One stage of one run: its artifact, the recipe the artifact's key is made from, and what will happen to it."""

    stage: str
    ref: ArtifactRef
    recipe: Mapping[str, Any]
    action: str  # RUN, REUSE or SKIP
    reason: str
    replace: bool  # compute again although it is stored


@dataclass(frozen=True)
class Recipes:
    """What the recipes of one run are made from."""

    config: RunConfig
    source_digest: str
    seed: int
    fingerprints: Mapping[str, str]  # of each role's weights

    def of(self, stage: Stage, refs: Mapping[str, ArtifactRef]) -> dict[str, Any]:
        """Everything that decides the stage's result. Not: device, batch size, codec, paths."""
        recipe: dict[str, Any] = {
            "schema": SCHEMA,
            "stage": stage.name,
            "implementation": stage.implementation,
            "revision": stage.revision,
            "parameters": {name: getattr(self.config, name).model_dump(mode="json") for name in stage.sections},
            "inputs": {name: refs[name].key for name in stage.inputs},
        }
        if not stage.inputs:
            recipe["source"] = self.source_digest
        if stage.roles:
            recipe["weights"] = {role: self.fingerprints[role] for role in stage.roles}
            recipe["precision"] = self.config.precision
        if stage.seeded:
            recipe["seed"] = self.seed
        return recipe


def make_plan(
    recipes: Recipes, store: ArtifactStore, *, from_stage: str | None, previous: Mapping[str, Mapping[str, Any]]
) -> list[Step]:
    """The steps of a run in order.

    Args:
        recipes: what each stage's recipe is made from.
        store: what is stored already.
        from_stage: compute this stage and those after it again, stored or not.
        previous: recipes of the last run under the same name, by stage; they tell why a stage runs.

    Raises:
        ConfigError: there is no stage called `from_stage`.
    """
    stages = stages_of(recipes.config)
    if from_stage is not None and from_stage not in stages:
        raise ConfigError(f"there is no stage {from_stage!r} in this run; choose one of {', '.join(stages)}")
    refs: dict[str, ArtifactRef] = {}
    made: dict[str, dict[str, Any]] = {}
    for name, stage in stages.items():
        made[name] = recipes.of(stage, refs)
        refs[name] = ArtifactRef(name, artifact_key(made[name]))

    order = list(stages)
    forced = set(order[order.index(from_stage) :]) if from_stage else set()
    steps: list[Step] = []
    needed = {order[-1]}
    for name in reversed(order):
        stored = store.contains(refs[name])
        if name in forced:
            action, reason = RUN, f"asked for by --from {from_stage}"
        elif stored:
            action, reason = REUSE, "stored, made from the same input and parameters"
        elif name in needed:
            action, reason = RUN, _why(made[name], previous.get(name))
        else:
            action, reason = SKIP, "not stored, and not needed: what comes after it is"
        if action == RUN:
            needed.update(stages[name].inputs)
        steps.append(Step(name, refs[name], made[name], action, reason, replace=name in forced))
    return steps[::-1]


def _why(recipe: Mapping[str, Any], previous: Mapping[str, Any] | None) -> str:
    if previous is None:
        return "nothing is stored for this input and these parameters"
    before, now = dict(_flat(previous)), dict(_flat(recipe))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if not changed:
        return "its stored result is gone or was never finished"
    return "; ".join(_change(key, before.get(key), now.get(key)) for key in changed)


def _change(key: str, before: Any, now: Any) -> str:
    section, _, rest = key.partition(".")
    if section == "inputs":
        return f"its input {rest} changed"
    if section == "weights":
        return f"the weights of {rest} changed"
    if section == "source":
        return "the input file changed"
    return f"{rest if section == 'parameters' else key} changed from {before} to {now}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@dataclass(frozen=True)
class Job:
    """A step as a task takes it: small, plain data, so that any worker on any machine can do it."""

    step: Step
    inputs: Mapping[str, ArtifactRef]
    config: RunConfig
    source: Path
    seed: int
    device: str
    store: Path


def jobs_of(steps: list[Step], config: RunConfig, source: Path, seed: int, device: str, store: Path) -> list[Job]:
    """The jobs of the steps that are not skipped, in order."""
    refs = {step.stage: step.ref for step in steps}
    stages = stages_of(config)
    return [
        Job(step, {name: refs[name] for name in stages[step.stage].inputs}, config, source, seed, device, store)
        for step in steps
        if step.action != SKIP
    ]
