"""The rooms of `pipelines/dataset`: which may import which, so that no import climbs back."""

import ast
from pathlib import Path

import pytest

from tests.helpers.places import ROOT

DATASET = ROOT / "pipelines" / "dataset"
PREFIX = "ss4d.pipelines.dataset."
# Files in the folder itself that start a run or plan one, and so stand above `workers`; the others stand below.
ABOVE_WORKERS = {"plan", "hours", "launch"}
# What `workers` takes from below; of it, everything else is handed to the workers as values.
BELOW_WORKERS = {"events", "checks"}


def room(name: str) -> str:
    """The wing that a module lies in; "above" or "below" for the files in the folder itself."""
    first, _, rest = name.partition(".")
    return first if rest else ("above" if first in ABOVE_WORKERS else "below")


MAY_IMPORT = {
    "below": {"below"},
    "workers": {"workers", "below"},
    "above": {"above", "workers", "below"},
    "report": {"report", "below"},
    "cluster": {"cluster", "above", "workers", "below"},
}
MODULES = {
    ".".join(path.relative_to(DATASET).with_suffix("").parts): path
    for path in sorted(DATASET.rglob("*.py"))
    if path.name != "__init__.py"
}


def imported(path: Path) -> set[str]:
    """The modules of `pipelines/dataset` that a file imports, wherever in the file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    names = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)}


@pytest.mark.parametrize("name", MODULES)
def test_no_import_climbs_back(name: str) -> None:
    for other in imported(MODULES[name]):
        assert other in MODULES, f"{name} imports {other}, which is no module"
        assert room(other) in MAY_IMPORT[room(name)], f"{name} imports {other}"
        if room(name) == "workers" and room(other) == "below":
            assert other in BELOW_WORKERS, f"{name} imports {other}"
