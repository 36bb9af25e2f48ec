"""Reads YAML as configurations have it: plain data of a bounded size, with numbers such as 1e9, as in YAML 1.2."""

import re
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field
from yaml.nodes import Node


class YamlLimits(BaseModel):
    """What a YAML text may hold: nine lines of aliases can stand for a billion values."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    characters: int = Field(default=1_000_000, ge=1, description="most characters of a text")
    values: int = Field(default=10_000, ge=1, description="most values in it, with what aliases repeat")
    # What follows goes through the data by calling itself.
    depth: int = Field(default=50, ge=1, le=150, description="most sections and lists in each other")


USUAL = YamlLimits()
SETTING = "limits.yaml"  # where a configuration has them


class _Loader(yaml.SafeLoader):
    """Counts what it composes; aliases are repeated wherever the data is written or checked."""

    def __init__(self, text: str, limits: YamlLimits) -> None:
        super().__init__(text)
        self._limits = limits
        self._depth = 0
        self._sizes: dict[int, int] = {}  # of composed nodes, by identity

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self._depth += 1
        if self._depth > self._limits.depth:
            raise yaml.YAMLError(f"it is nested more than {self._limits.depth} deep ({SETTING}.depth)")
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise yaml.YAMLError("an alias stands in what it is an alias of")
        if node is not None and not is_alias:
            self._sizes[id(node)] = self._size(node)
        return node

    def _size(self, node: Node) -> int:
        """Values in a node, each as often as it would be written without aliases."""
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for item in inner for part in (item if isinstance(item, tuple) else (item,)))
        size = 1 + sum(self._sizes[id(part)] for part in parts)
        if size > self._limits.values:
            raise yaml.YAMLError(
                f"it holds more than {self._limits.values:,} values, with those that aliases repeat ({SETTING}.values)"
            )
        return size


# YAML 1.1, which the library follows, wants a point and a sign in 1.0e+9.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def parse_yaml(text: str, limits: YamlLimits = USUAL) -> Any:
    """The data of a YAML text, which holds plain values only.

    Raises:
        yaml.YAMLError: it is not YAML, or holds more than it may; names the limit.
    """
    if len(text) > limits.characters:
        raise yaml.YAMLError(f"it has more than {limits.characters:,} characters ({SETTING}.characters)")
    loader = _Loader(text, limits)
    try:
        return loader.get_single_data()
    except (ValueError, LookupError, AttributeError) as error:  # what the library makes of odd tags and numbers
        raise yaml.YAMLError(f"it holds a value that is not what it says ({error})") from error
    finally:
        loader.dispose()
