"""The record of a run, `run.json`: what it was made from, with which versions, and what each stage cost."""

import logging
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch
from pydantic import BaseModel, ValidationError

from storage.files import write_json

LOG = logging.getLogger("ss4d")
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
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processors": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
    }


class _Input(BaseModel):
    path: str
    sha256: str


class _Stage(BaseModel):
    recipe: dict[str, Any]


class EarlierRun(BaseModel):
    """What a new run under the same name wants to know of the last one. A record is a file: it is checked."""

    input: _Input
    stages: dict[str, _Stage]
    results: list[str]


def read_record(folder: Path) -> EarlierRun | None:
    """The last run recorded in `folder`; None if there was none, or, with a warning, if its record is damaged."""
    path = folder / RECORD
    try:
        return EarlierRun.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        LOG.warning("%s is damaged and will be replaced", path)
        return None


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Replaces the record in one step, so that a crash leaves the old one or the new one."""
    write_json(folder / RECORD, {"schema": SCHEMA, **record})
