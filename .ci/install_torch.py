"""Installs the CPU build of torch that the constraints pin, and never downloads CUDA libraries.

Usage: python .ci/install_torch.py CONSTRAINTS

Where pip's index serves a CPU build (macOS, Windows, many mirrors) pip installs it. Where it would bring CUDA packages,
uv installs it from PyTorch's own CPU index, whose address uv knows.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path


def main(constraints: str) -> None:
    if importlib.util.find_spec("torch"):
        return
    pin = next(line for line in Path(constraints).read_text().splitlines() if line.startswith("torch=="))
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    # A dry run reads metadata only, and names everything that would be installed.
    report = subprocess.run([*pip, "--dry-run", "--report", "-", pin], check=True, stdout=subprocess.PIPE).stdout
    names = [item["metadata"]["name"] for item in json.loads(report)["install"]]
    if not any(name.startswith(("nvidia", "cuda", "triton")) for name in names):
        subprocess.run([*pip, "--constraint", constraints, pin], check=True)
        return
    subprocess.run([*pip, "uv"], check=True)
    uv = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable, "--torch-backend", "cpu"]
    subprocess.run([*uv, pin], check=True)


if __name__ == "__main__":
    main(sys.argv[1])
