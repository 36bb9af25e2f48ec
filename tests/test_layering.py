"""Imports point one way: cli -> pipelines -> stages -> nn -> ops, and stages and storage never see each other.

Inside pipelines the hall, one clip's run, imports no wing, and no import anywhere leads in a circle.
"""

import ast
from pathlib import Path

import pytest

from tests.helpers.places import ROOT

LAYERS = ("ss4d.cli", "ss4d.pipelines", "ss4d.storage", "ss4d.stages.nn", "ss4d.stages.ops", "ss4d.stages")
MAY_IMPORT = {
    "ss4d.cli": {"ss4d.cli", "ss4d.pipelines"},
    "ss4d.pipelines": {"ss4d.pipelines", "ss4d.stages", "ss4d.stages.nn", "ss4d.stages.ops", "ss4d.storage"},
    "ss4d.storage": {"ss4d.storage"},
    "ss4d.stages": {"ss4d.stages", "ss4d.stages.nn", "ss4d.stages.ops"},
    "ss4d.stages.nn": {
        "ss4d.stages.nn",
        "ss4d.stages.ops",
        "ss4d.stages.types",
        "ss4d.stages.errors",
        "ss4d.stages.typed_json",
    },
    "ss4d.stages.ops": {"ss4d.stages.ops", "ss4d.stages.types", "ss4d.stages.errors"},
}
STAGE_MODULES = {"segmentation", "conditioning", "sparse_structure", "slat", "decoding", "meshing", "export"}
KERNEL_PACKAGES = {"xformers", "spconv", "gsplat", "nvdiffrast", "kaolin"}
NOT_IN_STAGES = {"prefect", "zarr", "typer", "huggingface_hub"}
NUMERICS_ONLY = {"torch", "numpy", "numba", "safetensors"}
NUMERICS_MODULES = ("nn", "ops", "model_folder", "sampler_params", "sampling", "training", "typed_json", "weights")

# The wings of pipelines, and the other wings that each may import; the rooms of dataset have a test of their own.
WINGS: dict[str, set[str]] = {
    "inspect": set(),
    "view": {"inspect"},
    "serve": {"inspect", "view"},
    "bench": set(),
    "doctor": {"bench"},
    "training": {"inspect"},
    "dataset": {"inspect"},
    "store": {"inspect", "dataset"},
}

SOURCES = sorted(p for top in ("cli", "pipelines", "storage", "stages") for p in (ROOT / top).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: wildcard import"
            found.add(node.module or "")
    return found


def module(path: Path) -> str:
    return "ss4d." + ".".join(path.relative_to(ROOT).with_suffix("").parts)


MODULES = {module(path): path for path in SOURCES if path.name != "__init__.py"}


class Imports(ast.NodeVisitor):
    """The modules of this project that a file imports, at its top or in a function, but for names in annotations."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:  # as ast calls it
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names} & MODULES.keys()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        names = {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
        self.found |= names & MODULES.keys()


def imported_modules(path: Path) -> set[str]:
    visitor = Imports()
    visitor.visit(ast.parse(path.read_text()))
    return visitor.found


def wing(name: str) -> str | None:
    """The wing of pipelines that a module lies in; None for the hall and for everything outside."""
    parts = name.split(".")
    return parts[2] if parts[1] == "pipelines" and len(parts) > 3 else None


def layer(name: str) -> str | None:
    return next((candidate for candidate in LAYERS if name == candidate or name.startswith(candidate + ".")), None)


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_imports_point_one_way(path: Path) -> None:
    home = layer(module(path))
    assert home is not None
    allowed = MAY_IMPORT[home]
    for name in imports(path):
        target = layer(name)
        if target is not None:
            assert target in allowed or name in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("*.py")), ids=module)
def test_one_clips_run_needs_no_wing(path: Path) -> None:
    """What runs one clip lies in `pipelines/` itself; what is built around it lies in the folders there."""
    wings = tuple(f"ss4d.pipelines.{folder.name}." for folder in (ROOT / "pipelines").iterdir() if folder.is_dir())
    assert [name for name in imports(path) if name.startswith(wings)] == []


@pytest.mark.parametrize("path", [p for p in SOURCES if module(p).startswith("ss4d.stages")], ids=module)
def test_stages_stand_alone(path: Path) -> None:
    external = {name.split(".")[0] for name in imports(path)}
    assert not external & NOT_IN_STAGES
    if module(path) != "ss4d.stages.ops.cuda":
        assert not external & KERNEL_PACKAGES
    mine = module(path).split(".")[2]
    if mine in STAGE_MODULES:
        others = {n.split(".")[2] for n in imports(path) if n.startswith("ss4d.stages.")} & STAGE_MODULES
        assert others <= {mine}, f"{path} imports the stage {others - {mine}}"


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if module(p).startswith(tuple(f"ss4d.stages.{name}" for name in NUMERICS_MODULES))],
    ids=module,
)
def test_networks_need_numerics_only(path: Path) -> None:
    """So that training on generated clips needs nothing but these packages."""
    import sys

    external = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"ss4d"}
    if module(path) == "ss4d.stages.ops.cuda":
        external -= KERNEL_PACKAGES
    assert external <= NUMERICS_ONLY


def test_package_files_are_empty() -> None:
    assert [p for p in SOURCES if p.name == "__init__.py" and p.read_text()] == []


def test_every_wing_is_in_the_table() -> None:
    assert {room for name in MODULES if (room := wing(name))} == WINGS.keys()


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("ss4d.pipelines.")])
def test_the_hall_imports_no_wing_and_a_wing_few(name: str) -> None:
    mine = wing(name)
    others = {room for other in imported_modules(MODULES[name]) if (room := wing(other))} - {mine}
    assert others <= (WINGS[mine] if mine else set()), f"{name} imports of {', '.join(sorted(others))}"


@pytest.mark.parametrize(
    "graph",
    [{name: imported_modules(path) for name, path in MODULES.items()}, WINGS],
    ids=["modules", "wings"],
)
def test_no_imports_lead_in_a_circle(graph: dict[str, set[str]]) -> None:
    left = {name: set(others) for name, others in graph.items()}
    while ends := {name for name, others in left.items() if not others} or left.keys() - set().union(*left.values()):
        left = {name: others - ends for name, others in left.items() if name not in ends}
    assert not left, f"a circle among {', '.join(sorted(left))}"


def test_only_the_import_name_has_a_file_above_the_layers() -> None:
    """`ss4d.notebook` stands beside the command: nothing below imports it."""
    assert {path.name for path in (ROOT / "ss4d").glob("*.py")} == {"__init__.py", "notebook.py"}
    assert [path for path in SOURCES if "ss4d.notebook" in imports(path)] == []
    above = {name for name in imports(ROOT / "ss4d" / "notebook.py") if name.startswith("ss4d.")}
    assert {layer(name) for name in above} == {"ss4d.pipelines"}
