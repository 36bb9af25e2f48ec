"""The package is the same from a wheel, as an editable install, and from a checkout with nothing installed.

Environments here see the packages that the tests run with, but nothing of this project until it is installed into them.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from tests.conftest import FAST
from tests.helpers.places import ROOT

RIVALS = ("cli", "storage", "stages", "pipelines", "configs")  # top-level packages of somebody else
NUMERICS = ("torch", "numpy", "numba", "safetensors")


def checked(*command: str | Path, cwd: Path) -> str:
    """The standard output of a command that must succeed, run where no source lies unless `cwd` has it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout without what builds and tests leave in one, so that nothing old gets into a package."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("cli", "configs", "pipelines", "ss4d", "stages", "storage"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def archive(source: Path) -> Path:
    """The source distribution."""
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    checked(sys.executable, "-c", build, "dist", cwd=source)
    return next((source / "dist").glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(archive: Path) -> Path:
    """The wheel, built of the source distribution, as `pip install` of a published package does."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps")
    checked(*pip, "--no-build-isolation", "--wheel-dir", archive.parent, archive, cwd=archive.parent)
    return next(archive.parent.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes an environment in which pip has installed the project, from a wheel or with --editable FOLDER."""

    def make(*project: str | Path) -> Path:
        folder = tmp_path_factory.mktemp("environment")
        venv.create(folder, with_pip=False, symlinks=True)
        site = next(folder.glob("lib/python3*/site-packages"))
        # Of a folder named in a .pth file the packages are seen, but not its own .pth files, which editable installs
        # are.
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        for name in RIVALS:
            (site / name).mkdir()
            (site / name / "__init__.py").write_text("raise ImportError('the package of somebody else')\n")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder / "bin" / "python")
        checked(*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", *project, cwd=folder)
        return folder

    return make


def test_in_the_source_distribution_links_are_folders(archive: Path) -> None:
    with tarfile.open(archive) as members:
        links = [member.name for member in members if member.issym() or member.islnk()]
        names = {member.name.partition("/")[2] for member in members}
    assert links == []
    assert {"ss4d/cli/entry.py", "ss4d/stages/ops/cuda.py", "ss4d/configs/tiny.yaml", "LICENSE"} <= names


def test_the_wheel_holds_one_package_and_its_data(wheel: Path, source: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = {name for name in content.namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"ss4d"}
    folders = ("cli", "configs", "pipelines", "stages", "storage")
    files = {path.relative_to(source) for name in folders for path in (source / name).rglob("*") if path.is_file()}
    files |= {Path(path.name) for path in (source / "ss4d").iterdir() if path.is_file()}
    files = {path for path in files if path.parts[1:4] != ("models", "tiny", "training")}  # encoders for training on
    assert names == {f"ss4d/{path}" for path in files}
    assert {"ss4d/py.typed", "ss4d/configs/tiny.yaml", "ss4d/stages/segmentation/u2netp.safetensors"} <= names


def test_a_clip_is_run_from_the_wheel_beside_other_peoples_packages(
    wheel: Path, environment: Callable[..., Path], model_folder: Path, clip: Path, tmp_path: Path
) -> None:
    folder = environment(wheel)
    where = checked(folder / "bin" / "python", "-c", "import ss4d; print(ss4d.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(folder)
    sets = [word for value in (f"model={model_folder}", *FAST) for word in ("--set", value)]
    checked(folder / "bin" / "ss4d", "run", clip, "--out", tmp_path, "--engine", "direct", *sets, cwd=tmp_path)
    assert (tmp_path / "runs" / clip.name / "turntable.mp4").is_file()


def test_an_editable_install_is_the_checkout(source: Path, environment: Callable[..., Path], tmp_path: Path) -> None:
    python = environment("--editable", source) / "bin" / "python"
    code = "import ss4d.cli.main, ss4d.stages.types as types; print(types.__file__)"
    assert Path(checked(python, "-c", code, cwd=tmp_path).strip()).resolve() == source / "stages" / "types.py"


# Imports all that training may come to need later, then trains.
PLAIN_TRAINING = """
import importlib, pkgutil, sys

sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(",")))  # an import of these fails
import ss4d.stages.training

for module in pkgutil.iter_modules(ss4d.stages.training.__path__, "ss4d.stages.training."):
    importlib.import_module(module.name)
print(ss4d.stages.training.__main__.main(), ss4d.__file__)
"""


def closure(packages: tuple[str, ...]) -> set[str]:
    """The names of installed packages and all that they need."""
    found: set[str] = set()
    waiting = list(packages)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for another platform
            continue
        waiting += [_plain(text) for text in needed if "extra ==" not in text]
    return found


def _plain(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_training_in_a_checkout_needs_numerics_only(source: Path, tmp_path: Path) -> None:
    allowed = closure(NUMERICS)
    hidden = {
        module
        for module, owners in metadata.packages_distributions().items()
        if module != "ss4d" and not {_plain(owner) for owner in owners} & allowed
    }
    assert {"prefect", "zarr", "pydantic", "typer", "av", "cv2"} <= hidden
    words = ("smoke", "--out", str(tmp_path / "model"), "--minutes", "0")  # the time is up before the first step
    printed = checked(sys.executable, "-c", PLAIN_TRAINING, ",".join(hidden), *words, cwd=source)
    assert printed.split() == ["0", str(source / "ss4d" / "__init__.py")]
