"""What is installed is pinned with hashes, everywhere, and as `pyproject.toml` wants it."""

import re
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.places import ROOT

LISTS = sorted(path.name for path in (ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
CHECKED = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement")


def pins(name: str) -> dict[str, set[str]]:
    """The versions that a list has, for one platform or another, by the package's name."""
    found: dict[str, set[str]] = {}
    for entry in re.findall(r"^([\w.-]+==\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE):
        package, version = entry.split("==")
        found.setdefault(canonicalize_name(package), set()).add(version)
    return found


@pytest.mark.parametrize("name", LISTS)
def test_every_pin_has_hashes_and_no_list_names_a_place(name: str) -> None:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        assert line.startswith("#") or re.fullmatch(
            r"[\w.-]+==\S+( ; [^;\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line
        )
        assert following.startswith("    --hash") == line.endswith("\\")
    assert LISTS == ["cuda.txt", "cuda_kernels.txt", "develop.txt", "run.txt", "torch.txt", "uv.txt"]


@pytest.mark.parametrize(
    ("lists", "extras"),
    [
        (("torch.txt", "run.txt"), ()),
        (("torch.txt", "develop.txt"), ("dev", "dask", "ray", "usd", "mesh", "notebook")),
        (("cuda.txt",), ()),
        (("cuda_kernels.txt",), ("cuda",)),
        (("uv.txt",), None),
    ],
)
def test_the_lists_have_what_the_project_wants(lists: tuple[str, ...], extras: tuple[str, ...] | None) -> None:
    groups = PROJECT["dependency-groups"]
    own = groups["pins"] if extras is None else [*PROJECT["project"]["dependencies"], *groups["build"]]
    held: dict[str, set[str]] = {}
    for name in lists:
        held |= pins(name)
    for text in [*own, *chain.from_iterable(EXTRAS[extra] for extra in extras or ())]:
        wanted = Requirement(text)
        versions = held[canonicalize_name(wanted.name)]
        assert versions, text
        assert all(wanted.specifier.contains(version) for version in versions), text


def test_the_lists_agree() -> None:
    cuda, run = pins("cuda.txt"), pins("run.txt")
    assert {version.partition("+")[0] for version in pins("torch.txt")["torch"]} == cuda["torch"]
    for larger, smaller in (("develop.txt", run), ("cuda_kernels.txt", cuda), ("cuda.txt", run)):
        assert smaller.items() <= pins(larger).items()
    for_cuda = {name for name in (*run, *pins("develop.txt")) if re.match(r"nvidia-|cuda-|triton|torch$", name)}
    assert for_cuda == set(), "no machine without a GPU should download these"


def test_no_documented_install_goes_unchecked() -> None:
    pages = [
        ROOT / "Makefile",
        ROOT / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "docs").rglob("Dockerfile.*"),
    ]
    commands = {
        line.strip()
        for page in pages
        for line in page.read_text().splitlines()
        if "pip install " in line and "`" not in line
    }
    assert len(commands) > 5
    loose = {line for line in commands if "--require-hashes" not in line and "--no-deps" not in line}
    # Extras and packages of somebody else, beside what is installed already.
    assert {line.split("#")[0].strip() for line in loose} == {"pip install '.[dask]'", "pip install examples/plugin"}


def test_a_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "small-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1\n")
        wheel.writestr("small-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("small-1.dist-info/RECORD", "")
    (tmp_path / "list.txt").write_text(f"small==1 --hash=sha256:{'0' * 64}\n")
    makefile = (ROOT / "Makefile").read_text().replace("$(PIP) ", "--no-deps ")
    assert " ".join(CHECKED) in makefile
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--isolated", "install", "--no-index")
    words = ("--find-links", tmp_path, "--target", tmp_path / "here", *CHECKED, tmp_path / "list.txt")
    done = subprocess.run([*pip, *words], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "here").exists()
