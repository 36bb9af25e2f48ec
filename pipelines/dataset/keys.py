"""The keys of all artifacts of all clips, from recipes alone: before anything runs, and without reading the store.

A recipe depends on its clip only by the hash of the source and the keys of the stage's inputs. So the canonical JSON
of a stage is made once, with blanks in their places, and each key costs one hash of a short text.
"""

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ss4d.pipelines.config import RunConfig, bundled_configs, load_config
from ss4d.pipelines.dataset.launch_lines import read_lines
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.implementation import Implementation
from ss4d.pipelines.networks import Model, open_model
from ss4d.pipelines.plan import Recipes
from ss4d.pipelines.seed import DEFAULT_SEED, check_seed
from ss4d.storage.refs import ArtifactRef, artifact_key, canonical_json, key_of

_DEFAULT = "tiny"
ABSENT, MISSED, DONE = range(3)  # what there is of an artifact
SOURCE = "source"  # the name of the column of digests, beside those of the stages


class Settings(BaseModel):
    """How a user names a configuration; a launch records it in these words.

    Attributes:
        configuration: the name of a bundled one, or a YAML file.
        overrides: of --set.
        seed: of the random numbers.
        revisions: commits of hub repositories, by name, that the launch before took; see `ModelChoice.keeping`.
    """

    configuration: str = _DEFAULT
    overrides: list[str] = []
    seed: int = DEFAULT_SEED
    revisions: dict[str, str] = {}

    def recorded(self) -> dict[str, Any]:
        """The fields for a record, with absolute paths, so that a file is found from any folder."""
        named = self.configuration in bundled_configs()
        path = self.configuration if named else str(Path(self.configuration).absolute())
        return {**self.model_dump(), "configuration": path}

    def words(self) -> list[str]:
        """The options of a command that mean the same; none for defaults."""
        words = [] if self.configuration == _DEFAULT else ["--config", self.configuration]
        words += [word for override in self.overrides for word in ("--set", override)]
        return words if self.seed == DEFAULT_SEED else [*words, "--seed", str(self.seed)]


def choose_settings(
    dataset: Dataset, configuration: str | None = None, overrides: Sequence[str] = (), seed: int | None = None
) -> Settings:
    """The settings of a command: those it gives if it names a configuration, else the last launch's, changed by them.

    Either way commits of hub repositories are the last launch's, so that a branch that has moved changes no keys.

    Args:
        dataset: that the command is about.
        configuration: as in `Settings`; None if the user names none.
        overrides: of --set; the last one for a key counts.
        seed: None if the user gives none.

    Raises:
        OSError: if the records of runs cannot be read.
    """
    named = Settings() if configuration is None else Settings(configuration=configuration)
    last = last_settings(dataset)
    base = (None if configuration is not None else last) or named
    together = {text.partition("=")[0].strip(): text for text in (*base.overrides, *overrides)}
    return Settings(
        configuration=base.configuration,
        overrides=list(together.values()),
        seed=base.seed if seed is None else seed,
        revisions={} if last is None else last.revisions,
    )


def last_settings(dataset: Dataset) -> Settings | None:
    """The settings of the last launch whose record can be read; None if there is none.

    Raises:
        NewerError: if a newer version of the program wrote a line.
        OSError: if the records cannot be read.
    """
    for line in reversed(read_lines(dataset)):
        with suppress(ValidationError):  # cut off by a kill, or edited by hand
            return Settings.model_validate(line.data)
    return None


@dataclass(frozen=True)
class _Template:
    """The canonical JSON of a stage's recipe with blanks (%s), and the columns that fill them in, in order."""

    text: str
    blanks: tuple[str, ...]

    def keys(self, columns: Mapping[str, Sequence[str]], number: int) -> list[str]:
        filled = zip(*(columns[name] for name in self.blanks), strict=True) if self.blanks else repeat((), number)
        return [key_of(self.text % values) for values in filled]


