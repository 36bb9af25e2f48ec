"""Nested mappings, such as recipes and configurations, by dotted names."""

from collections.abc import Iterator, Mapping
from typing import Any


def flattened(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry of a tree that is no mapping itself, with its dotted name, such as ("slat.sampler.steps", 25)."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
