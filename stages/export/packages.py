"""Packages that formats need and that do not come with the program: looked for before anything is computed.

A plan asks for them, so nothing here imports what computes, nor the packages themselves.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from ss4d.stages.errors import InputError
from ss4d.stages.export.config import FormatName
from ss4d.stages.extras import how_to_install


@dataclass(frozen=True)
class FormatPackage:
    """A package by the name it is installed with, the module it is known by, and the extra that brings it."""

    name: str
    module: str
    extra: str


PACKAGES: Mapping[FormatName, FormatPackage] = {"usd": FormatPackage("usd-core", "pxr", "usd")}


def check_packages(formats: Iterable[FormatName]) -> None:
    """Looks whether what the formats need is installed.

    Raises:
        InputError: the first package that is not, and how to get it.
    """
    for name in formats:
        package = PACKAGES.get(name)
        if package is not None and not is_there(package):
            raise InputError(
                f"the format {name} needs the package {package.name}: {how_to_install(package.extra)}, or leave {name} "
                "out of the formats"
            )


def is_there(package: FormatPackage) -> bool:
    """Whether a package is installed."""
    return find_spec(package.module) is not None