class StageKeys:
    """The keys of one configuration, for clips given by the digests of their sources.

    Args:
        config: with every value filled in.
        fingerprints: of the weights of each role.
        seed: of the random numbers.

    Attributes:
        stages: what a run goes through, by name and in order.

    Raises:
        InputError: a file that the configuration names cannot be read.
    """

    def __init__(self, config: RunConfig, fingerprints: Mapping[str, str], seed: int) -> None:
        self.config = config
        self.fingerprints = fingerprints
        self.seed = seed
        self.stages: dict[str, Implementation] = config.stages()
        recipes = Recipes(config, _blank(SOURCE), seed, fingerprints)
        refs = {name: ArtifactRef(name, _blank(name)) for name in self.stages}
        self._templates = _templates(
            {name: recipes.of(implementation, refs) for name, implementation in self.stages.items()}
        )

    @property
    def goals(self) -> tuple[str, ...]:
        """The stages that make a clip finished, when all of them are done."""
        return self.config.goals

    @property
    def last(self) -> str:
        """The last stage, which is a goal: a failure outside of any stage counts as its."""
        return next(reversed(self.stages))

    def of(self, digests: Sequence[str]) -> dict[str, list[str]]:
        """For each stage in order, the keys of its artifacts, one per digest."""
        return _filled(self._templates, digests)

    def recipes(self, digest: str = "") -> dict[str, dict[str, Any]]:
        """The recipes of a clip by stage, its source given by its digest, or not told; see `recorded_keys`."""
        return Recipes(self.config, digest, self.seed, self.fingerprints).of_all()

    def missing(
        self, keys: Mapping[str, Sequence[str]], complete: Mapping[str, set[str]], missed: Set[str] = frozenset()
    ) -> list[tuple[str, ...]]:
        """The stages that are to run for each clip, in order, as `ss4d.pipelines.plan.make_plan` has it.

        Args:
            keys: what `of` gave.
            complete: keys of the artifacts that are known to be complete, by stage.
            missed: keys of artifacts to make again even if all artifacts made from them exist.
        """
        order = list(self.stages)
        done = [
            [DONE if key in complete[stage] else MISSED if key in missed else ABSENT for key in keys[stage]]
            for stage in order
        ]
        known: dict[tuple[int, ...], tuple[str, ...]] = {}  # only a few patterns occur
        return [
            known[row] if row in known else known.setdefault(row, self._todo(dict(zip(order, row, strict=True))))
            for row in zip(*done, strict=True)
        ]

    def read_source(self, stages: Iterable[str]) -> bool:
        """Whether any of these stages reads the clip's input itself."""
        return any(self.stages[stage].source for stage in stages)

    def _todo(self, states: Mapping[str, int]) -> tuple[str, ...]:
        needed = {*self.goals, *(stage for stage, state in states.items() if state == MISSED)}
        for stage in reversed(self.stages):
            if stage in needed and states[stage] != DONE:
                needed.update(self.stages[stage].inputs)
        return tuple(stage for stage in self.stages if stage in needed and states[stage] != DONE)


def open_keys(settings: Settings, device: str = "cpu") -> tuple[StageKeys, Model]:
    """The keys of a configuration, and the model that it chooses, without loading a network.

    Raises:
        ConfigError, InputError, ModelError, PluginError: one sentence each, see `ss4d.pipelines.errors`.
    """
    check_seed(settings.seed)
    config = load_config(settings.configuration, settings.overrides).keeping(settings.revisions)
    model = open_model(config, device)
    config = config.resolve(model.folder)
    roles = [role for known in config.stages().values() for role in known.roles]
    fingerprints = {role: model.fingerprint(role) for role in roles}
    return StageKeys(config.keeping(model.revisions), fingerprints, settings.seed), model


def pinned(settings: Settings, keys: StageKeys) -> Settings:
    """The settings with the commits of hub repositories that their keys are of, so that they always mean the same."""
    return settings.model_copy(update={"revisions": dict(keys.config.revisions)})


def portable(settings: Settings) -> Settings:
    """The settings so that they mean the same on every machine and at every time, if files have the same paths.

    Raises:
        ConfigError, InputError, ModelError, PluginError: one sentence each, see `ss4d.pipelines.errors`.
    """
    keys, _ = open_keys(settings)
    return Settings.model_validate(pinned(settings, keys).recorded())


def recorded_keys(recipes: Mapping[str, Mapping[str, Any]], digests: Sequence[str]) -> dict[str, list[str]]:
    """For each stage in order, the keys of its artifacts, one per digest, from the recipes that a launch recorded.

    Needs neither the model nor the configuration of that launch.

    Args:
        recipes: what `StageKeys.recipes` gave, perhaps through JSON.
        digests: of clips' sources.
    """
    names = {artifact_key(recipe): stage for stage, recipe in recipes.items()}
    blank = {
        stage: {**recipe, "inputs": {of: _blank(names[key]) for of, key in recipe["inputs"].items()}}
        | ({"source": _blank(SOURCE)} if "source" in recipe else {})
        for stage, recipe in recipes.items()
    }
    return _filled(_templates(blank), digests)


def _filled(templates: Mapping[str, _Template], digests: Sequence[str]) -> dict[str, list[str]]:
    columns: dict[str, Sequence[str]] = {SOURCE: digests}
    keys: dict[str, list[str]] = {}
    for stage, template in templates.items():
        columns[stage] = keys[stage] = template.keys(columns, len(digests))
    return keys


def _blank(name: str) -> str:
    """A placeholder for a digest: 64 hexadecimal digits that occur in no recipe otherwise."""
    return key_of(f"the place of {name} in a recipe")


def _templates(recipes: Mapping[str, Mapping[str, Any]]) -> dict[str, _Template]:
    """The templates of recipes that hold placeholders for digests, by stage."""
    names = {_blank(name): name for name in (SOURCE, *recipes)}
    pattern = re.compile("|".join(names))
    made = {}
    for name, recipe in recipes.items():
        text = canonical_json(recipe)
        blanks = tuple(names[found] for found in pattern.findall(text))
        made[name] = _Template(pattern.sub("%s", text.replace("%", "%%")), blanks)
    return made
