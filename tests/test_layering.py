"""Imports point one way: cli -> pipelines -> stages -> nn -> ops, and stages and storage never see each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("cli", "pipelines", "storage", "stages.nn", "stages.ops", "stages")
MAY_IMPORT = {
    "cli": {"cli", "pipelines"},
    "pipelines": {"pipelines", "stages", "stages.nn", "stages.ops", "storage"},
    "storage": {"storage"},
    "stages": {"stages", "stages.nn", "stages.ops"},
    "stages.nn": {"stages.nn", "stages.ops", "stages.types", "stages.errors"},
    "stages.ops": {"stages.ops", "stages.types", "stages.errors"},
}
STAGE_MODULES = {"segmentation", "conditioning", "sparse_structure", "slat", "decoding", "export"}
KERNEL_PACKAGES = {"xformers", "spconv", "gsplat", "nvdiffrast", "kaolin"}
NOT_IN_STAGES = {"prefect", "zarr", "typer", "huggingface_hub"}
NUMERICS_ONLY = {"torch", "numpy", "numba", "safetensors"}

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
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


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


@pytest.mark.parametrize("path", [p for p in SOURCES if module(p).startswith("stages")], ids=module)
def test_stages_stand_alone(path: Path) -> None:
    external = {name.split(".")[0] for name in imports(path)}
    assert not external & NOT_IN_STAGES
    if module(path) != "stages.ops.cuda":
        assert not external & KERNEL_PACKAGES
    mine = module(path).split(".")[1]
    if mine in STAGE_MODULES:
        others = {n.split(".")[1] for n in imports(path) if n.startswith("stages.")} & STAGE_MODULES
        assert others <= {mine}, f"{path} imports the stage {others - {mine}}"


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if module(p).startswith(("stages.nn", "stages.ops", "stages.sampling", "stages.training"))],
    ids=module,
)
def test_networks_need_numerics_only(path: Path) -> None:
    """So that training on generated clips needs nothing but these packages."""
    import sys

    external = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"stages"}
    if module(path) == "stages.ops.cuda":
        external -= KERNEL_PACKAGES
    assert external <= NUMERICS_ONLY


def test_package_files_are_empty() -> None:
    assert [p for p in SOURCES if p.name == "__init__.py" and p.read_text()] == []
