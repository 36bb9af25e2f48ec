"""Installs the CPU build of torch that `torch.txt` pins, and never downloads CUDA libraries.

Usage: python .ci/install_torch.py FOLDER_OF_REQUIREMENTS

Where pip's index lists the CPU build, or serves nothing else (macOS, Windows), pip installs it. Elsewhere the plain
name would bring CUDA packages, so uv installs it from PyTorch's own CPU index, whose address uv knows. Each of them
refuses a file that has another hash than the pinned ones.
"""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path


def pinned(torch: Path) -> str:
    """The version, without its build."""
    found = re.search(r"^torch==([^\s+]+)", torch.read_text(), re.MULTILINE)
    if found is None:
        sys.exit(f"{torch} does not pin torch")
    return found[1]


def installed() -> str | None:
    try:
        return metadata.version("torch").partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def main(requirements: Path) -> None:
    torch = requirements / "torch.txt"
    version = pinned(torch)
    if installed() == version:
        return
    pip = [sys.executable, "-m", "pip"]
    checked = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement"]
    listed = subprocess.run([*pip, "index", "versions", "torch"], capture_output=True, text=True, check=False).stdout
    if sys.platform != "linux" or f"{version}+cpu" in re.findall(r"[^\s,()]+", listed):
        subprocess.run([*pip, "install", "--quiet", *checked, torch], check=True)
    else:
        subprocess.run([*pip, "install", "--quiet", *checked, requirements / "uv.txt"], check=True)
        uv = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable, "--torch-backend", "cpu"]
        subprocess.run([*uv, *checked, torch], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
