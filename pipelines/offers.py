"""What `ss4d stages` tells: every implementation of every stage, and each one's parameters in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ss4d.pipelines.errors import ConfigError, PluginError
from ss4d.pipelines.implementation import Implementation
from ss4d.pipelines.registry import PROGRAM, Registry
from ss4d.stages.stage_config import StageConfig

BOUNDS = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One configuration key of an implementation."""

    key: str  # as --set takes it
    kind: str
    default: str
    limits: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One implementation of a stage, or why what is offered under its name cannot be used."""

    stage: str
    methods: Sequence[str]
    default: bool = False
    package: str = PROGRAM
    takes: Sequence[str] = ()
    networks: Sequence[str] = ()
    seeded: bool = False
    parameters: Sequence[Parameter] = ()
    problem: str | None = None


def offers(registry: Registry) -> list[Offer]:
    """Every implementation, stage by stage; loads what packages offer."""
    found: list[Offer] = []
    for stage in registry.stages():
        told: set[str] = set()
        for method in registry.methods(stage):
            if method in told:
                continue
            try:
                implementation = registry.get(stage, method)
                default = registry.default(stage) in implementation.methods
            except (ConfigError, PluginError) as error:
                found.append(Offer(stage=stage, methods=(method,), problem=str(error)))
                continue
            told.update(implementation.methods)
            found.append(_offer(implementation, default=default))
    return found


def _offer(implementation: Implementation, *, default: bool) -> Offer:
    return Offer(
        stage=implementation.stage,
        methods=implementation.methods,
        default=default,
        package=str(implementation.package or PROGRAM),
        takes=(
            *(("the input",) if implementation.source else ()),
            *implementation.inputs,
            *(f"{stage} (if there is one)" for stage in implementation.optional),
            *(f"{stage} (if asked for)" for stage in implementation.on_request),
        ),
        networks=implementation.roles,
        seeded=implementation.seeded,
        parameters=list(parameters(implementation.stage, implementation.config)),
    )


def parameters(prefix: str, config: type[StageConfig]) -> Iterator[Parameter]:
    """The keys of a configuration, told from its schema, sections within it included."""
    schema = config.model_json_schema()
    return _keys(prefix, schema, schema.get("$defs", {}))


def _keys(prefix: str, schema: Schema, definitions: Schema) -> Iterator[Parameter]:
    for name, given in schema["properties"].items():
        key = f"{prefix}.{name}"
        entry = {**_resolved(given, definitions), **given}
        if "properties" in entry:
            yield from _keys(key, entry, definitions)
            continue
        default = "(must be given)" if name in schema.get("required", ()) else _word(entry.get("default"))
        yield Parameter(key, _kind(entry, definitions), default, _limits(entry), entry.get("description", ""))


def _resolved(entry: Schema, definitions: Schema) -> Schema:
    reference = entry.get("$ref")
    resolved: Schema = definitions[reference.rpartition("/")[2]] if reference else entry
    return resolved


def _kind(entry: Schema, definitions: Schema) -> str:
    """The type in words, e.g. "integer or null" or "one of auto, alpha"."""
    entry = _resolved(entry, definitions)
    if "anyOf" in entry:
        return " or ".join(_kind(option, definitions) for option in entry["anyOf"])
    if "const" in entry:
        return _word(entry["const"])
    if "enum" in entry:
        return f"one of {', '.join(map(_word, entry['enum']))}"
    if "prefixItems" in entry:
        return f"[{', '.join(_kind(item, definitions) for item in entry['prefixItems'])}]"
    if entry.get("format") in {"path", "file-path"}:
        return "file"
    return str(entry.get("type", "any"))


def _limits(entry: Schema) -> str:
    """The range of a number, or of each number of a list."""
    parts = [entry, *entry.get("anyOf", ())]
    parts += [item for part in parts for item in part.get("prefixItems", ())]
    words = [f"{sign} {part[bound]}" for part in parts for bound, sign in BOUNDS if bound in part]
    return ", ".join(dict.fromkeys(words))


def _word(value: Any) -> str:
    return "null" if value is None else str(value)
