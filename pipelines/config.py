"""The configuration of a run: a section for each stage, strictly validated, from a YAML file and `--set key=value`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.graph import in_order
from ss4d.pipelines.implementation import Implementation
from ss4d.pipelines.networks import ModelChoice
from ss4d.pipelines.registry import installed
from ss4d.pipelines.stages import STAGES
from ss4d.pipelines.yaml_text import SETTING, USUAL, YamlLimits, parse_yaml
from ss4d.stages.input_files import InputConfig
from ss4d.stages.memory import Memory
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.sampler_config import SamplerConfig
from ss4d.stages.sampler_params import SamplerParams
from ss4d.stages.stage_config import StageConfig
from ss4d.storage.files import reading

M = TypeVar("M", bound=BaseModel)
SECTIONS = "sections"  # a field of the configuration, and no key of a file


class LimitConfig(BaseModel):
    """What reading may cost that is neither the input's nor a stage's; no result depends on it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    where_seconds: float = Field(60.0, gt=0, allow_inf_nan=False, description="time that --where may take")
    yaml: YamlLimits = Field(USUAL, description="of a configuration file: those that --set gives, or these")


class RunConfig(ModelChoice):
    """Everything that decides what a run computes, apart from its input, seed and device."""

    input: InputConfig = InputConfig()
    limits: LimitConfig = Field(LimitConfig(), description="bounds of what is read besides the input")
    goals: tuple[str, ...] = Field(
        ("export",), description="the stages whose results are wanted; what they need runs, and no more"
    )
    sections: Mapping[str, SerializeAsAny[StageConfig]] = {}

    def section(self, stage: str) -> StageConfig:
        """The configuration of the named stage."""
        return self.sections[stage]

    def implementations(self) -> dict[str, Implementation]:
        """What does each stage that has a section, by name."""
        return {
            stage: installed().get(stage, section.method).asked(section) for stage, section in self.sections.items()
        }

    def stages(self) -> dict[str, Implementation]:
        """What a run goes through, by name and in order: the goals, and what they need."""
        return in_order(self.goals, self.implementations(), installed().stages())

    def uses(self, stages: Iterable[str]) -> dict[str, SamplerParams | None]:
        """The roles of the networks that the named stages use, and the sampler of each that is sampled.

        Nothing may be left to the model folder any more, see `resolve`.
        """
        found: dict[str, SamplerParams | None] = {}
        chosen = self.implementations()
        for stage in stages:
            sampler = getattr(self.section(stage), "sampler", None)
            params = sampler.params() if isinstance(sampler, SamplerConfig) else None
            found |= dict.fromkeys(chosen[stage].roles, params)
        return found

    def check(self, stages: Iterable[str]) -> None:
        """Looks whether the named stages, which are to run, can do so here.

        Raises:
            InputError: what is missing, such as a package, and how to get it.
        """
        chosen = self.implementations()
        for stage in stages:
            chosen[stage].check(self.section(stage))

    def wanting(self, goals: Iterable[str]) -> Self:
        """This configuration with other goals, which must be names of stages."""
        goals = tuple(goals)
        return self.model_copy(update={"goals": goals, SECTIONS: _completed(self.sections, goals)})

    def resolve(self, folder: ModelFolder) -> Self:
        """This configuration with every value that was left to the model folder filled in."""
        chosen = self.implementations()
        return self.model_copy(
            update={SECTIONS: {name: chosen[name].resolve(given, folder) for name, given in self.sections.items()}}
        )

    def described(self) -> dict[str, Any]:
        """As a record has it, and as a file would say it: one tree of plain data."""
        data = self.model_dump(mode="json")
        sections: dict[str, Any] = data.pop(SECTIONS)
        return data | sections


def bundled_configs() -> list[str]:
    """Names of the configurations that come with the program."""
    return sorted(Path(f.name).stem for f in resources.files("ss4d.configs").iterdir() if f.name.endswith(".yaml"))


def config_text(name: str) -> str:
    """The text of the bundled configuration called `name`.

    Raises:
        ConfigError: there is none.
    """
    if name not in bundled_configs():
        raise ConfigError(f"no bundled configuration is called {name!r}: choose {', '.join(bundled_configs())}")
    return resources.files("ss4d.configs").joinpath(f"{name}.yaml").read_text()


