"""The record of a run, `run.json`: what it was made from, with which versions, and what each stage cost."""

import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from storage.files import read_json, write_json

SCHEMA = 1
RECORD = "run.json"
PACKAGES = (
    "ss4d-pipeline",
    "torch",
    "numpy",
    "numba",
    "zarr",
    "prefect",
    "av",
    "opencv-python-headless",
    "pillow",
    "safetensors",
)


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that touch the numbers."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def machine() -> dict[str, Any]:
    """The machine in a few words, to make sense of the seconds."""
    return {"system": platform.system(), "machine": platform.machine()}


def previous_recipes(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """Recipes by stage of the last run recorded in `folder`; empty if there was none or its record is damaged."""
    record = read_record(folder)
    stages = record.get("stages", {}) if record else {}
    return {name: stage["recipe"] for name, stage in stages.items() if "recipe" in stage}


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in `folder`, or None where there is none."""
    path = folder / RECORD
    return read_json(path) if path.is_file() else None


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Replaces the record in one step, so that a crash leaves the old one or the new one."""
    write_json(folder / RECORD, {"schema": SCHEMA, **record})
