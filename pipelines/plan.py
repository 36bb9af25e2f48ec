"""What a run will do, stage by stage and why, known before anything is computed: keys depend on recipes alone."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from ss4d.pipelines.config import RunConfig
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.graph import after
from ss4d.pipelines.implementation import Implementation
from ss4d.pipelines.trees import flattened
from ss4d.stages.input_files import input_digest
from ss4d.stages.stage_config import AsBefore, Limit
from ss4d.storage.refs import ArtifactRef, artifact_key
from ss4d.storage.store import ArtifactStore

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


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Which stages a user wants computed, apart from those that are missing.

    Attributes:
        from_stage: this one and all that is made from it again, stored or not.
        only: this one alone; what it takes must be stored.
        force: these again, stored or not; what follows them has keys of its own and is kept.
    """

    from_stage: str | None = None
    only: str | None = None
    force: Sequence[str] = ()

    def check(self, stages: Sequence[str]) -> None:
        """Raises ConfigError for a stage that the run does not have, or wishes that exclude each other."""
        for option, name in (("--from", self.from_stage), ("--only", self.only), *(("--force", n) for n in self.force)):
            if name is not None and name not in stages:
                raise ConfigError(
                    f"{option}: there is no stage {name!r} in this run; choose one of {', '.join(stages)}, or ask for "
                    f"another with --goal"
                )
        if self.only and self.from_stage:
            raise ConfigError("--only and --from exclude each other: give one of them")
        if self.only and any(name != self.only for name in self.force):
            raise ConfigError(f"--only {self.only} leaves the other stages alone: --force can name no other with it")

    def forced(self, stages: Mapping[str, Implementation]) -> Mapping[str, str]:
        """The stages to compute though they are stored, and the option that asks for it."""
        again = after(self.from_stage, stages) if self.from_stage else ()
        return dict.fromkeys(again, f"--from {self.from_stage}") | {name: f"--force {name}" for name in self.force}


NO_WISH = Wish()


@dataclass(frozen=True)
class Recipes:
    """What the recipes of one run are made from."""

    config: RunConfig
    source_digest: str
    seed: int
    fingerprints: Mapping[str, str]  # of each role's weights

    def of_all(self) -> dict[str, dict[str, Any]]:
        """The recipes of all stages of the run, by name and in order."""
        made: dict[str, dict[str, Any]] = {}
        refs: dict[str, ArtifactRef] = {}
        for name, implementation in self.config.stages().items():
            made[name] = self.of(implementation, refs)
            refs[name] = ArtifactRef(name, artifact_key(made[name]))
        return made

    def of(self, implementation: Implementation, refs: Mapping[str, ArtifactRef]) -> dict[str, Any]:
        """Everything that decides the stage's result. Not: device, kernels, batch size, codec, paths."""
        stage = implementation.stage
        section = self.config.section(stage)
        recipe: dict[str, Any] = {
            "schema": SCHEMA,
            "stage": stage,
            "implementation": section.method,
            "revision": implementation.revision,
            "parameters": {stage: parameters(section, leave_out={"method"})},
            "inputs": {name: refs[name].key for name in implementation.inputs},
        }
        if implementation.package:
            recipe["package"] = asdict(implementation.package)
        if implementation.source:
            recipe["source"] = self.source_digest
            recipe["parameters"]["input"] = parameters(self.config.input)
        if implementation.roles:
            recipe["weights"] = {role: self.fingerprints[role] for role in implementation.roles}
            recipe["precision"] = self.config.precision
        if implementation.seeded:
            recipe["seed"] = self.seed
        return recipe


def parameters(section: BaseModel, leave_out: Set[str] = frozenset()) -> Any:
    """A section of a configuration as a recipe has it.

    A file counts by its content, an option that came later only where it changes something, see `AsBefore`, and a
    `Limit` never.
    """
    return to_jsonable_python(
        {
            name: _by_content(getattr(section, name))
            for name, field in type(section).model_fields.items()
            if name not in leave_out
            and AsBefore(getattr(section, name)) not in field.metadata
            and Limit() not in field.metadata
        }
    )


def _by_content(value: Any) -> Any:
    match value:
        case Path():
            return {"sha256": input_digest(value)}
        case BaseModel():
            return parameters(value)
        case dict():
            return {key: _by_content(item) for key, item in value.items()}
        case list() | tuple():
            return [_by_content(item) for item in value]
        case _:
            return value