def load_config(source: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration named `source` (bundled name or YAML file), with `key.sub=value` overrides applied in order.

    Raises:
        ConfigError: naming the file or key, the value given and what is allowed.
        PluginError: a package that it asks for is broken.
    """
    limits = _yaml_limits(overrides)
    data, folder = _read_yaml(source, limits)
    changes = [_parse(override, limits) for override in overrides]
    for key, value in changes:
        _leave_to_another_method(data, key, value)
    for key, value in changes:
        _put(data, key, value)
    overridden = {key for key, _ in changes}
    named = [stage for stage in installed().stages() if stage in data and stage not in RunConfig.model_fields]
    try:
        sections = {stage: _stage_section(stage, data.pop(stage)) for stage in named}
        _refuse_unknown(data)
        _refuse_no_goals(data)
        config = _validated(RunConfig, data)
    except TypeError as error:
        raise ConfigError(f"configuration {source!r} holds a value that is not plain data: {error}") from error
    if config.limits.yaml != limits:
        raise ConfigError(
            f"{source} is read before the {SETTING} that it holds: say them with --set {SETTING}.KEY=VALUE"
        )
    sections = {stage: _with_places(stage, section, folder, overridden) for stage, section in sections.items()}
    return config.model_copy(update={SECTIONS: _as_called_for(_completed(sections, config.goals))})


def _as_called_for(sections: Mapping[str, StageConfig]) -> dict[str, StageConfig]:
    """The sections, "auto" replaced where the implementation of another stage calls for a certain method."""
    chosen = dict(sections)
    for stage, section in sections.items():
        for other, method in installed().get(stage, section.method).calls_for.items():
            if other in chosen and chosen[other].method == "auto":
                told = chosen[other].model_dump(mode="json", exclude_defaults=True)
                chosen[other] = _stage_section(other, {**told, "method": method})
    return chosen


def _completed(sections: Mapping[str, StageConfig], goals: Sequence[str]) -> dict[str, StageConfig]:
    """The sections, and a default one for every stage that comes with the program, is a goal or is needed for one."""
    known = installed().stages()
    for position, goal in enumerate(goals):
        if goal not in known:
            raise ConfigError(
                f"configuration key 'goals': there is no stage {goal!r}; choose from {', '.join(known)}, "
                "or install the package that adds it"
            )
        if goal in goals[:position]:
            raise ConfigError(f"configuration key 'goals' names {goal} twice")
    complete = dict(sections)
    seen: set[str] = set()
    wanted = [*(stage.name for stage in STAGES), *goals, *sections]
    while wanted:
        stage = wanted.pop()
        if stage not in known:  # named by an implementation; said where the stages are put in order
            continue
        if stage not in complete:
            complete[stage] = _stage_section(stage, {})
        if stage in seen:
            continue
        seen.add(stage)
        implementation = installed().get(stage, complete[stage].method).asked(complete[stage])
        wanted.extend((*implementation.inputs, *implementation.optional))
    return {stage: complete[stage] for stage in known if stage in complete}


def _refuse_no_goals(data: Mapping[str, Any]) -> None:
    """Raises ConfigError for goals that are no list of names."""
    goals = data.get("goals", ["export"])
    if not (isinstance(goals, list) and goals and all(isinstance(goal, str) for goal in goals)):
        raise ConfigError(
            f"configuration key 'goals' must be a list of one or more stages, such as [export]; got {goals!r}"
        )


def _refuse_unknown(data: Mapping[str, Any]) -> None:
    """Raises ConfigError for a key of the top that is neither the run's nor a stage's."""
    own = RunConfig.model_fields.keys() - {SECTIONS}
    if unknown := sorted(map(str, data.keys() - own)):
        raise ConfigError(
            f"unknown configuration key {unknown[0]!r}; allowed here: {', '.join(sorted(own) + installed().stages())}"
        )


def _stage_section(stage: str, data: Any) -> StageConfig:
    """A stage's section as the implementation wants it that its method chooses."""
    if not isinstance(data, dict):
        raise ConfigError(f"configuration key {stage!r}: should be a section of keys; got {data!r}")
    data = {"method": installed().default(stage), **data}
    return _validated(installed().get(stage, data["method"]).config, data, stage)


def _validated(kind: type[M], data: Any, section: str = "") -> M:
    """A part of the configuration. Raises TypeError for what is not plain data, and ConfigError."""
    try:
        # JSON mode is strict about types, yet takes the lists and strings that YAML can write.
        return kind.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(problem, kind, section) for problem in error.errors())) from error


def _with_places(stage: str, section: StageConfig, folder: Path, overridden: set[str]) -> StageConfig:
    """The section with absolute paths: those of a file count from its folder, those of the command from where it runs.

    So a path in a file means the same from wherever the command is run.
    """
    paths = {
        name: (Path.cwd() if f"{stage}.{name}" in overridden else folder) / value
        for name, value in section
        if isinstance(value, Path)
    }
    return section.model_copy(update=paths)


