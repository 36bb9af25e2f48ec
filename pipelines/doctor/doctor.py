"""Examines whether this machine computes what it should: what is there, kernels, golden numbers, networks, a run.

Nothing that goes wrong ends it: each finding is a line, and what a run would meet makes the whole of it fail.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ss4d.pipelines.bench.subjects import Inputs
from ss4d.pipelines.doctor.cases import case_checks
from ss4d.pipelines.doctor.extent import EXTENTS, Extent, SizeName, fitting_size
from ss4d.pipelines.doctor.findings import Check, Findings, guarded
from ss4d.pipelines.doctor.kernels import kernel_checks
from ss4d.pipelines.doctor.machine import facts_of, machine_checks
from ss4d.pipelines.doctor.networks import network_checks
from ss4d.pipelines.doctor.two_frames import run_checks
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.output_file import check_output_file
from ss4d.stages.ops.device import resolve_device
from ss4d.stages.ops.kernel_choice import ChosenKernels, Use, choose_kernels


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """What is examined; without a size, the published one on CUDA and the reduced one on a CPU."""

    device: str = "auto"
    size: SizeName | None = None
    out: Path | None = None


def examine(options: DoctorOptions, tell: Callable[[Check], None]) -> Findings:
    """Examines the machine; `tell` hears of each finding as it comes, and `options.out` gets all so far as JSON.

    Raises:
        InputError: there is no such device.
        ConfigError: the file cannot be written.
    """
    device = torch.device(resolve_device(options.device))
    size, of_size = fitting_size(device.type, options.size)
    found = Findings(facts={**facts_of(device), "size": size}, checks=(), finished=False)
    if options.out is not None:
        check_output_file(options.out)
    _keep(options.out, found)
    checks = _checks(device, size, EXTENTS[device.type, size], found.facts)
    for check in chain([of_size] if of_size else [], checks):
        tell(check)
        found = replace(found, checks=(*found.checks, check))
        _keep(options.out, found)
    found = replace(found, finished=True)
    _keep(options.out, found)
    return found


def _keep(file: Path | None, found: Findings) -> None:
    """Writes what is found so far: a driver may end the process, and then a report needs it most."""
    if file is None:
        return
    try:
        file.write_text(json.dumps(found.plain(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json {file}: cannot be written: {error.strerror}") from error


def _checks(device: torch.device, size: SizeName, extent: Extent, facts: Mapping[str, Any]) -> Iterator[Check]:
    yield from guarded("machine", "device", partial(machine_checks, device, facts))
    use = Use(device=device, dtypes=frozenset({torch.float32, extent.half}))
    try:
        chosen = choose_kernels(use)
    except Exception as error:  # nothing after it could be computed
        yield Check(group="kernels", name="choice", state="failed", says=str(error))
        return
    yield from guarded("kernels", "trials", partial(kernel_checks, chosen, use, size))
    yield from guarded(
        "golden numbers", "cases", partial(case_checks, device, chosen.ops, (torch.float32, extent.half))
    )
    yield from guarded("networks", "passes", partial(network_checks, _inputs(device, size, extent, chosen)))
    yield from guarded("two frames", "run", partial(run_checks, device.type, size, extent.precision))


def _inputs(device: torch.device, size: SizeName, extent: Extent, chosen: ChosenKernels) -> Inputs:
    return Inputs(
        size="published" if size == "published" else "tiny",
        frames=extent.frames,
        voxels=extent.voxels,
        device=device,
        dtype=extent.half if size == "published" or device.type == "cuda" else torch.float32,
        ops=chosen.ops,
        rasterize=chosen.rasterize,
    )
