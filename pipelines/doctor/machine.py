"""What an examination is made on: the card or processor, its driver, and the versions of what computes."""

import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from ss4d import __version__
from ss4d.pipelines.doctor.findings import Check

GROUP = "machine"
PACKAGES = ("torch", "numpy", "numba", "safetensors", "xformers", "gsplat", "spconv", "spconv-cu126", "flash-attn-3")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def facts_of(device: torch.device) -> dict[str, Any]:
    """What a reader of the findings must know of the machine."""
    return {
        "ss4d": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": psutil.virtual_memory().total,
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "device": device.type,
        "cuda": torch.version.cuda,
        "rocm": torch.version.hip,
        "driver": NVIDIA_DRIVER.read_text().splitlines()[0] if NVIDIA_DRIVER.exists() else None,
        "card": _card(device) if device.type == "cuda" else None,
    }


def machine_checks(device: torch.device, facts: Mapping[str, Any]) -> Iterator[Check]:
    """The facts as lines, and whether torch computes on the device at all."""
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    yield Check(group=GROUP, name="program", state="ok", says=f"ss4d {facts['ss4d']}, python {facts['python']}")
    yield Check(group=GROUP, name="packages", state="ok", says=packages)
    memory = f"{facts['memory'] / 2**30:.0f} GiB"
    processors = f"{facts['processors']} processors, {facts['threads']} threads, {memory}, {facts['system']}"
    yield Check(group=GROUP, name="processors", state="ok", says=processors)
    if facts["card"] is not None:
        card = facts["card"]
        built = f"CUDA {facts['cuda']}" if facts["cuda"] else f"ROCm {facts['rocm']}"
        says = f"{card['name']}, {card['memory'] / 2**30:.0f} GiB, capability {card['capability']}, torch for {built}"
        yield Check(group=GROUP, name="card", state="ok", says=f"{says}; {facts['driver'] or 'driver not known'}")
    total = float((torch.arange(1000, device=device, dtype=torch.float32) * 2).sum())
    right = total == 999_000
    says = f"{device.type}: {'gives right sums' if right else f'adds 0 to 1998 in steps of 2 up to {total}'}"
    yield Check(group=GROUP, name="device", state="ok" if right else "failed", says=says)


def _card(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "processors": properties.multi_processor_count,
        "built_for": torch.cuda.get_arch_list(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