def _yaml_limits(overrides: Sequence[str]) -> YamlLimits:
    """The limits that --set gives: they hold for all that is read, the file among it."""
    data: dict[str, Any] = {}
    for override in overrides:
        if override.partition("=")[0].partition(".")[0] == "limits":
            _put(data, *_parse(override, USUAL))
    return _validated(LimitConfig, data.get("limits", {}), "limits").yaml


def _read_yaml(source: str, limits: YamlLimits) -> tuple[dict[str, Any], Path]:
    """What a configuration says, and the folder that its paths count from."""
    if source in bundled_configs():
        text = config_text(source)
    elif not source.endswith((".yaml", ".yml")):
        raise ConfigError(
            f"no configuration is called {source!r}: choose {', '.join(bundled_configs())} or give a .yaml file"
        )
    else:
        try:
            with reading(Path(source)) as file:
                text = file.read(4 * limits.characters + 1).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the configuration file {source}: {_cause(error)}") from error
    try:
        data = parse_yaml(text, limits)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {_line(error)}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{source} must hold configuration keys and values, but holds {type(data).__name__}")
    folder = Path(source).absolute().parent
    local = {key for key in ("model", "image_encoder") if isinstance(data.get(key), str) and ":" not in data[key]}
    return data | {key: str(folder / data[key]) for key in local}, folder


def _cause(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not a text file"


def _parse(override: str, limits: YamlLimits) -> tuple[str, Any]:
    """The key and the value of `key.sub=value`."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set takes key=value, for example slat.sampler.steps=12; got {override!r}")
    try:
        return key, parse_yaml(text, limits)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: the value {text[:40]!r} is not valid YAML ({_line(error)})") from error


def _line(error: yaml.YAMLError) -> str:
    """What is wrong with a YAML text, in one line."""
    return " ".join(str(error).split())


def _leave_to_another_method(data: dict[str, Any], key: str, method: Any) -> None:
    """Empties a stage's section if `key` chooses another implementation: what stands there is for the one it names."""
    stage, _, rest = key.partition(".")
    section = data.get(stage)
    registry = installed()
    if rest != "method" or stage not in registry.stages() or not isinstance(section, dict):
        return
    if not registry.same(stage, section.get("method", registry.default(stage)), method):
        data[stage] = {}


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for depth, section in enumerate(sections, start=1):
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {key}: {'.'.join(sections[:depth])} is a value, not a section")
    data[last] = value


def as_overrides(
    overrides: Sequence[str] | None, goals: Sequence[str] | None, memory: Memory | None = None
) -> list[str]:
    """What a user says with --set, --goal and --memory, all of it as --set has it."""
    said = [f"goals=[{', '.join(goals)}]"] if goals else []
    return [*(overrides or ()), *said, *([f"memory={memory}"] if memory else ())]


def with_frames(
    overrides: Sequence[str], start: str | None, end: str | None, fps: float | None, mask: Path | None
) -> list[str]:
    """What a user says with --set, --start, --end, --fps and --mask, all of it as --set has it."""
    said = {"start": start, "end": end, "fps": fps, "rate": fps}
    masks = [] if mask is None else [f"segmentation.mask={json.dumps(str(mask))}"]
    return [*overrides, *(f"input.{key}={value}" for key, value in said.items() if value is not None), *masks]


def _sentence(problem: Any, kind: type[BaseModel], stage: str = "") -> str:
    """One pydantic problem as a sentence that names the key, the value and what is allowed."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join([stage, *location] if stage else location)
    if problem["type"] == "extra_forbidden":
        allowed = ", ".join(sorted(_keys_beside(kind, location)))
        return f"unknown configuration key {key!r}" + (f"; allowed here: {allowed}" if allowed else "")
    if problem["type"] == "missing":
        return f"configuration key {key!r} is missing"
    message = "should be a section of keys" if problem["type"] == "model_type" else problem["msg"]
    message = message.removeprefix("Value error, ")
    given = "" if isinstance(problem["input"], (dict, BaseModel)) else f"; got {problem['input']!r}"
    return f"configuration key {key!r}: {message[:1].lower()}{message[1:]}{given}"


def _keys_beside(kind: type[BaseModel], location: Sequence[str]) -> Iterable[str]:
    """The keys of the section that the last part of a location stands in; none where that section is one of several."""
    for part in location[:-1]:
        annotation = kind.model_fields[part].annotation if part in kind.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ()
        kind = annotation
    return kind.model_fields
