"""The configuration of a run: one section per stage, strictly validated, from a YAML file and `--set key=value`."""

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.errors import ConfigError
from stages.conditioning import ConditioningConfig
from stages.decoding import DecodingConfig
from stages.export.asset import ExportConfig
from stages.inflation import InflationConfig
from stages.segmentation.segment import SegmentationConfig
from stages.slat import SlatConfig
from stages.sparse_structure import SparseStructureConfig
from stages.video_io import InputConfig

Precision = Literal["float32", "float16", "bfloat16"]


class RunConfig(BaseModel):
    """Everything that decides what a run computes, apart from its input, seed and device."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str = Field(description="bundled:NAME, hub:ORG/NAME, or a model folder")
    image_encoder: str | None = Field(
        default=None,
        description="hub:ORG/NAME or a safetensors file of DINOv2, for a model folder without an encoder of its own",
    )
    precision: Precision = Field(default="float32", description="number format of the transformer torsos")
    input: InputConfig = InputConfig()
    segmentation: SegmentationConfig = SegmentationConfig()
    conditioning: ConditioningConfig = ConditioningConfig()
    sparse_structure: SparseStructureConfig = SparseStructureConfig()
    slat: SlatConfig = SlatConfig()
    decoding: DecodingConfig | InflationConfig = Field(default=DecodingConfig(), discriminator="method")
    export: ExportConfig = ExportConfig()


def bundled_configs() -> list[str]:
    """Names of the configurations that come with the program."""
    return sorted(Path(f.name).stem for f in resources.files("configs").iterdir() if f.name.endswith(".yaml"))


def config_text(name: str) -> str:
    """The text of the bundled configuration called `name`.

    Raises:
        ConfigError: there is none.
    """
    if name not in bundled_configs():
        raise ConfigError(f"no bundled configuration is called {name!r}: choose {', '.join(bundled_configs())}")
    return resources.files("configs").joinpath(f"{name}.yaml").read_text()


def load_config(source: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration named `source` (bundled name or YAML file), with `key.sub=value` overrides applied in order.

    Raises:
        ConfigError: naming the file or key, the value given and what is allowed.
    """
    data = _read_yaml(source)
    for override in overrides:
        _apply(data, override)
    try:
        # JSON mode is strict about types, yet takes the lists and strings that YAML can write.
        return RunConfig.model_validate_json(json.dumps(data))
    except TypeError as error:
        raise ConfigError(f"configuration {source!r} holds a value that is not plain data: {error}") from error
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(problem) for problem in error.errors())) from error


def _read_yaml(source: str) -> dict[str, Any]:
    if source in bundled_configs():
        text = config_text(source)
    elif not source.endswith((".yaml", ".yml")):
        raise ConfigError(
            f"no configuration is called {source!r}: choose {', '.join(bundled_configs())} or give a .yaml file"
        )
    else:
        try:
            text = Path(source).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the configuration file {source}: {_cause(error)}") from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{source} must hold configuration keys and values, but holds {type(data).__name__}")
    # A path in a file means the same from wherever the command is run.
    local = {key for key in ("model", "image_encoder") if isinstance(data.get(key), str) and ":" not in data[key]}
    return data | {key: str(Path(source).absolute().parent / data[key]) for key in local}


def _cause(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not a text file"


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set takes key=value, for example slat.sampler.steps=12; got {override!r}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: the value {text!r} is not valid YAML") from error
    *sections, last = key.split(".")
    for depth, section in enumerate(sections, start=1):
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {key}: {'.'.join(sections[:depth])} is a value, not a section")
    data[last] = value


def _sentence(problem: Any) -> str:
    """One pydantic problem as a sentence that names the key, the value and what is allowed."""
    key, section = _resolve(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown configuration key {key!r}; allowed here: {', '.join(sorted(section.model_fields))}"
    if problem["type"] == "missing":
        return f"configuration key {key!r} is missing"
    message = "should be a section of keys" if problem["type"] == "model_type" else problem["msg"]
    message = message.removeprefix("Value error, ")
    given = "" if isinstance(problem["input"], (dict, BaseModel)) else f"; got {problem['input']!r}"
    return f"configuration key {key!r}: {message[:1].lower()}{message[1:]}{given}"


def _resolve(location: Sequence[str | int]) -> tuple[str, type[BaseModel]]:
    """The key at a pydantic location, and the section it stands in; where methods share a section, the chosen one's."""
    section: type[BaseModel] = RunConfig
    key: list[str] = []
    choices: dict[str, type[BaseModel]] = {}
    for part in map(str, location):
        if part in choices:  # not a key: pydantic's way to say which method was chosen
            section, choices = choices[part], {}
            continue
        key.append(part)
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and part != location[-1]:
            section = annotation
        choices = {kind.model_fields["method"].default: kind for kind in _section_types(annotation)}
    return ".".join(key), section


def _section_types(annotation: Any) -> list[type[BaseModel]]:
    """The sections in a union of them; none for anything else."""
    return [kind for kind in get_args(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
