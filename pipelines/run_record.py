"""The record of a run, `run.json`: what it was made from, with which versions, and what each stage cost."""

import logging
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, Field, ValidationError

from ss4d import __version__
from ss4d.storage.errors import NewerError
from ss4d.storage.files import read_plain, write_json

LOG = logging.getLogger("ss4d")
SCHEMA = 1
RECORD = "run.json"
PACKAGES = (
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
    packages = {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "ss4d-pipeline": __version__, **packages}


def machine() -> dict[str, Any]:
    """The machine in a few words, to make sense of the seconds; a run that computes adds its threads."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processors": psutil.cpu_count(),
    }


class _Version(BaseModel):
    schema_version: int = Field(alias="schema")


class _Input(BaseModel):
    path: str
    sha256: str


class _Stage(BaseModel):
    recipe: dict[str, Any]


class _Config(BaseModel):
    goals: tuple[str, ...] = ("export",)  # older records did not note them


class _Model(BaseModel):
    revisions: dict[str, str] = {}  # commits of hub repositories; older records did not note them


class Exported(BaseModel):
    """Files that `ss4d export` added to a run, and the key of the Gaussians that they show.

    `formats` are those it was asked for, with the most Gaussians of a frame, where that was asked for, too.
    """

    key: str
    files: list[str]
    formats: dict[str, int | None] = {}


class EarlierRun(BaseModel):
    """What a new run under the same name wants to know of the last one. A record is a file: it is checked."""

    input: _Input
    config: _Config = _Config()
    model: _Model = _Model()
    unavailable: tuple[str, ...] = ()  # goals of runs before it, whose packages were not there any more
    stages: dict[str, _Stage]
    results: list[str]
    exported: Exported | None = None  # some of the results


def read_record(folder: Path) -> EarlierRun | None:
    """The last run recorded in `folder`; None if there was none, or, with a warning, if its record is damaged.

    Raises:
        NewerError: if a newer version wrote the record.
    """
    path = folder / RECORD
    try:
        data = read_plain(path)
        refuse_newer(data, str(path))
        return EarlierRun.model_validate_json(data)
    except FileNotFoundError:
        return None
    except ValidationError:
        LOG.warning("%s is damaged and will be replaced", path)
        return None


def refuse_newer(data: bytes, where: str) -> None:
    """Raises NewerError if the record in the bytes of `where` is of a newer version; says nothing of a damaged one."""
    try:
        version = _Version.model_validate_json(data).schema_version
    except ValidationError:
        return
    if version > SCHEMA:
        raise NewerError(
            f"{where} was written by a newer version of this program (schema {version}, this one knows {SCHEMA}); "
            "upgrade, or give the run another name"
        )


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Replaces the record in one step, so that a crash leaves the old one or the new one."""
    write_json(folder / RECORD, {"schema": SCHEMA, **record})
