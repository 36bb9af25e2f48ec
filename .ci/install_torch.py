"""Installs the CPU build of torch that the constraints pin, and never downloads CUDA libraries.

Usage: python .ci/install_torch.py CONSTRAINTS

Where pip's index lists the CPU build, or serves nothing else (macOS, Windows), pip installs it. Elsewhere the plain
name would bring CUDA packages, so uv installs it from PyTorch's own CPU index, whose address uv knows.
"""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path


def pinned(constraints: Path, package: str) -> str:
    found = re.search(rf"^{package}==(\S+)$", constraints.read_text(), re.MULTILINE)
    if found is None:
        sys.exit(f"{constraints} does not pin {package}")
    return found[1]


def installed() -> str | None:
    try:
        return metadata.version("torch").partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def main(constraints: Path) -> None:
    version = pinned(constraints, "torch")
    if installed() == version:
        return
    pip = [sys.executable, "-m", "pip"]
    listed = subprocess.run([*pip, "index", "versions", "torch"], capture_output=True, text=True, check=False).stdout
    if f"{version}+cpu" in re.findall(r"[^\s,()]+", listed):
        subprocess.run([*pip, "install", "--quiet", f"torch=={version}+cpu"], check=True)
    elif sys.platform != "linux":
        subprocess.run([*pip, "install", "--quiet", f"torch=={version}"], check=True)
    else:
        subprocess.run([*pip, "install", "--quiet", f"uv=={pinned(constraints, 'uv')}"], check=True)
        uv = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable, "--torch-backend", "cpu"]
        subprocess.run([*uv, f"torch=={version}"], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