def make_plan(
    recipes: Recipes, store: ArtifactStore, *, wish: Wish, previous: Mapping[str, Mapping[str, Any]]
) -> list[Step]:
    """The steps of a run in order.

    Args:
        recipes: what each stage's recipe is made from.
        store: what is stored already.
        wish: what to compute besides what is missing, or what to leave out.
        previous: recipes of the last run under the same name, by stage; they tell why a stage runs.

    Raises:
        ConfigError: `wish` cannot be met.
        InputError: a file that the configuration names cannot be read.
    """
    stages = recipes.config.stages()
    wish.check(list(stages))
    made = recipes.of_all()
    refs = {name: ArtifactRef(name, artifact_key(recipe)) for name, recipe in made.items()}
    stored = {name: store.contains(ref) for name, ref in refs.items()}
    if wish.only:
        _check_inputs(wish.only, stages[wish.only].inputs, stored)

    forced = wish.forced(stages)
    steps: list[Step] = []
    needed = {wish.only} if wish.only else set(recipes.config.goals)
    for name in reversed(stages):
        if name in forced:
            action, reason = RUN, f"asked for by {forced[name]}"
        elif stored[name]:
            action, reason = REUSE, "stored, made from the same input and parameters"
        elif name in needed:
            action, reason = RUN, why(made[name], previous.get(name))
        elif not wish.only and store.misses(refs[name]):
            action, reason = RUN, "its stored result was damaged"
        elif wish.only:
            action, reason = SKIP, f"left out by --only {wish.only}"
        else:
            action, reason = SKIP, "not stored, and not needed: what comes after it is"
        if action == RUN:
            needed.update(stages[name].inputs)
        steps.append(Step(name, refs[name], made[name], action, reason, replace=name in forced))
    return steps[::-1]


def sure_to_run(config: RunConfig, present: Set[str], wish: Wish) -> list[str]:
    """The stages that run whatever their keys are: asked for, or needed while nothing of them is stored.

    Args:
        config: of the run.
        present: the stages of which any artifact is stored.
        wish: as for `make_plan`.

    Raises:
        ConfigError: `wish` cannot be met.
    """
    stages = config.stages()
    wish.check(list(stages))
    forced = wish.forced(stages)
    needed = {wish.only} if wish.only else set(config.goals)
    sure = []
    for name in reversed(stages):
        if name in forced or (name in needed and name not in present):
            sure.append(name)
            needed.update(() if wish.only else stages[name].inputs)
    return sure


def _check_inputs(only: str, inputs: Sequence[str], stored: Mapping[str, bool]) -> None:
    if missing := [name for name in inputs if not stored[name]]:
        raise ConfigError(
            f"--only {only} needs the result of {' and of '.join(missing)}, which is not stored for this input and "
            "these parameters: run without --only first"
        )


def why(recipe: Mapping[str, Any], previous: Mapping[str, Any] | None) -> str:
    """Why a stage with this recipe has to run, if `previous` is the recipe of the last time; None: there was none."""
    if previous is None:
        return "nothing is stored for this input and these parameters"
    before, now = dict(flattened(previous)), dict(flattened(recipe))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if before.get("implementation") != now["implementation"]:  # what only one of the two knows goes without saying
        changed = [key for key in changed if key in before and key in now]
    if not changed:
        return "its stored result is gone or was never finished"
    return "; ".join(_change(key, before.get(key), now.get(key), now["stage"]) for key in changed)


def _change(key: str, before: Any, now: Any, stage: str) -> str:
    section, _, rest = key.partition(".")
    if section == "inputs":
        return f"its input {rest} changed"
    if section == "weights":
        return f"the weights of {rest} changed"
    if section == "source":
        return "the input file changed"
    if section == "implementation":
        return f"{stage}.method changed from {before} to {now}"
    if rest.endswith(".sha256"):
        return f"the content of {rest.removesuffix('.sha256')} changed"
    return f"{rest if section == 'parameters' else key} changed from {before} to {now}"


@dataclass(frozen=True)
class StageJob:
    """A step as a task takes it: small, plain data, so that any worker on any machine can do it."""

    step: Step
    inputs: Mapping[str, ArtifactRef]
    config: RunConfig
    source: Path
    seed: int
    device: str
    store: str  # where it lies


def jobs_of(
    steps: Sequence[Step], config: RunConfig, source: Path, seed: int, device: str, store: str
) -> list[StageJob]:
    """The jobs of the steps that are not skipped, in order."""
    refs = {step.stage: step.ref for step in steps}
    stages = config.stages()
    return [
        StageJob(step, {name: refs[name] for name in stages[step.stage].inputs}, config, source, seed, device, store)
        for step in steps
        if step.action != SKIP
    ]
